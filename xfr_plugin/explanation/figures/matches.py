"""The picture and the table of which regions of two faces matched."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from numpy.typing import NDArray
from rich.table import Table

from xfr_plugin.base.files import atomic_path, writing_to
from xfr_plugin.explanation.figures.explanation import AGAINST_COLOUR, FOR_COLOUR, decision_title
from xfr_plugin.explanation.figures.lettering import as_written, ink_on
from xfr_plugin.explanation.words import component_name
from xfr_plugin.faces.regions import RegionMap

if TYPE_CHECKING:  # Zennit is slow to import
    from xfr_plugin.explanation.matches import RegionMatches

__all__ = ["matches_figure", "matches_table", "strongest_matches", "write_matches"]

_DPI = 110
_LINES = 12


def strongest_matches(matches: RegionMatches, count: int = _LINES) -> list[tuple[str, str, float, float]]:
    """Pairs of regions of the face with the largest specific relevance, in magnitude.

    Returns:
        Region of the probe, region of the reference, specific relevance, relevance.
    """
    names, shown = matches.regions.names, _shown(matches.regions)
    pairs = [
        (names[i], names[j], float(matches.specific[i, j]), float(matches.relevance[i, j]))
        for i in shown
        for j in shown
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))[:count]


def matches_table(matches: RegionMatches) -> Table:
    """The strongest pairs of regions, for a terminal; in hundredths of the score's scale."""
    table = Table("probe", "reference", "specific × 100", "all × 100", title="regions that matched")
    for column in table.columns[2:]:
        column.justify = "right"
    for probe, reference, specific, relevance in strongest_matches(matches):
        row = (
            component_name(probe),
            component_name(reference),
            f"{100 * specific:+.3f}",
            f"{100 * relevance:+.3f}",
        )
        table.add_row(*row)
    return table


def write_matches(matches: RegionMatches, folder: Path) -> tuple[Path, Path]:
    """Write `bilrp.png`, the picture, and `bilrp.csv`, every pair of regions; each whole or not at all.

    Raises:
        ResultError: the folder cannot be written to.
    """
    picture, table = folder / "bilrp.png", folder / "bilrp.csv"
    with writing_to(folder):
        with atomic_path(picture) as temporary:
            matches_figure(matches).savefig(temporary, dpi=_DPI)
        with atomic_path(table) as temporary:
            _write_csv(matches, temporary)
    return picture, table


def matches_figure(matches: RegionMatches) -> Figure:
    """Draw both faces with lines between their regions, and the matrix of all pairs; 11×11.5 inches."""
    figure = Figure(figsize=(11, 11.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.0, 1.25))
    axes = [figure.add_subplot(grid[0, side]) for side in (0, 1)]
    for side, name in enumerate(("Probe", "Reference")):
        _draw_face(axes[side], matches, side, name)
    _draw_lines(figure, axes, matches)
    _draw_matrix(figure, figure.add_subplot(grid[1, :]), matches)
    figure.suptitle(decision_title(matches.verification), fontsize=15, fontweight="bold")
    figure.supxlabel(_caption(matches), fontsize=8, color="0.3", wrap=True)
    return as_written(figure)


def _shown(regions: RegionMap) -> list[int]:
    """Regions of the face that there are."""
    return [i for i in regions.of_face if (regions.labels == i).any()]


def _draw_face(axes: Axes, matches: RegionMatches, side: int, name: str) -> None:
    grey = matches.images[side] @ np.array([0.299, 0.587, 0.114]) / 255
    axes.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1)
    for region in _shown(matches.regions):
        mask = matches.regions.labels == region
        axes.contour(mask, levels=[0.5], colors="white", linewidths=0.7, alpha=0.7)
    axes.set_title(name, fontsize=11)
    axes.set_axis_off()


def _draw_lines(figure: Figure, axes: list[Axes], matches: RegionMatches) -> None:
    """Lines whose width and opacity grow with the specific relevance; strong ones on top of weak ones."""
    for probe, reference, specific, _ in reversed(strongest_matches(matches)):
        strength = min(1.0, abs(specific) / max(matches.self_match, np.finfo(float).tiny))
        ends = [_centre(matches.regions.mask(region)) for region in (probe, reference)]
        colour = FOR_COLOUR if specific >= 0 else AGAINST_COLOUR
        line = ConnectionPatch(
            ends[0], ends[1], "data", "data", axesA=axes[0], axesB=axes[1], color=colour,
            lw=0.6 + 6 * strength, alpha=0.2 + 0.7 * strength, ls="-" if specific >= 0 else (0, (2, 1.2)),
        )  # fmt: skip
        line.set_in_layout(False)
        figure.add_artist(line)
        for ax, (x, y) in zip(axes, ends, strict=True):
            ax.plot(x, y, "o", ms=5, color=colour, mec="white", mew=0.7)
    handles = [
        Line2D([], [], color=FOR_COLOUR, lw=4, label="raises the score"),
        Line2D([], [], color=AGAINST_COLOUR, lw=4, ls=(0, (1.5, 0.8)), label="lowers it"),
    ]
    axes[1].legend(
        handles=handles, loc="upper right", bbox_to_anchor=(1, 0), ncols=2, fontsize=8, frameon=False
    )


def _draw_matrix(figure: Figure, axes: Axes, matches: RegionMatches) -> None:
    names = [component_name(name) for name in matches.regions.names]
    values = 100 * matches.specific
    reach = max(100 * matches.self_match, np.finfo(float).tiny)  # one scale for all partners of a face
    colours = LinearSegmentedColormap.from_list("match", [AGAINST_COLOUR, "white", FOR_COLOUR])
    image = axes.imshow(values, cmap=colours, vmin=-reach, vmax=reach, aspect="auto")
    ticks = np.arange(len(names))
    axes.set(xticks=ticks, yticks=ticks, yticklabels=names, ylabel="probe", xlabel="reference")
    axes.set_xticklabels(names, rotation=30, ha="right")
    axes.tick_params(labelsize=8)
    for i in ticks:
        for j in ticks:
            ink, text = ink_on(image, values[i, j]), f"{values[i, j]:+.2f}".replace("-", "−")
            axes.text(float(j), float(i), text, ha="center", va="center", fontsize=6.5, color=ink)
    beyond = "" if matches.composite == "shapley" else ", beyond the common part"
    axes.set_title(f"What each pair of regions adds to the score{beyond} (× 100)", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, extend="both")


def _caption(matches: RegionMatches) -> str:
    if matches.composite == "shapley":
        return _shapley_caption(matches)
    total = np.abs(matches.relevance).sum()
    share = np.abs(matches.specific).sum() / total if total > 0 else 0.0
    notes = "".join(f"; {note}" for note in matches.notes)
    return (
        f"BiLRP, composite {matches.composite}, recognizer {matches.verification.recognizer}; each channel's "
        f"relevance is normalised to its value (before that, {matches.conserved:+.3f} of the score "
        f"{matches.verification.score:+.3f} reached the pixels). Shown is the specific part: what pairs of regions "
        f"add beyond the distribution that all channels share. Its magnitude is {share:.0%} of the whole's, and its "
        f"rows and columns sum to 0. Lines: the {_LINES} strongest pairs inside the face; full width and "
        f"colour stand for the strongest pair when a face is matched with itself "
        f"({100 * matches.self_match:.2f} hundredths). They show the model's arithmetic, and do not prove a "
        f"resemblance{notes}. Left and right are the subject's"
    )


def _shapley_caption(matches: RegionMatches) -> str:
    notes = "".join(f"; {note}" for note in matches.notes)
    return (
        f"Shapley interactions, recognizer {matches.verification.recognizer}: what a region of the probe brings to "
        f"the score together with a region of the reference, the others being there or those of faces of nobody. "
        f"They sum to {matches.conserved:+.3f} of the score {matches.verification.score:+.3f}. Lines: the "
        f"{_LINES} strongest pairs inside the face; full width and colour stand for the strongest pair when a face "
        f"is matched with itself ({100 * matches.self_match:.2f} hundredths). They say what this recognizer does, "
        f"and do not prove a resemblance{notes}. Left and right are the subject's"
    )


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def _write_csv(matches: RegionMatches, path: Path) -> None:
    names = matches.regions.names
    areas = matches.regions.areas()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["probe_region", "reference_region", "relevance", "specific", "probe_pixels", "reference_pixels"]
        )
        for i, probe in enumerate(names):
            for j, reference in enumerate(names):
                numbers = (f"{matrix[i, j]:.9g}" for matrix in (matches.relevance, matches.specific))
                writer.writerow([probe, reference, *numbers, areas[probe], areas[reference]])
