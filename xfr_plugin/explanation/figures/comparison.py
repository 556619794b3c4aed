"""The picture of a comparison: every method's maps of both faces, evidence by region, and agreement."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from xfr_plugin.explanation.comparison import Comparison, MethodResult
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation
from xfr_plugin.explanation.figures.explanation import (
    AGAINST_COLOUR,
    DISPLAY_SIGMA,
    FOR_COLOUR,
    decision_title,
    display_map,
    explained_face,
    full_colour_scale,
)
from xfr_plugin.explanation.figures.lettering import as_written, ink_on
from xfr_plugin.explanation.words import component_name, components, share_of_area

__all__ = ["comparison_figure"]

_WIDTH, _EDGE, _GAP = 15.0, 0.18, 0.22
_TITLE, _CELL_TITLE, _ROW, _TABLE_TITLE, _TABLE_NAMES, _CAPTION = 0.6, 0.28, 0.27, 0.45, 1.05, 0.75
_PIXELS = 240
_EVIDENCE = LinearSegmentedColormap.from_list("evidence", [AGAINST_COLOUR, "white", FOR_COLOUR])


@dataclass(frozen=True)
class _Page:
    """A figure whose axes are placed in inches from its top left corner."""

    figure: Figure
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / _WIDTH, bottom / self.height, width / _WIDTH, height / self.height)
        )


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw a comparison; a figure 15 inches wide that needs no display.

    The first cell holds the two faces, each other cell one method's maps of both, in a colour scale of its own.
    Below are two tables: evidence by region, and rank correlation between methods.
    """
    cells, explained = len(comparison.results) + 1, len(comparison.explanations)
    columns = min(4, max(3, cells))
    width = (_WIDTH - 2 * _EDGE - (columns - 1) * _GAP) / columns
    pitch = _CELL_TITLE + _image_size(comparison, width)[1] + 0.12
    grid = _TITLE + -(-cells // columns) * pitch
    table = _TABLE_TITLE + explained * _ROW + _TABLE_NAMES if explained else 0.0
    height = grid + table + _CAPTION
    page = _Page(Figure(figsize=(_WIDTH, height)), height)
    places = [
        (_EDGE + column * (width + _GAP), _TITLE + row * pitch)
        for row, column in (divmod(number, columns) for number in range(cells))
    ]
    _draw_faces(_cell(page, comparison, places[0], width), comparison)
    for place, result in zip(places[1:], comparison.results, strict=True):
        _draw_method(_cell(page, comparison, place, width), result)
    if explained:
        _draw_tables(page, grid + _TABLE_TITLE, comparison)
    _draw_words(page, comparison)
    return as_written(page.figure)


def _image_size(comparison: Comparison, cell: float) -> tuple[float, float]:
    """Width and height, in inches, of one of the two faces in a cell."""
    rows, columns, _ = comparison.faces[0].shape
    width = (cell - 0.04) / 2
    return width, width * rows / columns


def _cell(page: _Page, comparison: Comparison, place: tuple[float, float], cell: float) -> tuple[Axes, Axes]:
    width, height = _image_size(comparison, cell)
    left, top = place[0], place[1] + _CELL_TITLE
    first = page.axes(left, top, width, height)
    second = page.axes(left + width + 0.04, top, width, height)
    first.set_axis_off()
    second.set_axis_off()
    return first, second


def _draw_faces(cell: tuple[Axes, Axes], comparison: Comparison) -> None:
    for axes, image, name in zip(cell, comparison.faces, ("probe", "reference"), strict=True):
        axes.imshow(image)
        axes.set_title(name, fontsize=10, loc="left")


def _draw_method(cell: tuple[Axes, Axes], result: MethodResult) -> None:
    cell[0].set_title(result.method, fontsize=10, fontweight="bold", loc="left")
    found = result.explanation.faithfulness if result.explanation else None
    words = [found.verdict] if found else []
    cell[1].set_title(", ".join((*words, _seconds(result.seconds))), fontsize=9, color="0.35", loc="right")
    if result.explanation is None:
        reason = textwrap.fill(f"no answer: {result.error}", 46, max_lines=8)
        cell[0].text(0, 0.98, reason, va="top", fontsize=8, color="0.25", transform=cell[0].transAxes)
        return
    sides = (result.explanation.probe, result.explanation.reference)
    scale = full_colour_scale([display_map(side.saliency) for side in sides])
    for axes, side in zip(cell, sides, strict=True):
        axes.imshow(explained_face(side, scale, _PIXELS, numbers=False).image, interpolation="bilinear")


def _draw_tables(page: _Page, top: float, comparison: Comparison) -> None:
    height = len(comparison.explanations) * _ROW
    _draw_regions(page.axes(1.75, top, 6.9, height), list(comparison.explanations.values()))
    _draw_agreement(page.axes(10.35, top, 4.45, height), comparison)


def _draw_regions(axes: Axes, explanations: list[Explanation]) -> None:
    """Net shares, methods × regions; each region has two columns, the probe's and the reference's."""
    size = explanations[0].probe.saliency.size
    names = [
        component_name(region.region).replace(" ", "\n")
        + f"\n({share_of_area(100 * region.pixels / size)})".replace("not seen", "not\nseen")
        for region in explanations[0].probe.regions
    ]
    shares = np.stack(
        [np.stack([_shares_or_none(face) for face in (e.probe, e.reference)], axis=1) for e in explanations]
    )
    values = shares.reshape(len(explanations), -1)
    _draw_matrix(
        axes,
        values,
        lambda share: f"{round(share):+d}".replace("-", "−") if round(share) else "0",
        _EVIDENCE,
        max(float(np.abs(np.nan_to_num(values)).max()), 1.0),
    )
    axes.set_yticks(range(len(explanations)), [e.method for e in explanations])
    axes.set_xticks(2 * np.arange(len(names)) + 0.5, names)
    for edge in range(1, len(names)):
        axes.axvline(2 * edge - 0.5, color="0.4", lw=0.8)
    axes.set_title(
        "net evidence of regions, % of all evidence in the face (left column: probe, right: reference; below: area)",
        fontsize=9,
        loc="left",
    )


def _shares_or_none(face: FaceExplanation) -> NDArray[np.float64]:
    """Net shares; NaN, which is left grey, where there was nothing to explain."""
    shares = np.array([part.share for part in components(face.regions)])
    return shares if face.saliency.any() else np.full_like(shares, np.nan)


def _draw_agreement(axes: Axes, comparison: Comparison) -> None:
    methods = comparison.agreement.methods
    values = comparison.agreement.mean.copy()
    np.fill_diagonal(values, np.nan)
    _draw_matrix(axes, values, _short, "cividis", 1.0)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xticks(range(len(methods)), methods, rotation=40, ha="right", rotation_mode="anchor")
    title = "agreement: rank correlation of maps inside the face (mean of both faces)"
    axes.set_title(title, fontsize=9, loc="right")


def _draw_matrix(
    axes: Axes,
    values: NDArray[np.float64],
    written: Callable[[float], str],
    colours: Colormap | str,
    reach: float,
) -> None:
    """A table in colours with its numbers in it; NaN is left grey."""
    axes.set_facecolor("0.85")
    drawn = axes.imshow(values, cmap=colours, vmin=-reach, vmax=reach, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = ink_on(drawn, value)
            axes.text(column, row, written(value), ha="center", va="center", fontsize=7, color=ink)
    axes.tick_params(length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(correlation: float) -> str:
    """Two digits without the leading zero: narrow enough for twenty methods."""
    return f"{correlation:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1).replace("-", "−")


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _draw_words(page: _Page, comparison: Comparison) -> None:
    title, height = decision_title(comparison.verification), page.height
    left, top, bottom = _EDGE / _WIDTH, 1 - 0.16 / height, 0.12 / height
    page.figure.text(left, top, title, fontsize=15, fontweight="bold", va="top")
    caption = textwrap.fill(_caption(comparison), 225)
    page.figure.text(left, bottom, caption, fontsize=8, color="0.3", va="bottom")
    page.figure.legend(
        handles=[
            Patch(color=FOR_COLOUR, label="argues for a match"),
            Patch(facecolor=AGAINST_COLOUR, edgecolor="#753400", lw=0, hatch="/////", label="argues against"),
        ],
        loc="upper right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        fontsize=10,
        frameon=False,
    )


def _caption(comparison: Comparison) -> str:
    decision, smoothing = comparison.verification, comparison.agreement.smoothing
    blur = f"after a blur of σ = {smoothing:.0%} of the height" if smoothing else "of unblurred maps"
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in comparison.notes)
    verdicts = [e.faithfulness for e in comparison.explanations.values() if e.faithfulness]
    checked = (
        " Supported, weak, contradicted: whether the score follows what the maps say." if verdicts else ""
    )
    return (
        f"Recognizer {decision.recognizer}; threshold: {decision.threshold_source}.{notes} Each method has its own"
        f" units, and so its own colour scale, which its two maps share. Overlays are smoothed for the eye"
        f" (σ = {DISPLAY_SIGMA:.0%} of the height); region shares are not; agreement is measured {blur}. Methods that"
        f" agree can be wrong together.{checked} Left and right are the subject's. xfr-plugin {comparison.version}"
    )
