"""A report as a page: values for the template, pictures as data, and the PDF of the page."""

from __future__ import annotations

import base64
import platform
import re
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.attr.registry import get_method
from xfr_plugin.base.text import printable
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import Explanation, FaceExplanation, ratio_shares
from xfr_plugin.explanation.figures.explanation import (
    decision_title,
    display_map,
    explained_face,
    full_colour_scale,
    png_of,
    score_panel,
)
from xfr_plugin.explanation.pipeline import SIDES
from xfr_plugin.explanation.report.build import Report
from xfr_plugin.explanation.words import (
    APART,
    Component,
    check_in_words,
    component_name,
    components,
    explanation_in_words,
    face_in_words,
    headline,
    share_of_area,
)

__all__ = ["html_of", "pdf_of"]

_WIDTH = 560
_SMALL = 280
_MATCHES = 10


def html_of(report: Report) -> str:
    """The page, see `Report.html`."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise InputError("reports need Jinja2: pip install 'xfr-plugin[report]'") from error
    template = resources.files("xfr_plugin.explanation.report") / "report.html.j2"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"component": component_name, "minus": _minus, "share": _share, "whole": _whole}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values_of(report))


def pdf_of(page: str) -> bytes:
    """A page as a PDF; nothing is fetched for it.

    Raises:
        InputError: WeasyPrint is not installed.
    """
    try:
        from weasyprint import HTML
    except (ImportError, OSError) as error:  # OSError: it lacks Pango
        raise InputError("PDFs need WeasyPrint: pip install 'xfr-plugin[report]'") from error
    printed: bytes = HTML(string=page).write_pdf(pdf_variant="pdf/ua-1")
    return printed


def values_of(report: Report) -> dict[str, Any]:
    """What the template is filled with."""
    explanation = report.explanation
    decision = explanation.verification
    sides = (explanation.probe, explanation.reference)
    scale = full_colour_scale([display_map(face.saliency) for face in sides])
    panel = score_panel(explanation)
    return {
        "title": decision_title(decision),
        "decision": decision,
        "headline": headline(explanation),
        "sentences": explanation_in_words(explanation),
        "faces": [
            _face(name, face, scale) | {"file": given.name}
            for name, face, given in zip(SIDES, sides, report.inputs, strict=True)
        ],
        "panel": _data(panel.image),
        "panel_words": ", ".join(panel.written),
        "rows": _rows(explanation),
        "has_ratios": ratio_shares(explanation) is not None,
        "check": explanation.faithfulness,
        "methods": [
            _method(other)
            for name, other in report.comparison.explanations.items()
            if name != explanation.method
        ],
        "failed": [result for result in report.comparison.results if result.explanation is None],
        "agreement": _agreement(report),
        "matches": _matches(report),
        "by_shapley": report.matches_by == "shapley",
        "likenesses": [_data(Image.fromarray(face)) for face in report.likenesses or ()],
        "inputs": list(zip(SIDES, report.inputs, strict=True)),
        "calibration": explanation.calibration,
        "options": {name: repr(value) for name, value in explanation.options.items()},
        "method": get_method(explanation.method),
        "caveat": _sentence(get_method(explanation.method).caveat),
        "version": explanation.version,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": report.command,
        "created": report.created.isoformat(),
        "timings": explanation.timings,
    }


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _share(said: float) -> str:
    """A share in percent; one of nothing has no sign."""
    return _minus(f"{100 * said:+.0f} %" if round(100 * said) else "0 %")


def _whole(text: str) -> str:
    """A sentence whose lines end at no place between a number, its error and its unit; with its text escaped."""
    from markupsafe import Markup, escape  # comes with Jinja2

    return Markup(re.sub(r" (?=[±%])|(?<=±) ", "&nbsp;", escape(_shown(text))))


def _shown(value: Any) -> Any:
    """Text from outside controls nothing: its control characters are escaped."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def _data(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_of(image, '')).decode()}"


def _face(name: str, face: FaceExplanation, scale: float, width: int = _WIDTH) -> dict[str, str]:
    height = round(width * face.image.shape[0] / face.image.shape[1])
    plain = Image.fromarray(face.image).resize((width, height), Image.Resampling.BICUBIC)
    return {
        "name": name,
        "photo": _data(plain),
        "map": _data(explained_face(face, scale, width).image),
        "words": " ".join(face_in_words(name, components(face.regions))),
    }


def _rows(explanation: Explanation) -> list[dict[str, Any]]:
    """Rows of the table: the face's components by their evidence, then hair and background."""
    sides = [components(face.regions) for face in (explanation.probe, explanation.reference)]
    shared = ratio_shares(explanation)
    pairs = [pair for pair in zip(*sides, strict=True) if any(part.area for part in pair)]
    face = sum(part.share for pair in pairs for part in pair if part.region not in APART)
    sign = -1 if face >= 0 else 1  # the strongest on top
    pairs.sort(key=lambda pair: (pair[0].region in APART, sign * (pair[0].share + pair[1].share)))
    reach = max((abs(part.share) for pair in pairs for part in pair), default=0) or 1.0
    return [
        {
            "name": pair[0].name,
            "apart": pair[0].region in APART,
            "sides": [
                _cell(part, reach, None if shared is None else shared[place][part.region])
                for place, part in enumerate(pair)
            ],
        }
        for pair in pairs
    ]


def _cell(part: Component, reach: float, ratio: float | None) -> dict[str, Any]:
    return {
        "value": part.value if part.area else "not seen",
        "area": share_of_area(part.area),
        "against": part.share < 0,
        "width": round(50 * abs(part.share) / reach, 1),
        "ratio": "–" if ratio is None or not part.area else _minus(f"{ratio:+.2f}"),
    }


def _method(explanation: Explanation) -> dict[str, Any]:
    sides = (explanation.probe, explanation.reference)
    scale = full_colour_scale([display_map(face.saliency) for face in sides])
    entry = get_method(explanation.method)
    return {
        "name": entry.name,
        "title": entry.title,
        "paper": f"{entry.paper} ({entry.year})",
        "caveat": _sentence(entry.caveat),
        "verdict": check_in_words(explanation.faithfulness, tried=False),
        "faces": [_face(name, face, scale, _SMALL) for name, face in zip(SIDES, sides, strict=True)],
    }


def _agreement(report: Report) -> list[tuple[str, str, str]]:
    """Every two methods and the rank correlation of their maps."""
    found = report.comparison.agreement
    mean: NDArray[np.float64] = found.mean
    return [
        (
            found.methods[i],
            found.methods[j],
            "not defined" if np.isnan(mean[i, j]) else _minus(f"{mean[i, j]:.2f}"),
        )
        for i in range(len(found.methods))
        for j in range(i + 1, len(found.methods))
    ]


def _matches(report: Report) -> list[tuple[str, str, str]]:
    """The strongest pairs of regions, in hundredths of the score."""
    if report.matches is None:
        return []
    from xfr_plugin.explanation.figures.matches import strongest_matches  # Matplotlib is slow to import

    return [
        (component_name(probe), component_name(reference), _minus(f"{100 * specific:+.2f}"))
        for probe, reference, specific, _ in strongest_matches(report.matches, _MATCHES)
    ]
