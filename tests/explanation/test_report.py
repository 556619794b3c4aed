"""The report: one file that needs nothing else, says how it was made, and can be read without seeing."""

from __future__ import annotations

import hashlib
import importlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin import Recognizer
from xfr_plugin.errors import InputError, PhotoNotFoundError, ResultError
from xfr_plugin.explanation.report import Report, build, build_report

pytest.importorskip("jinja2", reason="reports need Jinja2 (extra `report`)")
pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor


class Elements(HTMLParser):
    """Tags and attributes of a page, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture
def photos(face_photo: NDArray[np.uint8], tmp_path: Path) -> tuple[Path, Path]:
    files = tmp_path / "<b>a&b.png", tmp_path / "b.png"
    for file, photo in zip(files, (face_photo, np.ascontiguousarray(face_photo[:, ::-1])), strict=True):
        Image.fromarray(photo).save(file)
    return files


@pytest.fixture
def report(recognizer: Recognizer, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(build, "_LONGEST", 0.0)  # without Shapley values, which take a thousand passes
    return build_report(
        *photos, recognizer=recognizer, method="xssab", alignment="aligned", command="xfr report <a> b"
    )


def test_a_report_is_one_file_that_fetches_nothing(report: Report) -> None:
    page = report.html()
    elements = Elements(page)
    assert not elements.of("script", "link", "iframe", "object", "a")
    assert elements.of("img")
    for image in elements.of("img"):
        assert (image["src"] or "").startswith("data:image/png;base64,")
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page).replace("http-equiv", "")
    policy = next(meta for meta in elements.of("meta") if meta.get("http-equiv"))
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_a_report_can_be_read_without_seeing(report: Report) -> None:
    elements = Elements(report.html())
    assert elements.of("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in elements.of("img"))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1
    assert all(cell.get("scope") in ("col", "row") for cell in elements.of("th"))
    assert len(elements.of("caption")) == len(elements.of("table"))
    named = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(named) == len(set(named))
    assert {attributes["aria-labelledby"] for attributes in elements.of("section")} <= set(named)


def test_a_report_says_how_it_was_made_and_names_are_text(report: Report, photos: tuple[Path, Path]) -> None:
    page = report.html()
    for photo in photos:
        assert hashlib.sha256(photo.read_bytes()).hexdigest() in page
    assert page.count("<bdi>&lt;b&gt;a&amp;b.png</bdi>") == 2, "under the face, and beside the checksum"
    assert "<b>" not in page
    assert "xfr report &lt;a&gt; b" in page
    assert report.created.isoformat() in page
    assert "most for a match" in page


def test_a_report_calls_regions_by_the_names_of_people_and_hatches_in_print_too(report: Report) -> None:
    page = report.html()
    assert "right eyebrow" in page
    assert "right brow" not in page
    gradients = re.findall(r"repeating-linear-gradient\((.*?)\) ?[;}]", page)
    assert gradients
    assert not any(re.search(r"\d(px)? \d", gradient) for gradient in gradients), (
        "WeasyPrint draws no such stops"
    )


def test_three_methods_stand_beside_each_other(report: Report) -> None:
    methods = list(report.comparison.explanations)
    assert methods[0] == "xssab" == report.explanation.method
    assert len(report.comparison.results) == len({result.method for result in report.comparison.results}) > 1
    assert report.explanation.faithfulness is not None
    page = report.html()
    titles = [method for method in methods if f"<h3>{method}: " in page]
    assert titles == methods[1:], "the method itself stands above"
    assert page.count("Check: ") == len(methods), "what is known of each"


def test_lines_end_at_no_place_within_a_number(report: Report) -> None:
    shown = re.sub(r"<style>.*?</style>|<table.*?</table>|alt=\"[^\"]*\"", "", report.html(), flags=re.DOTALL)
    sentences = re.findall(r"<p[^>]*>(.*?)</p>", shown, flags=re.DOTALL)
    assert any("&nbsp;%" in sentence for sentence in sentences)
    assert not any(re.search(r"\d ±|± \d|\d %", sentence) for sentence in sentences)


def test_which_part_goes_with_which_is_told_by_shapley_values_where_they_are_quick(
    report: Report, recognizer: Recognizer, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report.matches is not None
    assert report.matches.composite != "shapley"
    assert "BiLRP" in report.html()
    monkeypatch.setattr(build, "_LONGEST", float("inf"))
    quick = build_report(*photos, recognizer=recognizer, method="xssab", alignment="aligned")
    assert quick.matches is not None
    assert quick.matches.composite == "shapley"
    assert "Shapley interactions" in quick.html()


def test_of_scores_alone_nothing_tells_which_part_goes_with_which(photos: tuple[Path, Path]) -> None:
    remote = Recognizer.from_scores(
        lambda a, b: [100 - 100 * float((x - y).abs().mean()) for x, y in zip(a, b, strict=True)],
        threshold=95,
    )
    made = build_report(*photos, recognizer=remote, alignment="aligned")
    assert made.matches is None
    assert "gives scores only" in made.html()


def test_reconstructions_are_shown_only_if_asked_for(
    recognizer: Recognizer, photos: tuple[Path, Path], report: Report
) -> None:
    assert "Reconstructions" not in report.html()
    with pytest.raises(InputError, match="decoder"):  # this recognizer has none
        build_report(
            *photos, recognizer=recognizer, method="xssab", alignment="aligned", reconstructions=True
        )


def test_saving_a_report(report: Report, photos: tuple[Path, Path], tmp_path: Path) -> None:
    (page,) = report.save(tmp_path / "new" / "report.html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(ResultError):
        report.save(photos[0] / "report.html")


def test_the_pdf_stands_beside_the_page(report: Report, tmp_path: Path) -> None:
    try:
        importlib.import_module("weasyprint")
    except (ImportError, OSError) as error:  # OSError: the system lacks Pango
        pytest.skip(f"PDFs need WeasyPrint (extra `report`) and Pango: {error}")
    page, printed = report.save(tmp_path / "report.html", pdf=True)
    assert printed == page.with_suffix(".pdf")
    assert printed.read_bytes().startswith(b"%PDF")


def test_a_photo_that_is_not_there_is_an_error(recognizer: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(PhotoNotFoundError):
        build_report(tmp_path / "none.png", tmp_path / "none.png", recognizer=recognizer)
