"""How large an answer may become, known before it is made."""

from __future__ import annotations

from xfr_plugin.faces.regions import REGION_NAMES
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.requests import Request

__all__ = ["answer_size"]

_FRAME = 4096
"""Decision, versions, timings, warnings."""
_WORDS = 4096
_REGION = 320
"""Of a region's evidence."""
_ID = 128 * 6
_NOISE = 1.01
"""What PNG makes of pixels that cannot be packed, to their size."""


def answer_size(
    request: Request, explains: bool, deployment: Deployment, size: tuple[int, int], dim: int
) -> int:
    """Bytes of an answer at most.

    Args:
        request: what is asked.
        explains: whether the endpoint says why, if the request leaves it open.
        deployment: whose limits hold.
        size: height and width of aligned faces.
        dim: length of an embedding.
    """
    count = 1 if request.gallery is None else min(request.gallery.top, deployment.limits.top)
    total = _FRAME + _ID + count * (_FRAME // 4 + _ID)
    if request.wants("embeddings"):
        total += 2 * _base64(4 * dim)
    if explains if request.explain is None else request.explain:
        total += count * _explanation(request, size)
    return total


def _explanation(request: Request, size: tuple[int, int]) -> int:
    picture = _base64(int(_NOISE * 3 * size[0] * size[1]) + 1024)
    numbers = _base64(4 * size[0] * size[1])
    face = sum(
        cost
        for what, cost in (
            ("regions", _REGION * len(REGION_NAMES)),
            ("maps", numbers if request.map_format == "float32" else picture),
            ("overlay", picture),
            ("reconstructions", picture),
        )
        if what in request.returns
    )
    sides = 2 if request.gallery is None else 1
    return _FRAME + _WORDS + sides * face


def _base64(length: int) -> int:
    return (length + 2) // 3 * 4
