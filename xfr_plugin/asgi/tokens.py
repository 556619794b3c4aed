"""The token that callers bring: in a file that only its owner can read, and which may be replaced at any time."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from pathlib import Path

from xfr_plugin.base.files import atomic_path, writing_to

__all__ = ["Tokens", "write_token"]

_GRACE_SECONDS = 60.0


def write_token(file: Path) -> str:
    """Write a new token, whole or not at all; a server that reads the file takes it from then on."""
    token = secrets.token_urlsafe(32)
    with writing_to(file.parent), atomic_path(file) as unfinished:
        unfinished.write_text(json.dumps({"inference": {"key": token}}), encoding="utf-8")
    file.chmod(0o600)
    return token


class Tokens:
    """Whether a header brings the token of a file, or the one before it, for a minute after it was replaced."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed = file, -1
        self._current = self._last = ""
        self._replaced = 0.0
        self._read()  # or the first token is not known where nobody asked before it was replaced

    def allow(self, authorization: str) -> bool:
        """Check the header `Authorization`."""
        self._read()
        scheme, _, token = authorization.partition(" ")
        given = token.encode() if scheme.lower() == "bearer" else b""
        current = bool(self._current) and hmac.compare_digest(given, self._current.encode())
        in_grace = bool(self._last) and time.monotonic() - self._replaced < _GRACE_SECONDS
        return current or (in_grace and hmac.compare_digest(given, self._last.encode()))

    def _read(self) -> None:
        try:
            found_at = os.stat(self._file)
            changed = found_at.st_mtime_ns
            if changed == self._changed:
                return
            found = str(json.loads(self._file.read_text(encoding="utf-8"))["inference"]["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # it is being replaced, or gone: what was known holds
        self._last, self._current, self._changed = self._current, found, changed
        # not from now on: this may be the first request for days
        self._replaced = time.monotonic() - max(0.0, time.time() - found_at.st_mtime)
