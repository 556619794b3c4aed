"""The picture of an explanation: both faces and their maps, the score on its scale, evidence by component.

Colours are Okabe and Ito's (2008), which people with any common colour blindness can tell apart; what argues against
is hatched too, so that the picture can be read in black and white.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from xfr_plugin.base.statistics import smoothed
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation
from xfr_plugin.explanation.figures.canvas import (
    Canvas,
    Point,
    hatched,
    line_height,
    text_width,
    wrapped,
)
from xfr_plugin.explanation.verification import Verification
from xfr_plugin.explanation.words import (
    APART,
    Component,
    check_in_words,
    components,
    decision_in_words,
    hardly_seen,
    headline,
    poor_in_words,
    share_of_area,
    strength_in_words,
    tension_in_words,
    written,
)
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.strength import ScoreHistogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AGAINST_COLOUR",
    "DISPLAY_SIGMA",
    "FOR_COLOUR",
    "decision_title",
    "display_map",
    "explained_face",
    "explanation_figure",
    "explanation_picture",
    "explanation_png",
    "full_colour_scale",
    "overlay",
    "png_of",
    "score_panel",
]

FOR_COLOUR = "#0072B2"
AGAINST_COLOUR = "#D55E00"

_FOR_RGB = np.array([0, 114, 178]) / 255
_AGAINST_RGB = np.array([213, 94, 0]) / 255
_SOFT_FOR, _SOFT_AGAINST, _GREY, _SMALL = (217, 232, 243), (248, 226, 210), (90, 90, 90), 15
DISPLAY_SIGMA = 0.02
"""Smoothing for the eye, as a share of the face's height. Numbers are never smoothed."""

_HATCHED = 0.12
"""Share of full colour from which on what argues against is hatched."""

_WIDTH, _EDGE, _GAP = 1600, 40, 14
_ROW = 27
_FACE = (_WIDTH - 2 * _EDGE - 3 * _GAP) // 4
_LEFT = 920


def display_map(saliency: NDArray[np.float32]) -> NDArray[np.float64]:
    """Smooth a signed map H×W for the eye (Gaussian, σ = 2 % of the height)."""
    return smoothed(saliency, DISPLAY_SIGMA)


def overlay(image: NDArray[np.uint8], values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Lay a signed map over a grey face, hatched where it argues against; H×W×3 in 0…1.

    Args:
        image: aligned face, H×W×3, 0…255.
        values: signed map, H×W.
        scale: magnitude that is drawn in full colour.
    """
    grey = (image @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    strength = np.clip(np.abs(values) / max(scale, np.finfo(float).tiny), 0, 1)[..., None]
    colour = np.where(values[..., None] >= 0, _FOR_RGB, _AGAINST_RGB)
    mixed: NDArray[np.float64] = (0.35 + 0.65 * grey) * (1 - 0.85 * strength) + colour * 0.85 * strength
    mixed[hatched((values.shape[0], values.shape[1])) & (values < -_HATCHED * scale)] *= 0.55
    return mixed


def full_colour_scale(maps: Sequence[NDArray[np.float64]]) -> float:
    """Magnitude to draw in full colour, for maps that share a scale: what 0.5 % of the pixels exceed."""
    return float(np.quantile(np.abs(np.stack([values.ravel() for values in maps])), 0.995))


def decision_title(decision: Verification) -> str:
    """The decision in one line."""
    verdict, sign = ("MATCH", "≥") if decision.match else ("NO MATCH", "<")
    score, threshold, _ = written(decision, 3)
    return f"{verdict}: score {score} {sign} threshold {threshold}"


def explanation_picture(explanation: Explanation) -> Image.Image:
    """Draw an explanation, 1,600 pixels wide."""
    return _drawn(explanation).image


def explanation_png(explanation: Explanation) -> bytes:
    """The same as a PNG, which says in words what it shows."""
    drawn = _drawn(explanation)
    return png_of(drawn.image, "\n".join(drawn.written))


def explanation_figure(explanation: Explanation) -> Figure:
    """The same as a Matplotlib figure that needs no display, 16 inches wide."""
    from matplotlib.figure import Figure

    picture = explanation_picture(explanation)
    figure = Figure(figsize=(picture.width / 100, picture.height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    return figure


def png_of(image: Image.Image, description: str) -> bytes:
    """A picture as a PNG with a description in it."""
    about, buffer = PngInfo(), io.BytesIO()
    about.add_itxt("Description", description)
    image.save(buffer, format="PNG", pnginfo=about, compress_level=1)
    return buffer.getvalue()


def explained_face(face: FaceExplanation, scale: float, width: int, numbers: bool = True) -> Canvas:
    """A face's map over the face, with the outlines of its regions and their values at the place.

    Args:
        face: that is shown.
        scale: magnitude that is drawn in full colour.
        width: in pixels.
        numbers: whether to write the values; a small picture has no room for them.
    """
    height = round(width * face.image.shape[0] / face.image.shape[1])
    image = np.asarray(Image.fromarray(face.image).resize((width, height), Image.Resampling.BICUBIC))
    values = np.asarray(
        Image.fromarray(display_map(face.saliency).astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    )
    mixed = overlay(image, values.astype(np.float64), scale)
    edges = _outlines(face.region_map, width, height)
    mixed[np.roll(edges, (1, 1), (0, 1))] *= 0.5  # a rim that is seen on white, too
    mixed[edges] = 1.0
    canvas = Canvas(width, height)
    canvas.paste(Image.fromarray((np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)), (0, 0))
    if numbers:
        _write_values(canvas, _places(face, width / face.image.shape[1]))
    return canvas


def _write_values(canvas: Canvas, places: Sequence[tuple[Component, Point]]) -> None:
    """Write values at their regions, the strongest first; one that would lie over another is left to the chart."""
    width, height = canvas.image.size
    enlarged, taken = max(1.0, width / _FACE), list[tuple[float, float, float, float]]()
    for part, (x, y) in sorted(places, key=lambda one: -abs(one[0].share)):
        words, size = _minus(f"{part.share:+.0f}"), round((17 if part.area > 2 else 14) * enlarged)
        across, down = text_width(words, size, bold=True) / 2 + 2, 0.4 * size + 2
        x, y = min(max(x, across), width - across), min(max(y, down), height - down)
        box = (x - across, y - down, x + across, y + down)
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            canvas.text((x, y), words, size, bold=True, anchor="mm", halo="white")


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) have more than their rims in common."""
    return all(one[i] < other[i + 2] - 1 and other[i] < one[i + 2] - 1 for i in (0, 1))


def score_panel(explanation: Explanation) -> Canvas:
    """The score on its scale, alone."""
    canvas = Canvas(640, 230)
    _draw_score(canvas, explanation, (10, 6), 620)
    return canvas


@dataclass(frozen=True)
class _Bar:
    """A component as a row of the chart: its evidence in both faces, None where a face has none of it."""

    name: str
    area: str
    sides: tuple[Component, Component]

    @property
    def mean(self) -> float:
        return (self.sides[0].share + self.sides[1].share) / 2


def _drawn(explanation: Explanation) -> Canvas:
    face_height = max(
        round(_FACE * side.image.shape[0] / side.image.shape[1])
        for side in (explanation.probe, explanation.reference)
    )
    bars, apart = _bars(explanation)
    title = wrapped(headline(explanation), _WIDTH - 2 * _EDGE, 21)
    faces_top = 92 + len(title) * line_height(21) + 30
    legend_top = faces_top + face_height + 10
    chart_top = legend_top + 62
    small = wrapped(_small_print(explanation), _WIDTH - 2 * _EDGE, _SMALL)
    notes = _notes(explanation)
    right = 250 + sum(
        len(wrapped(note, _WIDTH - _LEFT - 2 * _EDGE, 16)) * line_height(16) + 8 for note in notes
    )
    body = max((len(bars) + len(apart)) * _ROW + 110, right)
    canvas = Canvas(_WIDTH, chart_top + body + len(small) * line_height(_SMALL) + 30)
    _draw_title(canvas, explanation)
    _draw_faces(canvas, explanation, faces_top)
    _draw_legend(canvas, legend_top)
    _draw_bars(canvas, bars, apart, chart_top)
    _draw_score(canvas, explanation, (_LEFT + _EDGE, chart_top), _WIDTH - _LEFT - 2 * _EDGE)
    top = chart_top + 246.0
    for note in notes:
        top += canvas.paragraph((_LEFT + _EDGE, top), note, _WIDTH - _LEFT - 2 * _EDGE, 16) + 8
    bottom = canvas.image.height - len(small) * line_height(_SMALL) - 14
    for number, line in enumerate(small):
        canvas.text((_EDGE, bottom + number * line_height(_SMALL)), line, _SMALL, colour=_GREY)
    return canvas


def _draw_title(canvas: Canvas, explanation: Explanation) -> None:
    decision = explanation.verification
    words = "MATCH" if decision.match else "NO MATCH"
    colour = FOR_COLOUR if decision.match else AGAINST_COLOUR
    canvas.box((_EDGE, 26, _EDGE + (150 if decision.match else 212), 74), colour)
    canvas.text((_EDGE + 16, 50), words, 30, bold=True, colour="white", anchor="lm")
    canvas.text(
        (_EDGE + (170 if decision.match else 232), 50),
        decision_title(decision).partition(": ")[2],
        26, anchor="lm",
    )  # fmt: skip
    canvas.paragraph((_EDGE, 88), headline(explanation), _WIDTH - 2 * _EDGE, 21)


def _draw_faces(canvas: Canvas, explanation: Explanation, top: int) -> None:
    sides = (("Probe", explanation.probe), ("Reference", explanation.reference))
    scale = full_colour_scale([display_map(face.saliency) for _, face in sides])
    left = _EDGE
    for name, face in sides:
        height = round(_FACE * face.image.shape[0] / face.image.shape[1])
        canvas.text((left, top - 24), name, 17, bold=True)
        plain = Image.fromarray(face.image).resize((_FACE, height), Image.Resampling.BICUBIC)
        canvas.paste(plain, (left, top))
        left += _FACE + _GAP
        canvas.text((left, top - 24), f"{name}: what argues, % of its evidence", 17)
        explained = explained_face(face, scale, _FACE)
        canvas.paste(explained.image, (left, top))
        canvas.written += explained.written
        left += _FACE + _GAP


def _draw_legend(canvas: Canvas, top: int) -> None:
    """Colours of the maps, on a strip of their own."""
    width, height = 150, 18
    ramp = np.linspace(-1, 1, 2 * width)[None].repeat(height, axis=0)
    strip = overlay(np.full((height, 2 * width, 3), 160, np.uint8), ramp, 1.0)
    left = _WIDTH // 2 - width
    canvas.paste(Image.fromarray((strip * 255).astype(np.uint8)), (left, top))
    canvas.text((left - 12, top + 9), "against a match (hatched)", 16, anchor="rm")
    canvas.text((left + 2 * width + 12, top + 9), "for a match", 16, anchor="lm")
    words = "colour: how much each place argues; number: what the whole region adds up to"
    canvas.text((_WIDTH // 2, top + 26), words, 14, colour=_GREY, anchor="ma")


def _bars(explanation: Explanation) -> tuple[list[_Bar], list[_Bar]]:
    """Rows of the chart: of the face, sorted; and apart from it, hair and background."""
    sides = [components(face.regions) for face in (explanation.probe, explanation.reference)]
    rows = [
        _Bar(a.name, f"{share_of_area(a.area)} / {share_of_area(b.area)}", (a, b))
        for a, b in zip(*sides, strict=True)
        if a.area or b.area
    ]
    most_for = sum(row.mean for row in rows if row.sides[0].region not in APART) >= 0
    rows.sort(key=lambda row: row.mean, reverse=most_for)  # the strongest on top
    apart = [row for row in rows if row.sides[0].region in APART]
    return [row for row in rows if row not in apart], apart


def _draw_bars(canvas: Canvas, bars: list[_Bar], apart: list[_Bar], top: int) -> None:
    canvas.text((_EDGE, top), "Evidence by component of the face", 19, bold=True)
    canvas.text((_EDGE + 330, top + 46), "area: probe / reference", 13, colour=_GREY, anchor="rs")
    place = top + 54
    bounds = [
        edge
        for row in (*bars, *apart)
        for side in row.sides
        for edge in (side.share - (side.error or 0), side.share + (side.error or 0), 0.0)
    ]
    low, high = min(bounds), max(bounds)
    left, right = _EDGE + 350 + (70 if low < 0 else 4), _LEFT - 70
    unit = (right - left) / max(high - low, 1e-9)
    zero = left - low * unit
    rows = len(bars) + len(apart)
    for row in bars:
        _draw_bar(canvas, row, place, zero, unit)
        place += _ROW
    if apart:
        place += 8
        canvas.line([(_EDGE, place - 5), (_LEFT - 10, place - 5)], (190, 190, 190))
    for row in apart:
        _draw_bar(canvas, row, place, zero, unit, muted=True)
        place += _ROW
    if rows:
        canvas.line([(zero, top + 50), (zero, place)], "black", 2)
    canvas.text(
        (_EDGE, place + 8),
        "net evidence in % of all evidence in the face's picture; upper bar: probe, lower bar: reference; whiskers: "
        "one standard error",
        13, colour=_GREY,
    )  # fmt: skip


def _draw_bar(canvas: Canvas, row: _Bar, top: int, zero: float, unit: float, muted: bool = False) -> None:
    canvas.text((_EDGE, top + 12), row.name, 17, anchor="lm", colour=_GREY if muted else "black")
    canvas.text((_EDGE + 330, top + 12), row.area, 14, anchor="rm", colour=_GREY)
    for number, side in enumerate(row.sides):
        if not side.area:
            continue
        upper = top + 1 + 12 * number
        end = zero + side.share * unit
        colour = FOR_COLOUR if side.share >= 0 else AGAINST_COLOUR
        box = (min(zero, end), upper, max(zero, end), upper + 10)
        canvas.box(box, colour if number == 0 else (_lighter(colour)), colour)
        if side.share < 0:
            for x in np.arange(box[0] + 3, box[2] - 6, 9):
                canvas.line([(x, upper + 10), (x + 8, upper)], "white" if number == 0 else colour, 1)
        reach = end
        if side.error:
            ends = [(end - side.error * unit, upper + 5), (end + side.error * unit, upper + 5)]
            canvas.line(ends, "black", 1)
            reach = ends[1][0] if side.share >= 0 else ends[0][0]
        if any(other.share for other in row.sides):
            away = 5 if side.share >= 0 else -5
            canvas.text(
                (reach + away, upper + 6), _minus(f"{side.share:+.1f}"), 12,
                anchor="lm" if away > 0 else "rm",
            )  # fmt: skip


def _draw_score(canvas: Canvas, explanation: Explanation, place: tuple[int, int], width: int) -> None:
    """The score on its scale, with the threshold, over how scores of the calibration data lie."""
    decision, (left, top) = explanation.verification, place
    height, base = 100, top + 175
    known = explanation.calibration.histogram if explanation.calibration else None
    low, high = _range(decision, known)

    def at(score: float) -> float:
        return left + (score - low) / (high - low) * width

    x, x_score = at(decision.threshold), at(decision.score)
    canvas.text((left, top), "The score on its scale", 19, bold=True)
    if known is None:
        canvas.box((left, base - 40, x, base), _SOFT_AGAINST)
        canvas.box((x, base - 40, left + width, base), _SOFT_FOR)
    else:
        most = max(*known.genuine, *known.impostor)
        for shares, fill, rim, words in (
            (known.impostor, _SOFT_AGAINST, AGAINST_COLOUR, "two people"),
            (known.genuine, _SOFT_FOR, FOR_COLOUR, "one person"),
        ):
            points = _curve(known, shares, low, high)
            outline = [(at(score), base - height * share / most) for score, share in points]
            canvas.polygon([(outline[0][0], base), *outline, (outline[-1][0], base)], fill, rim)
            peak = max(outline, key=lambda point: -point[1])[0]
            middle = min(max(_off(peak, x, x_score), left + 50), left + width - 50)
            canvas.text((middle, base - 14), words, 14, anchor="ms", halo=fill)
    canvas.line([(left, base), (left + width, base)], "black", 1)
    for tick in np.arange(np.ceil(low * 5) / 5, high + 1e-9, 0.2):
        canvas.line([(at(tick), base), (at(tick), base + 5)], "black", 1)
        canvas.text((at(tick), base + 8), _minus(f"{round(float(tick), 1) + 0.0:.1f}"), 13, anchor="ma")
    canvas.line([(x, top + 36), (x, base)], "black", 2)
    canvas.line([(x_score, top + 60), (x_score, base)], "black", 1)
    mark = [
        (x_score, base - 11),
        (x_score + 10, base),
        (x_score, base + 11),
        (x_score - 10, base),
        (x_score, base - 11),
    ]
    canvas.polygon(mark, FOR_COLOUR if decision.match else AGAINST_COLOUR, "black")
    within = (left, left + width)
    score, threshold, _ = written(decision, 3)
    _beside(canvas, (x, top + 42), f"threshold {threshold}", x <= x_score, within)
    _beside(canvas, (x_score, top + 64), f"score {score}", x > x_score, within, True)
    words = "cosine of the embeddings"
    if known is not None:
        words += "; curves: how the scores of the calibration data lie"
    canvas.text((left, base + 30), words, 13, colour=_GREY)


def _off(place: float, *lines: float) -> float:
    """The place next to this one where a short word crosses none of the lines."""
    free = [x for line in lines for x in (place, line - 54, line + 54)]
    return min(
        (x for x in free if all(abs(x - line) >= 54 for line in lines)),
        key=lambda x: abs(x - place), default=place,
    )  # fmt: skip


def _beside(
    canvas: Canvas, place: Point, words: str, to_left: bool, within: tuple[float, float], bold: bool = False
) -> None:
    """Write to the side of a line that has room."""
    room = 9.5 * len(words)
    if to_left and place[0] - room < within[0]:
        to_left = False
    elif not to_left and place[0] + room > within[1]:
        to_left = True
    x = place[0] - 6 if to_left else place[0] + 6
    canvas.text((x, place[1]), words, 15, bold=bold, anchor="rm" if to_left else "lm", halo="white")


def _range(decision: Verification, known: ScoreHistogram | None) -> tuple[float, float]:
    """What the scale shows: the score, the threshold, and where the calibration's scores lie."""
    shown = [decision.score, decision.threshold]
    if max(map(abs, shown)) > 1:  # no cosines, but scores of a scale of their own
        margin = max(abs(decision.margin), 1e-3 * abs(decision.threshold))
        return min(shown) - margin, max(shown) + margin
    if known is None:
        shown += [-0.2, 1.0]
    else:
        edges = np.linspace(known.low, known.high, len(known.genuine) + 1)
        for shares in (known.genuine, known.impostor):
            held = np.flatnonzero(np.array(shares) > 1e-4)
            shown += [float(edges[held[0]]), float(edges[held[-1] + 1])]
    return min(shown) - 0.03, min(max(shown) + 0.03, 1.03)


def _curve(
    known: ScoreHistogram, shares: Sequence[float], low: float, high: float
) -> list[tuple[float, float]]:
    """Centres and shares of the bins within a range; shares averaged over three bins."""
    width = (known.high - known.low) / len(shares)
    centres = known.low + (np.arange(len(shares)) + 0.5) * width
    smooth = np.convolve(shares, np.full(3, 1 / 3), mode="same")
    return [(float(c), float(s)) for c, s in zip(centres, smooth, strict=True) if low <= c <= high]


def _notes(explanation: Explanation) -> list[str]:
    """What stands beside the chart: strength, check, and what makes the answer less reliable."""
    decision, own = explanation.verification, f"{explanation.method}: "
    cautions = [note for note in explanation.notes if not note.startswith(own)]
    poor = poor_in_words(decision, cautions)
    return [
        *(
            [f"{strength_in_words(decision.strength)} {tension_in_words(decision)}".strip()]
            if decision.strength
            else []
        ),
        check_in_words(explanation.faithfulness, tried=False),
        *(f"⚠ {caution}" for caution in (*cautions, *_turned(explanation))),
        *([poor] if poor else []),
    ]


def _turned(explanation: Explanation) -> list[str]:
    sides = (("probe", explanation.probe), ("reference", explanation.reference))
    return [line for name, face in sides for line in hardly_seen(name, components(face.regions))]


def _small_print(explanation: Explanation) -> str:
    decision, own = explanation.verification, f"{explanation.method}: "
    caveats = "".join(f" {note}." for note in explanation.notes if note.startswith(own))
    return (
        f"{decision_in_words(decision)} Method {explanation.method}, recognizer {decision.recognizer}.{caveats} "
        "Both maps share one colour scale and are smoothed for the eye "
        f"(σ = {DISPLAY_SIGMA:.0%} of the height); numbers are not, and stand in the chart where a map has no room. "
        "Left and right are the subject's. "
        "The picture shows what moves this recognizer's score, and not who somebody is. "
        f"xfr-plugin {explanation.version}"
    )


def _outlines(regions: RegionMap, width: int, height: int) -> NDArray[np.bool_]:
    """Pixels of a larger picture H×W where one region ends and another begins; smooth, as enlarged masks are."""
    names = np.unique(regions.labels)
    soft = ImageFilter.GaussianBlur(1.2)  # or edges would keep the steps of the small pixels
    masks = [
        Image.fromarray(np.where(regions.labels == name, 255, 0).astype(np.uint8)).filter(soft)
        for name in names
    ]
    size = (width, height)
    large = np.stack([np.asarray(mask.resize(size, Image.Resampling.BICUBIC)) for mask in masks])
    labels = large.argmax(axis=0)
    edges = np.zeros(labels.shape, dtype=np.bool_)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    return edges


def _places(face: FaceExplanation, unit: float) -> list[tuple[Component, Point]]:
    """Components of the face worth a number on the map, and where it goes: the middle of the region."""
    if not face.saliency.any():
        return []
    found = []
    for part in components(face.regions):
        if part.region in APART or abs(part.share) < 0.5:
            continue
        rows, columns = np.nonzero(face.region_map.mask(part.region))
        if len(rows):
            x, y = _middle(rows, columns)
            found.append((part, ((x + 0.5) * unit, (y + 0.5) * unit)))
    return found


def _middle(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[float, float]:
    """The pixel of a region next to its centre of gravity, which can lie outside of it."""
    y, x = rows.mean(), columns.mean()
    nearest = int(((rows - y) ** 2 + (columns - x) ** 2).argmin())
    return float(columns[nearest]), float(rows[nearest])


def _lighter(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2


def _minus(text: str) -> str:
    """Numbers with the sign of the printers."""
    return text.replace("-", "−")
