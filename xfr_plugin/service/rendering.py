"""Reasons in the form that was asked for: tables, maps, pictures, sentences."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.explanation.document import encode_image, encode_map
from xfr_plugin.explanation.explanation import RegionEvidence
from xfr_plugin.explanation.figures.explanation import display_map, full_colour_scale, overlay
from xfr_plugin.explanation.pipeline import SIDES, PairMaps
from xfr_plugin.service.answers import FaceReasons
from xfr_plugin.service.requests import Request

__all__ = ["embedding_text", "face_reasons", "map_picture"]

RegionTable: TypeAlias = tuple[RegionEvidence, ...]
"""Evidence of every region of a face."""


def face_reasons(
    request: Request,
    maps: PairMaps,
    tables: Sequence[RegionTable | None],
    images: Sequence[NDArray[np.uint8] | None],
    likenesses: Mapping[str, Tensor],
) -> list[FaceReasons | None]:
    """Reasons of both faces, see `FaceReasons`. Pictures of a pair share one scale.

    Args:
        request: says what is wanted.
        maps: signed, H×W each.
        tables: evidence by region of each face that has a map.
        images: aligned faces H×W×3, where there are any.
        likenesses: decoded faces 3×H×W in [0, 1], by side; where they are wanted.
    """
    drawn = [display_map(values) for values in maps.sides if values is not None and _draws(request)]
    scale = full_colour_scale(drawn) if drawn else 1.0
    return [
        None if values is None else _reasons(values, request, table, image, scale, likenesses.get(side))
        for side, values, table, image in zip(SIDES, maps.sides, tables, images, strict=True)
    ]


def map_picture(values: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """A signed map H×W over white, H×W×3: blue for, hatched orange against; full colour at magnitude `scale`."""
    white = np.full((*values.shape, 3), 255, dtype=np.uint8)
    return _to_uint8(overlay(white, display_map(values), scale))


def embedding_text(unit: Tensor) -> str:
    """An embedding as base64 of little-endian float32."""
    return base64.b64encode(unit.float().cpu().numpy().astype("<f4").tobytes()).decode()


def _draws(request: Request) -> bool:
    return request.wants("overlay") or (request.wants("maps") and request.map_format == "png")


def _reasons(
    values: NDArray[np.float32],
    request: Request,
    table: RegionTable | None,
    image: NDArray[np.uint8] | None,
    scale: float,
    likeness: Tensor | None,
) -> FaceReasons:
    maps, as_png = request.wants("maps"), request.map_format == "png"
    drawn = None
    if request.wants("overlay") and image is not None:
        drawn = encode_image(_to_uint8(overlay(image, display_map(values), scale)))
    return FaceReasons(
        regions=table if request.wants("regions") else None,
        map_float32=encode_map(values) if maps and not as_png else None,
        map_png=encode_image(map_picture(values, scale)) if maps and as_png else None,
        overlay_png=drawn,
        reconstruction_png=None if likeness is None else _png(likeness),
    )


def _png(likeness: Tensor) -> str:
    return encode_image(_to_uint8(likeness.permute(1, 2, 0).double().cpu().numpy()))


def _to_uint8(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
