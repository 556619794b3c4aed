"""Many methods on one pair: what is shared, what is measured, and what a failing method may not spoil."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from typer.testing import CliRunner

import xfr_plugin
from xfr_plugin import Comparison, Recognizer
from xfr_plugin.attr import METHODS, Xssab
from xfr_plugin.base.memory import measured_peak
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError, ResultError, UnknownNameError
from xfr_plugin.explanation.comparison import QUICK_METHODS, chosen_methods
from xfr_plugin.faces import template_regions

pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # made-up faces are poor

Photo = NDArray[np.uint8]
OPTIONS = {"fggb": {"level": "score"}}


@pytest.fixture
def photos(face_photo: Photo) -> tuple[Photo, Photo]:
    return face_photo, np.ascontiguousarray(face_photo[:, ::-1])


@pytest.fixture
def comparison(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> Comparison:
    return xfr_plugin.compare(
        *photos, methods=("xssab", "fggb"), options=OPTIONS, recognizer=recognizer, alignment="aligned"
    )


def test_each_method_answers_as_it_does_alone(
    comparison: Comparison, recognizer: Recognizer, photos: tuple[Photo, Photo]
) -> None:
    for name, explanation in comparison.explanations.items():
        alone = xfr_plugin.explain(
            *photos, recognizer=recognizer, method=name, options=OPTIONS.get(name), alignment="aligned"
        )
        np.testing.assert_array_equal(explanation.probe.saliency, alone.probe.saliency)
        assert explanation.reference.regions == alone.reference.regions
        assert explanation.options == alone.options
        assert explanation.notes == alone.notes
        assert comparison.verification == alone.verification
        np.testing.assert_array_equal(comparison.faces[0], alone.probe.image)


def test_agreement_is_scipys_spearman_inside_the_face(comparison: Comparison) -> None:
    face = template_regions((24, 20)).face
    for side in ("probe", "reference"):
        maps = [getattr(e, side).saliency.astype(float) for e in comparison.explanations.values()]
        smooth = [gaussian_filter(saliency, 0.04 * 24)[face] for saliency in maps]
        expected = spearmanr(smooth[0], smooth[1]).statistic
        found = getattr(comparison.agreement, side)
        np.testing.assert_allclose(found, [[1, expected], [expected, 1]])
    assert comparison.agreement.with_others("xssab") == pytest.approx(comparison.agreement.mean[0, 1])


def test_agreement_with_a_constant_map_is_undefined(
    recognizer: Recognizer, photos: tuple[Photo, Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Xssab, "_attribute_pair", lambda self, pair: torch.zeros_like(pair.images))
    comparison = xfr_plugin.compare(
        *photos, methods=("xssab", "fggb"), recognizer=recognizer, alignment="aligned"
    )
    assert np.isnan(comparison.agreement.mean[0]).all()
    assert comparison.agreement.mean[1, 1] == pytest.approx(1)
    assert np.isnan(comparison.agreement.with_others("fggb"))
    _, document = comparison.save(tmp_path)
    assert json.loads(document.read_text())["agreement"]["probe"][0] == [None, None]
    assert np.isnan(Comparison.load(document).agreement.probe[0]).all()


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (InputError("small has no decoder"), "small has no decoder"),
        (RuntimeError("out of\n memory"), "RuntimeError: out of memory"),
        (
            None,
            "xssab made a map of numbers that are not finite: check the network's weights, or choose another method",
        ),
    ],
)
def test_a_failing_method_is_reported_and_the_others_go_on(
    recognizer: Recognizer,
    photos: tuple[Photo, Photo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: Exception | None,
    line: str,
) -> None:
    def fail(self: Xssab, pair: object) -> torch.Tensor:
        if problem is not None:
            raise problem
        return torch.full((2, 3, 24, 20), float("nan"))

    monkeypatch.setattr(Xssab, "_attribute_pair", fail)
    comparison = xfr_plugin.compare(
        *photos, methods=("xssab", "fggb"), recognizer=recognizer, alignment="aligned"
    )
    assert comparison.results[0].explanation is None
    assert comparison.results[0].error == line
    assert list(comparison.explanations) == ["fggb"]
    assert comparison.agreement.methods == ("fggb",)
    picture, document = comparison.save(tmp_path)
    assert picture.stat().st_size > 10_000
    assert Comparison.load(document).results[0].error == line


def test_all_methods_failing_still_gives_a_document(
    recognizer: Recognizer, photos: tuple[Photo, Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Xssab, "_attribute_pair")
    comparison = xfr_plugin.compare(*photos, methods="xssab", recognizer=recognizer, alignment="aligned")
    assert comparison.results[0].error is not None
    _, document = comparison.save(tmp_path)
    assert Comparison.load(document).explanations == {}


def test_choice_of_methods(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> None:
    assert [method.name for method in chosen_methods(None)] == list(QUICK_METHODS)
    assert set(QUICK_METHODS) <= METHODS.keys()
    assert chosen_methods("all") == tuple(METHODS.values())
    assert [method.name for method in chosen_methods(("fggb", "xssab", "fggb"))] == ["fggb", "xssab"]
    with pytest.raises(UnknownNameError, match="did you mean 'fggb'"):
        chosen_methods(["fgbb"])
    with pytest.raises(InputError, match="at least one"):
        chosen_methods([])
    for wrong in ({"fggb": {"chunk": 2}}, {"xssab": {}}, {"nothing": {}}):
        with pytest.raises(UnknownNameError):
            xfr_plugin.compare(*photos, methods="fggb", options=wrong, recognizer=recognizer)
    with pytest.raises(InputError, match="smoothing"):
        xfr_plugin.compare(*photos, recognizer=recognizer, smoothing=-1)


def test_progress_is_told_before_each_method(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> None:
    told: list[tuple[str, int, int]] = []
    xfr_plugin.compare(
        *photos,
        methods=("xssab", "fggb"),
        recognizer=recognizer,
        alignment="aligned",
        progress=lambda *step: told.append(step),
    )
    assert told == [("xssab", 1, 2), ("fggb", 2, 2)]


def test_saved_comparison_comes_back(comparison: Comparison, tmp_path: Path) -> None:
    picture, document = comparison.save(tmp_path / "new")
    assert sorted(entry.name for entry in picture.parent.iterdir()) == ["comparison.json", "comparison.png"]
    loaded = Comparison.load(document)
    assert loaded.explanations["xssab"].calibration == comparison.explanations["xssab"].calibration
    assert loaded.verification == comparison.verification
    assert (loaded.notes, loaded.version) == (comparison.notes, comparison.version)
    assert dict(loaded.timings) == dict(comparison.timings)
    np.testing.assert_array_equal(loaded.agreement.probe, comparison.agreement.probe)
    for mine, theirs in zip(comparison.results, loaded.results, strict=True):
        assert (theirs.method, theirs.seconds, theirs.peak_memory, theirs.error) == (
            mine.method,
            mine.seconds,
            mine.peak_memory,
            mine.error,
        )
        assert mine.explanation is not None
        assert theirs.explanation is not None
        np.testing.assert_array_equal(theirs.explanation.probe.saliency, mine.explanation.probe.saliency)
        assert theirs.explanation.reference.regions == mine.explanation.reference.regions
    with Image.open(picture) as image:
        assert image.size[0] > 1500


def test_damaged_comparisons_are_refused(comparison: Comparison, tmp_path: Path) -> None:
    _, document = comparison.save(tmp_path)
    good = json.loads(document.read_text())

    def refuse(content: str, match: str) -> None:
        document.write_text(content)
        with pytest.raises(ResultError, match=match):
            Comparison.load(document)

    refuse("{", "not a saved comparison")
    refuse(json.dumps({**good, "format": "xfr-explanation/1"}), "format")
    refuse(json.dumps({**good, "agreement": {**good["agreement"], "probe": [[1.0]]}}), "every two methods")
    with pytest.raises(ResultError, match="no comparison at"):
        Comparison.load(tmp_path / "none.json")


def test_peak_memory_sees_what_was_freed_again() -> None:
    """80 MB that live for a moment only, twice: the second time the memory is not hidden in the allocator.

    About: the kernel counts pages for each core, and takes some away where memory is short.
    """
    for _ in range(2):
        with measured_peak(torch.device("cpu")) as peak:
            torch.ones(20_000_000).sum()
        if peak.extra is None:
            pytest.skip("the system does not tell the peak of resident memory")
        assert 40e6 < peak.extra < 160e6


def test_command_line(face_photo: Photo, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(face_photo[:112, :112]).save(tmp_path / f"{name}.png")
    arguments = ["compare", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "-m", "xssab", "-o", "xssab.arguments=for"])
    assert result.exit_code == 0, result.output
    assert "agrees" in result.stdout
    document = tmp_path / "out" / "comparison.json"
    assert Comparison.load(document).explanations["xssab"].options["arguments"] == "for"
    for wrong, message in (
        (["-m", "xsab"], "did you mean 'xssab'"),
        (["-o", "blur=1"], "method.name=value"),
        (["-m", ","], "at least one"),
    ):
        result = CliRunner().invoke(app, [*arguments, *wrong])
        assert result.exit_code == 2
        assert message in result.stderr


def test_list_of_methods_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, ["methods"]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = "".join("\n".join(lines).split())
    cards = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    assert [card["name"] for card in cards] == list(METHODS)
    for method in METHODS.values():
        assert method.name in text
        assert str(method.year) in text
        assert "…" not in text, "something was cut off"
