"""Connections that end when their clients keep them waiting, or send what costs far more than it holds."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Patient"]

_LONGEST_HEAD = 64 << 10
_HEAD_SECONDS, _SECONDS = 10.0, 30.0
_PIECES, _PIECE = 1000, 256


class _Coarse(h11.Connection):
    """Refuses bodies in crumbs: a chunk of a byte takes as long as one of thousands, and all others wait for it."""

    _spare = 0.0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._spare = _PIECES
        elif isinstance(event, h11.Data):
            self._spare += len(event.data) / _PIECE - 1
            if self._spare < 0:
                raise h11.RemoteProtocolError("the body comes in crumbs")
        return event


class Patient(H11Protocol):
    """A connection that waits for its client, but not for long.

    It waits 10 seconds for the first head, and from then on half a minute to a minute: for the next one, for an
    answer to be read, and for the rest of a body that was refused. How long a body may take, the application says.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _Coarse(h11.SERVER, _LONGEST_HEAD)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to look."""
        super().connection_made(transport)
        self.loop.call_later(_HEAD_SECONDS, self._look, None)

    def send_400_response(self, msg: str) -> None:
        """Once for a request: what is at work on it may answer later, or has answered."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        self.transport.close()

    def _look(self, seen: object) -> None:
        """End what waits for its client at the request that it was `seen` to wait at before."""
        waits = self.cycle is None or self.cycle.response_complete or self.flow.write_paused
        if waits and self.cycle is seen:
            self.transport.abort()
        elif not self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.loop.call_later(_SECONDS, self._look, self.cycle if waits else self)
