"""From photos to reasons with recognizers that give no gradient, and with such as give scores only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin import compare, explain, verify
from xfr_plugin.attr import METHODS, default_method
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.quality import decision_cautions
from xfr_plugin.explanation.verification import decide
from xfr_plugin.recognition import Recognizer

SIZE = (112, 112)
pytestmark = pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")  # the photos show no faces
Photo = NDArray[np.uint8]


def sums(images: Tensor) -> NDArray[np.float32]:
    """Mean colours of 4×4 patches, N×48."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
    return (pooled - 0.45).numpy()


def percent(probes: Tensor, references: Tensor) -> list[float]:
    left, right = (torch.from_numpy(sums(images)) for images in (probes, references))
    return (50 + 50 * torch.cosine_similarity(left, right)).tolist()


KINDS: dict[str, Callable[[], Recognizer]] = {
    "embeddings": lambda: Recognizer.from_callable(sums, threshold=0.2),
    "scores": lambda: Recognizer.from_scores(percent, threshold=60),
}


@pytest.fixture(params=sorted(KINDS))
def black_box(request: pytest.FixtureRequest) -> Recognizer:
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def photos() -> tuple[Photo, Photo]:
    probe, reference = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    probe[:56], reference[:56] = 200, 180
    return probe, reference


def test_both_kinds_decide_alike(photos: tuple[Photo, Photo]) -> None:
    cosine = verify(*photos, recognizer=KINDS["embeddings"](), alignment="aligned")
    score = verify(*photos, recognizer=KINDS["scores"](), alignment="aligned")
    assert score.score == pytest.approx(50 + 50 * cosine.score, abs=1e-3)
    assert score.match == cosine.match
    assert verify(*photos, recognizer=KINDS["scores"](), alignment="aligned", threshold=120).match is False


def test_near_the_threshold_is_near_on_the_scale_of_the_scores(photos: tuple[Photo, Photo]) -> None:
    recognizer = KINDS["scores"]()
    score = verify(*photos, recognizer=recognizer, alignment="aligned").score
    for share, near in ((0.02, True), (0.05, False)):
        decision = decide(recognizer, score, score - share * recognizer.score_unit, "given")
        cautions = {caution.code for caution in decision_cautions(decision, recognizer)}
        assert ("near_threshold" in cautions) == near


@pytest.mark.parametrize("check", [False, True])
def test_the_default_method_explains(
    black_box: Recognizer, photos: tuple[Photo, Photo], check: bool, tmp_path: Path
) -> None:
    explanation = explain(
        *photos,
        recognizer=black_box,
        alignment="aligned",
        check=check,
        options={"donors": 2},
        method="leave_one_out",
    )
    assert explanation.probe.saliency.sum() == pytest.approx(explanation.verification.margin, abs=0.05)
    assert (explanation.faithfulness is not None) == check
    document = explanation.save(tmp_path)[1]
    assert Explanation.load(document).verification == explanation.verification
    assert explain(*photos, recognizer=black_box, alignment="aligned").method == default_method(black_box)


def test_every_method_that_serves_explains(black_box: Recognizer, photos: tuple[Photo, Photo]) -> None:
    for method in METHODS.values():
        if method.serves(black_box):
            options = dict(method.trial_options)
            if "donors" in options:
                options["donors"] = 2  # of one there is no standard error
            explanation = explain(
                *photos, recognizer=black_box, alignment="aligned", method=method.name, options=options
            )
            assert np.isfinite(explanation.probe.saliency).all()


def test_both_kinds_are_explained_alike(photos: tuple[Photo, Photo]) -> None:
    """Up to the scale of the scores."""
    maps = [
        explain(
            *photos,
            recognizer=KINDS[kind](),
            alignment="aligned",
            method="mery_avg",
            options=METHODS["mery_avg"].trial_options,
        ).probe.saliency
        for kind in ("embeddings", "scores")
    ]
    np.testing.assert_allclose(50 * maps[0], maps[1], atol=1e-3 * np.abs(maps[1]).max())


def test_comparisons_show_what_can_explain(black_box: Recognizer, photos: tuple[Photo, Photo]) -> None:
    found = compare(*photos, recognizer=black_box, alignment="aligned", methods=("mery_avg", "fggb"))
    assert [result.method for result in found.results if result.error is None] == ["mery_avg"]
    assert "use one of" in (found.results[1].error or "")


def test_methods_that_cannot_are_named_at_once(black_box: Recognizer, photos: tuple[Photo, Photo]) -> None:
    with pytest.raises(InputError, match="fggb needs"):
        explain(*photos, recognizer=black_box, alignment="aligned", method="fggb")
