"""The picture of an explanation: both faces, what argues for and against, the score, the regions.

Colours are Okabe and Ito's (2008), which people with any common colour blindness can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch
from numpy.typing import NDArray

from xfr_plugin.base.statistics import smoothed
from xfr_plugin.explanation.explanation import Explanation, error_shares, net_shares
from xfr_plugin.explanation.faithfulness import Faithfulness
from xfr_plugin.explanation.figures.lettering import as_written
from xfr_plugin.explanation.verification import Verification

__all__ = [
    "AGAINST_COLOUR",
    "DISPLAY_SIGMA",
    "FOR_COLOUR",
    "decision_title",
    "display_map",
    "explanation_figure",
    "full_colour_scale",
    "overlay",
]

FOR_COLOUR = "#0072B2"
AGAINST_COLOUR = "#D55E00"

_FOR_RGB = np.array([0, 114, 178]) / 255
_AGAINST_RGB = np.array([213, 94, 0]) / 255
DISPLAY_SIGMA = 0.02
"""Smoothing for the eye, as a share of the face's height. Numbers are never smoothed."""


def display_map(saliency: NDArray[np.float32]) -> NDArray[np.float64]:
    """Smooth a signed map H×W for the eye (Gaussian, σ = 2 % of the height)."""
    return smoothed(saliency, DISPLAY_SIGMA)


def overlay(image: NDArray[np.uint8], values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Lay a signed map over a grey face; H×W×3 in 0…1.

    Args:
        image: aligned face, H×W×3, 0…255.
        values: signed map, H×W.
        scale: magnitude that is drawn in full colour.
    """
    grey = (image @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    strength = np.clip(np.abs(values) / max(scale, np.finfo(float).tiny), 0, 1)[..., None]
    colour = np.where(values[..., None] >= 0, _FOR_RGB, _AGAINST_RGB)
    mixed: NDArray[np.float64] = (0.35 + 0.65 * grey) * (1 - 0.85 * strength) + colour * 0.85 * strength
    return mixed


def full_colour_scale(maps: Sequence[NDArray[np.float64]]) -> float:
    """Magnitude to draw in full colour, for maps that share a scale: what 0.5 % of the pixels exceed."""
    return float(np.quantile(np.abs(np.stack([values.ravel() for values in maps])), 0.995))


def decision_title(decision: Verification) -> str:
    """The decision in one line."""
    verdict, sign = ("MATCH", "≥") if decision.match else ("NO MATCH", "<")
    return f"{verdict}: score {decision.score:.3f} {sign} threshold {decision.threshold:.3f}"


def explanation_figure(explanation: Explanation) -> Figure:
    """Draw an explanation; a figure of 12×8.4 inches that needs no display."""
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(3.0, 0.5, 4.0))
    _draw_faces(figure, grid, explanation)
    _draw_score(figure.add_subplot(grid[1, :]), explanation)
    if explanation.faithfulness is None:
        _draw_regions(figure.add_subplot(grid[2, :]), explanation)
    else:
        below = grid[2, :].subgridspec(1, 2, width_ratios=(2.4, 1))
        _draw_regions(figure.add_subplot(below[0]), explanation)
        _draw_check(figure.add_subplot(below[1]), explanation.faithfulness)
    figure.suptitle(decision_title(explanation.verification), fontsize=15, fontweight="bold")
    figure.supxlabel(_caption(explanation), fontsize=8, color="0.3", wrap=True)
    return as_written(figure)


def _draw_faces(figure: Figure, grid: GridSpec, explanation: Explanation) -> None:
    sides = (("Probe", explanation.probe), ("Reference", explanation.reference))
    maps = [display_map(face.saliency) for _, face in sides]
    scale = full_colour_scale(maps)
    for column, ((name, face), values) in enumerate(zip(sides, maps, strict=True)):
        plain = figure.add_subplot(grid[0, column])
        plain.imshow(face.image)
        plain.set_title(name, fontsize=11)
        explained = figure.add_subplot(grid[0, 2 + column])
        explained.imshow(overlay(face.image, values, scale), interpolation="bilinear")
        explained.set_title(f"{name}: what argues", fontsize=11)
        plain.set_axis_off()
        explained.set_axis_off()
    figure.axes[-1].legend(
        handles=[Patch(color=FOR_COLOUR, label="for a match"), Patch(color=AGAINST_COLOUR, label="against")],
        loc="lower right",
        fontsize=8,
        framealpha=0.9,
    )


def _draw_score(axes: Axes, explanation: Explanation) -> None:
    decision = explanation.verification
    low, high = min(-0.25, decision.score - 0.05), 1.0
    axes.axvspan(low, decision.threshold, color=AGAINST_COLOUR, alpha=0.15, lw=0)
    axes.axvspan(decision.threshold, high, color=FOR_COLOUR, alpha=0.15, lw=0)
    axes.axvline(decision.threshold, color="black", lw=1.5)
    axes.plot(decision.score, 0.5, marker="D", ms=11, color=FOR_COLOUR if decision.match else AGAINST_COLOUR)
    axes.text(decision.threshold, 1.08, "threshold", ha="center", va="bottom", fontsize=8)
    axes.text(low + 0.01, 0.06, "different people", va="bottom", fontsize=8, color="0.25")
    axes.text(high - 0.01, 0.06, "same person", va="bottom", ha="right", fontsize=8, color="0.25")
    axes.set(xlim=(low, high), ylim=(0, 1), yticks=[])
    axes.set_xlabel("score (cosine of the embeddings)", fontsize=9)


def _draw_regions(axes: Axes, explanation: Explanation) -> None:
    """Net evidence of each region as a share of all evidence in its face, both faces side by side."""
    area = explanation.probe.saliency.size
    names = [
        f"{region.region.replace('_', ' ')} ({region.pixels / area:.0%} of area)"
        for region in explanation.probe.regions
    ]
    places = np.arange(len(names))
    sides = (("probe", explanation.probe, -0.21, ""), ("reference", explanation.reference, 0.21, "//"))
    reach = max(
        float((np.abs(net_shares(face)) + np.nan_to_num(error_shares(face))).max()) for _, face, _, _ in sides
    )
    for label, face, shift, hatch in sides:
        shares = net_shares(face)
        colours = [FOR_COLOUR if share >= 0 else AGAINST_COLOUR for share in shares]
        errors = error_shares(face)
        bars = axes.barh(
            places + shift,
            shares,
            height=0.38,
            color=colours,
            hatch=hatch,
            edgecolor="white",
            lw=0.5,
            xerr=None if np.isnan(errors).all() else errors,
            error_kw={"ecolor": "black", "elinewidth": 0.8, "capsize": 1.5},
        )
        if face.saliency.any():
            axes.bar_label(bars, [f"{share:+.1f} %" for share in shares], fontsize=7, padding=2)
        axes.barh(0, 0, color="0.5", hatch=hatch, edgecolor="white", label=label)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(yticks=places, yticklabels=names, xlim=(-1.18 * reach, 1.18 * reach) if reach else (-1, 1))
    axes.tick_params(labelsize=9)
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="lower right")
    axes.set_xlabel(
        "net evidence of the region, % of all evidence in the face (left: against, right: for)", fontsize=9
    )


def _draw_check(axes: Axes, found: Faithfulness) -> None:
    """What changing each part's region did to the score, over the range of the random regions."""
    statistic = "" if found.statistic is None else f" (z = {found.statistic:+.1f})"
    axes.set_title(f"Check: {found.verdict}{statistic}", fontsize=11, fontweight="bold")
    for place, row in enumerate(found.rows):
        colour = FOR_COLOUR if row.claim == "similar" else AGAINST_COLOUR
        axes.plot(
            (row.random_low, row.random_high), (place, place), color="0.75", lw=9, solid_capstyle="butt"
        )
        axes.plot((row.random_mean, row.random_mean), (place - 0.13, place + 0.13), color="0.35", lw=1.5)
        axes.plot(row.effect, place, marker="D", ms=7, color=colour)
        words = f"{row.face}: {row.claim}, {row.change} (z = {row.z:+.1f})"
        axes.text(0, place - 0.24, words, transform=axes.get_yaxis_transform(), fontsize=8, va="bottom")
    axes.axvline(0, color="black", lw=0.8)
    axes.set(yticks=[], ylim=(max(len(found.rows), 1) - 0.5, -0.6))
    axes.margins(x=0.08)
    axes.tick_params(labelsize=8)
    for edge in ("left", "right", "top"):
        axes.spines[edge].set_visible(False)
    if not found.rows:
        axes.text(
            0.5, 0.5, "the maps claim nothing\nthat could be tested", ha="center", transform=axes.transAxes
        )
    axes.set_xlabel(
        "change of the score: ◆ the map's region,\ngrey: random regions of equal size (5–95 %)", fontsize=9
    )


def _caption(explanation: Explanation) -> str:
    decision = explanation.verification
    notes = "".join(f"; {note}" for note in explanation.notes)
    return (
        f"Method {explanation.method}, recognizer {decision.recognizer};"
        f" threshold: {decision.threshold_source}{notes}."
        f" Overlays share one scale and are smoothed for the eye (σ = {DISPLAY_SIGMA:.0%} of the height);"
        f" numbers are not. Left and right are the subject's. xfr-plugin {explanation.version}"
    )
