"""Pictures of what embedding channels say about the face: one face, the atlas, and channels × regions.

Single channels' maps look much alike, so every picture also shows, or only shows, how a map differs from the average
channel's: purple is less, green is more. These are no arguments for or against a match, hence other colours than in
`figure`. All maps of a picture share one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from xfr_plugin.channels.dwelling import Dwelling
from xfr_plugin.channels.regions import ChannelRegions
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.figures.lettering import as_written
from xfr_plugin.reconstruction.decoder import Decoder

__all__ = ["FaceChannels", "atlas_figure", "face_figure", "ordered_channels", "region_figure"]

_MORE_OR_LESS = "PRGn"
_AMOUNT = "magma"
_MAP_RATIO, _REGION_RATIO = 4.0, 2.0
"""Where colours of ratios end, as a factor of the average: of pixels, which differ more, and of whole regions."""


@dataclass(frozen=True)
class FaceChannels:
    """What `face_figure` draws of one face.

    Attributes:
        image: aligned face, H×W×3, 0…255.
        channels: the n channels that are shown.
        values: of the unit embedding there, n.
        maps: L1-normalised maps of all channels, D×H×W.
        dwelling: of this face alone.
        reconstruction: H×W×3 in 0…1; None to leave this likeness out.
        title: of the picture.
    """

    image: NDArray[np.uint8]
    channels: NDArray[np.int64]
    values: NDArray[np.float64]
    maps: NDArray[np.float64]
    dwelling: Dwelling
    reconstruction: NDArray[np.float64] | None = None
    title: str = ""


def face_figure(face: FaceChannels) -> Figure:
    """Draw a face, its reconstruction if given, its regions, and its strongest channels' maps.

    The upper row of maps is as computed, times the number of pixels (1 is an even spread); the lower row divides them
    by the face's own average channel.

    Raises:
        InputError: no channels.
    """
    if not len(face.channels):
        raise InputError("the picture needs at least one channel")
    columns = max(6, len(face.channels))
    figure = Figure(figsize=(1.5 * columns + 0.8, 6.6), layout="constrained")
    sections = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.5, 2))
    _draw_face(sections[0, 0], face)
    shown = face.maps[face.channels] * face.image[..., 0].size
    average = face.maps.mean(axis=0) * face.image[..., 0].size
    amount = Normalize(0, float(np.quantile(shown, 0.995)))
    rows = (
        (shown, _AMOUNT, amount, "density (1: even)"),
        (_log_ratio(shown, average), _MORE_OR_LESS, _ratio_norm(_MAP_RATIO), "against the\naverage channel"),
    )
    panels = sections[1, 0].subplots(2, columns, squeeze=False)
    for row, (maps, colours, norm, label) in enumerate(rows):
        for axes in panels[row]:
            axes.set_axis_off()
        for axes, values in zip(panels[row], maps, strict=False):
            axes.imshow(values, cmap=colours, norm=norm)
        bar = sections[1, 0].colorbar(
            ScalarMappable(norm, colours), ax=panels[row].tolist(), fraction=0.03, pad=0.01, aspect=12
        )
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7)
        if row == 1:
            _label_ratios(bar.ax, _MAP_RATIO)
    for axes, channel, value in zip(panels[0], face.channels, face.values, strict=False):
        axes.set_title(f"channel {channel}\ne = {value:+.2f}", fontsize=8)
    figure.suptitle(face.title, fontsize=12)
    figure.supxlabel(
        "The channels whose ablation changes the decoded face most. A map shows where the decoder paints a channel,"
        " not that the recognizer looked there.",
        fontsize=8,
        color="0.3",
    )
    return as_written(figure)


def atlas_figure(decoder: Decoder, columns: int = 16) -> Figure:
    """Draw the average map, and how every channel of a decoder's atlas differs from it, by channel number."""
    atlas = decoder.atlas.double().cpu().numpy()
    average = atlas.mean(axis=0)
    ratios = _log_ratio(atlas, average)
    lines = -(-len(atlas) // columns)
    figure = Figure(figsize=(0.8 * columns + 0.9, 0.95 * lines + 2.6), layout="constrained")
    sections = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.0, 0.95 * lines))
    top, sheet = sections[0, 0], sections[1, 0]
    _, face, mean, _ = margins = top.subplots(1, 4, width_ratios=(1.5, 1, 1, 1.5))
    face.imshow(decoder.mean_face.permute(1, 2, 0).float().cpu().numpy())
    face.set_title("mean face", fontsize=9)
    shown = mean.imshow(average * average.size, cmap=_AMOUNT, vmin=0)
    mean.set_title("average channel", fontsize=9)
    top.colorbar(shown, ax=mean, shrink=0.8).set_label("density (1: even)", fontsize=8)
    panels = np.atleast_1d(sheet.subplots(lines, columns)).ravel()
    for axes in (*margins, *panels):
        axes.set_axis_off()
    for channel, (axes, values) in enumerate(zip(panels, ratios, strict=False)):
        axes.imshow(values, cmap=_MORE_OR_LESS, norm=_ratio_norm(_MAP_RATIO))
        axes.set_title(str(channel), fontsize=6, pad=1.5)
    bar = sheet.colorbar(
        ScalarMappable(_ratio_norm(_MAP_RATIO), _MORE_OR_LESS), ax=panels.tolist(), fraction=0.02, pad=0.01
    )
    bar.set_label("channel's map over the average channel's", fontsize=8)
    _label_ratios(bar.ax, _MAP_RATIO)
    figure.suptitle(f"Channel atlas of {decoder.card.name}", fontsize=12)
    return as_written(figure)


def region_figure(matrix: ChannelRegions, title: str = "Channels by region") -> Figure:
    """Draw regions × channels: each channel's share over the average channel's.

    Channels are ordered by the region in which they stand out most, then by how much (`ordered_channels`). Where
    people were given, cells whose simultaneous interval includes 1 are pale: they cannot be told from the average.
    Regions without an area are left out.
    """
    seen = [name for name, area in zip(matrix.regions, matrix.areas, strict=True) if area > 0]
    matrix = matrix.merged(**{name: (name,) for name in seen})
    order = ordered_channels(matrix)
    ratios = np.log2(np.maximum(matrix.lift[order].T, 1e-6))
    opacity = np.ones_like(ratios)
    note = "No people were given, so nothing is said about chance."
    if matrix.people is not None:
        low, high = matrix.intervals()
        opacity = np.where((low <= 1) & (high >= 1), 0.25, 1.0)[order].T
        note = (
            f"Pale: the {matrix.confidence:.0%} interval, for all channels at once, includes 1"
            f" ({len(matrix.people)} people)."
        )
    height = 0.3 * len(matrix.regions) + 1.7
    figure = Figure(figsize=(max(6.0, 0.1 * len(order) + 2.6), height), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(ratios, cmap=_MORE_OR_LESS, norm=_ratio_norm(_REGION_RATIO), alpha=opacity, aspect="auto")
    names = [
        f"{name.replace('_', ' ')} ({area:.0%} of area)"
        for name, area in zip(matrix.regions, matrix.areas, strict=True)
    ]
    axes.set(yticks=range(len(names)), yticklabels=names, xticks=range(len(order)))
    axes.set_xticklabels([str(channel) for channel in order], rotation=90)
    axes.tick_params(axis="x", labelsize=5.5 if len(order) > 40 else 8, length=0, pad=1)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(f"channel, ordered by the region it stands out in. {note}", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(_ratio_norm(_REGION_RATIO), _MORE_OR_LESS), ax=axes, fraction=0.02, pad=0.01
    )
    bar.set_label("share over the\naverage channel's", fontsize=8)
    _label_ratios(bar.ax, _REGION_RATIO)
    figure.suptitle(title, fontsize=12)
    return as_written(figure)


def ordered_channels(matrix: ChannelRegions) -> NDArray[np.int64]:
    """Channels grouped by the region of their largest lift, the largest first in each group."""
    lift = np.nan_to_num(matrix.lift, nan=0.0)
    peak = lift.argmax(axis=1)
    order: NDArray[np.int64] = np.lexsort((-lift.max(axis=1), peak))
    return order


def _draw_face(section: SubFigure, face: FaceChannels) -> None:
    pictures: list[tuple[str, NDArray[Any]]] = [("aligned face", face.image)]
    if face.reconstruction is not None:
        pictures.append(("its reconstruction", face.reconstruction))
    widths = (*([1.0] * len(pictures)), 2.6)
    panels = section.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    for axes, (name, picture) in zip(panels, pictures, strict=False):
        axes.imshow(picture)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    _draw_dwelling(panels[-1], face.dwelling)


def _draw_dwelling(axes: Axes, dwelling: Dwelling) -> None:
    """Shares of the regions that are there as bars, with what the average person has as a mark."""
    seen = np.flatnonzero(dwelling.expected > 0)
    shares, ratios, expected = dwelling.shares[0, seen], dwelling.ratio[0, seen], dwelling.expected[seen]
    places = np.arange(len(seen))
    axes.barh(places, shares, color="#762A83", height=0.6, label="this face")
    reference = "average person" if dwelling.people is not None else "average channel of the atlas"
    axes.plot(expected, places, "|", ms=11, mew=2, color="black", ls="none", label=reference)
    for place, (share, ratio) in enumerate(zip(shares, ratios, strict=True)):
        axes.text(
            max(share, expected[place]) + 0.012,
            place,
            f"{share:.1%}  (×{ratio:.2f})",
            va="center",
            fontsize=7,
        )
    axes.set(yticks=places, yticklabels=[dwelling.regions[i].replace("_", " ") for i in seen])
    axes.set_xlim(0, 1.3 * float(max(shares.max(), expected.max())))
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_title("where the embedding dwells: part of its squared length", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")


def _log_ratio(maps: NDArray[np.float64], average: NDArray[np.float64]) -> NDArray[np.float64]:
    """Binary logarithm of maps over their average; a share of the average is added so that none divides by zero."""
    floor = 0.02 * average.mean()
    result: NDArray[np.float64] = np.log2((maps + floor) / (average + floor))
    return result


def _ratio_norm(largest: float) -> TwoSlopeNorm:
    """Colours of binary logarithms of ratios, from 1/largest to largest."""
    reach = float(np.log2(largest))
    return TwoSlopeNorm(0, -reach, reach)


def _label_ratios(axes: Axes, largest: float) -> None:
    root = largest**0.5
    ticks = {1 / largest: f"≤ 1/{largest:g}", 1 / root: f"{1 / root:.2g}", 1: "1", root: f"{root:.2g}"}
    ticks[largest] = f"≥ {largest:g}"
    axes.set_yticks(np.log2(list(ticks)), list(ticks.values()))
    axes.tick_params(labelsize=7)
