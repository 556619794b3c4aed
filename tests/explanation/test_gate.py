"""Maps of nothing: what is not finite, has no gradient or lies within rounding does not become evidence."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_net import SmallNet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xfr_plugin import Explanation, compare, explain
from xfr_plugin.errors import ExplanationError, InputError
from xfr_plugin.explanation.figures.explanation import explanation_png
from xfr_plugin.explanation.gate import rounding_limit
from xfr_plugin.recognition import Recognizer

Photo = NDArray[np.uint8]

OF_THE_SCORE = ("xssab", "gradcam", "gradcam_plus_plus", "input_x_gradient", "deeplift")
"""Methods whose map follows the score's gradient, or its change between the two faces: 0 where these are one."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def made(network: torch.nn.Module | None = None, dtype: torch.dtype = torch.float32) -> Recognizer:
    torch.manual_seed(0)
    network = network or SmallNet()
    return Recognizer(network, input_size=(24, 20), threshold=0.2, name="small").to(dtype)


def explained(recognizer: Recognizer, a: Photo, b: Photo, method: str) -> Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of autocasts and of narrow types, which are not the subject
        return explain(a, b, recognizer=recognizer, method=method, alignment="aligned")


@pytest.fixture(scope="module")
def photos() -> tuple[Photo, Photo]:
    a, b = np.random.default_rng(0).integers(0, 255, (2, 24, 20, 3), dtype=np.uint8)
    return a, b


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", OF_THE_SCORE)
def test_a_photo_against_itself_has_nothing_to_explain(
    photos: tuple[Photo, Photo], method: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    if method == "deeplift" and dtype == torch.float16:
        with pytest.raises(ExplanationError, match=r"not finite.*float16"):
            explained(made(dtype=dtype), photos[0], photos[0], method)
        return
    explanation = explained(made(dtype=dtype), photos[0], photos[0], method)
    assert not explanation.probe.saliency.any()
    assert not explanation.reference.saliency.any()
    assert any("nothing to explain in the probe and the reference" in note for note in explanation.notes)
    assert not any(region.evidence for region in explanation.probe.regions)
    with Image.open(io.BytesIO(explanation_png(explanation))) as picture:
        written = picture.info["Description"].split("\n")
    assert not any(text.startswith("+") for text in written), "no bar and no region has a number"
    if method == "xssab":
        document = explanation.save(tmp_path)[1]
        assert not Explanation.load(document).probe.saliency.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", ["xssab", "input_x_gradient", "lrp", "occlusion"])
def test_the_smallest_change_of_a_photo_is_explained(
    photos: tuple[Photo, Photo], method: str, dtype: torch.dtype
) -> None:
    changed = photos[0].copy()
    changed[10:13, 8:11] ^= 8
    explanation = explained(made(dtype=dtype), photos[0], changed, method)
    assert explanation.probe.saliency.any()
    assert not any("nothing to explain" in note for note in explanation.notes)


class Detaching(SmallNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class Rounding(SmallNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 20).round() / 20)


class Unplugged(SmallNet):
    """Through NumPy and back."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(images) + 0.0


@pytest.mark.parametrize("network", [Detaching, Rounding, Unplugged])
@pytest.mark.parametrize("method", ["xssab", "input_x_gradient", "deeplift", "gradcam", "fggb", "ebp", "lrp"])
def test_networks_that_cut_the_gradient_are_an_error(
    photos: tuple[Photo, Photo], network: type[SmallNet], method: str
) -> None:
    """Methods that trace the network, or start at a layer, may find a gradient all the same."""
    try:
        explanation = explained(made(network()), *photos, method)
    except (ExplanationError, InputError) as error:
        words = str(error)
    else:
        assert method not in ("xssab", "input_x_gradient", "deeplift")
        assert explanation.probe.saliency.any()
        return
    assert "no gradient" in words or "no rule" in words


@pytest.mark.parametrize("network", [Detaching, Rounding])
@pytest.mark.parametrize("method", ["occlusion", "mery_avg"])
def test_methods_of_scores_need_no_gradient(
    photos: tuple[Photo, Photo], network: type[SmallNet], method: str
) -> None:
    assert explained(made(network()), *photos, method).probe.saliency.any()


class Constant(SmallNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 0 + torch.linspace(1, 2, 6)


class AlmostConstant(SmallNet):
    """What depends on the pixels is what rounding changes in what does not."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 1e-7 + torch.linspace(1, 2, 6)


@pytest.mark.parametrize("network", [Constant, AlmostConstant])
def test_a_recognizer_that_sees_nothing_decides_nothing(
    photos: tuple[Photo, Photo], network: type[SmallNet]
) -> None:
    with pytest.raises(InputError, match="different faces for one person"):
        explained(made(network()), *photos, "occlusion")


@pytest.mark.parametrize("network", [Constant, AlmostConstant])
@pytest.mark.parametrize(
    "method", ["occlusion", "corrrise", "srise", "mery_avg", "kernel_shap", "lime", "xssab"]
)
def test_masks_that_change_nothing_are_no_evidence(
    photos: tuple[Photo, Photo], network: type[SmallNet], method: str
) -> None:
    recognizer = made(network())
    recognizer.tested = True  # the self-test would refuse it; faces may be like that all the same
    words, found = "", False
    try:
        found = bool(explained(recognizer, *photos, method).probe.saliency.any())
    except ExplanationError as error:
        words = str(error)
    assert not found
    assert "no gradient" in words or not words


def test_a_comparison_shows_what_has_something_to_say(photos: tuple[Photo, Photo]) -> None:
    methods = ["xssab", "occlusion"]
    found = compare(
        photos[0], photos[0], methods=methods, recognizer=made(), alignment="aligned"
    ).explanations
    assert not found["xssab"].probe.saliency.any()
    assert found["occlusion"].probe.saliency.any()


def test_the_limit_follows_the_type() -> None:
    assert rounding_limit(torch.float32) == pytest.approx(4.9e-4, rel=0.01)
    assert rounding_limit(torch.float64) == pytest.approx(2.1e-8, rel=0.01)
