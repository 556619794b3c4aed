"""Answers in notebooks: as a picture with words, and as tables."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from xfr_plugin.base.text import printable
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, ratio_shares
from xfr_plugin.explanation.words import components, explanation_in_words

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from xfr_plugin.explanation.comparison import Comparison
    from xfr_plugin.explanation.matches import RegionMatches

__all__ = [
    "comparison_frame",
    "explanation_frame",
    "explanation_html",
    "figure_png",
    "matches_frame",
    "picture_html",
]


def explanation_html(explanation: Explanation) -> str:
    """The picture of an explanation, and under it what it says in words."""
    from xfr_plugin.explanation.figures.explanation import (
        explanation_png,
    )  # builds on this module's neighbours

    words = explanation_in_words(explanation)
    return picture_html(explanation_png(explanation), words[0], words)


def picture_html(picture: bytes, alt: str, words: tuple[str, ...] = ()) -> str:
    """A PNG as an element of a page, with paragraphs under it."""
    data = base64.b64encode(picture).decode()
    lines = "".join(f"<li>{html.escape(printable(line))}</li>" for line in words)
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width:100%">'
    return f"<figure>{image}{f'<figcaption><ul>{lines}</ul></figcaption>' if lines else ''}</figure>"


def figure_png(figure: Figure) -> bytes:
    """A figure of Matplotlib as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def explanation_frame(explanation: Explanation) -> pandas.DataFrame:
    """A row for each face and region: evidence in the units of the method and in percent, area, part of the ratio."""
    shared = ratio_shares(explanation) or ({}, {})
    faces = (("probe", explanation.probe), ("reference", explanation.reference))
    rows = [row for place, (name, face) in enumerate(faces) for row in _rows(name, face, shared[place])]
    return _frame(rows)


def comparison_frame(comparison: Comparison) -> pandas.DataFrame:
    """The rows of all methods that answered, with the method's name, its seconds and the verdict of its check."""
    seconds = {result.method: result.seconds for result in comparison.results}
    rows = []
    for method, explanation in comparison.explanations.items():
        verdict = explanation.faithfulness.verdict if explanation.faithfulness else None
        for name, face in (("probe", explanation.probe), ("reference", explanation.reference)):
            about = {"method": method, "seconds": seconds[method], "check": verdict}
            rows += [{**about, **row} for row in _rows(name, face, {})]
    return _frame(rows)


def matches_frame(matches: RegionMatches) -> pandas.DataFrame:
    """A row for each pair of regions."""
    names = matches.regions.names
    return _frame(
        [
            {
                "probe": probe,
                "reference": reference,
                "relevance": float(matches.relevance[i, j]),
                "specific": float(matches.specific[i, j]),
            }
            for i, probe in enumerate(names)
            for j, reference in enumerate(names)
        ]
    )


def _rows(name: str, face: FaceExplanation, shared: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "face": name,
            "region": row.region,
            "component": part.name,
            "evidence": row.evidence,
            "error": row.error,
            "similar": row.similar,
            "dissimilar": row.dissimilar,
            "share_percent": part.share,
            "share_error_percent": part.error,
            "area_percent": part.area,
            "log10_lr_part": shared.get(row.region),
        }
        for row, part in zip(face.regions, components(face.regions), strict=True)
    ]


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as error:
        raise InputError("data frames need pandas: pip install pandas") from error
    return pandas.DataFrame(rows)
