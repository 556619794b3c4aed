"""Is a JSON text small enough to be parsed? A few passes over its bytes tell, before anything is made of them."""

from __future__ import annotations

from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.limits import DEPTH, KEYS, ROWS, Limits

__all__ = ["check_json"]

_BUT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_SPACE = b" \t\r\n"


def check_json(data: bytes, name: str, limits: Limits) -> None:
    """Count what a text holds at most: brackets and commas within texts are counted too.

    Args:
        data: the text.
        name: of it, for messages.
        limits: of the deployment.

    Raises:
        ServiceError: `too_large`, or `malformed` for what is nested too deep.
    """
    if len(data) > limits.json_bytes:
        raise ServiceError("too_large", f"{name} has {len(data):,} bytes, the limit is {limits.json_bytes:,}")
    brackets = data.translate(None, _BUT_BRACKETS)
    most_rows = limits.gallery + ROWS
    if _is_deep(brackets[: 2 * most_rows + 2]):
        raise ServiceError("malformed", f"{name} is nested more than {DEPTH} deep")
    rows = brackets.count(b"[") + brackets.count(b"{")
    found = {
        "lists and objects": (rows, most_rows),
        "values": (data.count(b",") + rows, limits.numbers),
        "keys": (data.translate(None, _SPACE).count(b'":'), KEYS),
    }
    for what, (count, most) in found.items():
        if count > most:
            raise ServiceError("too_large", f"{name} has {count:,} {what}, the limit is {most:,}")


def _is_deep(brackets: bytes) -> bool:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            return True
    return False
