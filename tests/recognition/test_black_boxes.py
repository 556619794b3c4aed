"""Recognizers that are no network of torch: functions, files, networks in which another framework computes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.attr import METHODS, CorrRise, default_method
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.folding import fold_batchnorm, folded_recognizer, safely_folded

SIZE = (12, 10)


def mean_colours(images: Tensor) -> np.ndarray:
    """A function of arrays that tells faces apart: mean colours of the four quarters, N×12."""
    pixels = images.numpy()
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    quarters = (
        pixels[..., rows, columns].mean(axis=(2, 3))
        for rows, columns in (
            (slice(height), slice(width)),
            (slice(height), slice(width, None)),
            (slice(height, None), slice(width)),
            (slice(height, None), slice(width, None)),
        )
    )
    return np.concatenate(list(quarters), axis=1) - 0.4


def alike(probes: Tensor, references: Tensor) -> list[float]:
    """A score of no particular scale, as lists."""
    return (100 - 100 * np.abs(mean_colours(probes) - mean_colours(references)).mean(axis=1)).tolist()


@pytest.fixture
def embedding() -> Recognizer:
    return Recognizer.from_callable(mean_colours, input_size=SIZE, threshold=0.5)


@pytest.fixture
def scoring() -> Recognizer:
    return Recognizer.from_scores(alike, input_size=SIZE, threshold=90)


def faces(count: int) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


def test_a_function_of_arrays_embeds(embedding: Recognizer) -> None:
    assert embedding.gives == "embeddings"
    assert embedding.name == "mean_colours"
    units = embedding.embed(faces(3))
    torch.testing.assert_close(units.norm(dim=1), torch.ones(3))
    expected = torch.from_numpy(mean_colours(faces(3)))
    torch.testing.assert_close(units, torch.nn.functional.normalize(expected, dim=1))
    assert embedding.contract.value_range == (0, 1)


def test_a_score_function_compares(scoring: Recognizer) -> None:
    assert scoring.gives == "scores"
    left, right = faces(3), faces(4)[:3]
    torch.testing.assert_close(
        scoring.compare(scoring.represent(left), scoring.represent(right)), torch.tensor(alike(left, right))
    )
    assert scoring.threshold == 90
    assert scoring.self_test().same == 100
    with pytest.raises(InputError, match="scores only"):
        scoring.embed(left)


def test_scores_are_held_against_what_the_function_makes_of_strangers(
    embedding: Recognizer, scoring: Recognizer
) -> None:
    found = scoring.self_test()
    assert scoring.score_unit == pytest.approx(found.same - found.mean)
    assert scoring.with_threshold(80).score_unit == scoring.score_unit
    assert embedding.score_unit == 1


def test_functions_see_what_they_ask_for() -> None:
    seen: list[Tensor] = []

    def embed(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1)

    Recognizer.from_callable(embed, input_size=SIZE, mean=0, std=1 / 255, channel_order="BGR").embed(faces(1))
    torch.testing.assert_close(seen[-1], faces(1).flip(1) * 255)


def test_a_function_that_likes_strangers_better_is_refused() -> None:
    distance = Recognizer.from_scores(
        lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), input_size=SIZE, threshold=0.1
    )
    with pytest.raises(InputError, match="the more alike two faces are, the higher"):
        distance.self_test()


def test_wrong_answers_of_functions_are_errors() -> None:
    short = Recognizer.from_scores(lambda a, b: [1.0], input_size=SIZE, threshold=0)
    with pytest.raises(InputError, match="1 scores for 2 pairs"):
        short.compare(faces(2), faces(2))
    nothing = Recognizer.from_scores(lambda a, b: [float("nan")] * len(a), input_size=SIZE, threshold=0)
    with pytest.raises(InputError, match="not a number"):
        nothing.compare(faces(2), faces(2))
    with pytest.raises(InputError, match="a function is wanted"):
        Recognizer.from_callable("no function")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize(
    "given", [None, "text", {"embedding": [1.0]}, [[1.0, 2.0], [3.0]], [{"x": 1}], [None, None]]
)
def test_what_is_no_embedding_and_no_score_is_named(given: object) -> None:
    embedding = Recognizer.from_callable(lambda images: given, input_size=SIZE)
    with pytest.raises(InputError, match=r"the function gave .*: embeddings N×D are wanted"):
        embedding.embed(faces(2))
    score = Recognizer.from_scores(lambda a, b: given, input_size=SIZE, threshold=0)
    with pytest.raises(InputError, match=r"the function gave .*: N scores are wanted"):
        score.compare(faces(2), faces(2))
    attribution = CorrRise.from_scores(lambda a, b: given, threshold=0, n_masks=2, patch_size=3)
    with pytest.raises(InputError, match=r"the function gave .*: N scores are wanted"):
        attribution.attribute((faces(1), faces(1)))


@pytest.mark.parametrize(
    "form", [list, tuple, np.stack, torch.stack, lambda rows: [row.tolist() for row in rows]]
)
@pytest.mark.parametrize(
    "row", [torch.Tensor.numpy, torch.Tensor.double, torch.Tensor.half, torch.Tensor.char]
)
def test_embeddings_come_in_any_form(form: Callable[..., Any], row: Callable[[Tensor], Any]) -> None:
    rows = [row(10 * face.mean(dim=(1, 2))) for face in faces(3)]
    if form is np.stack:
        rows = [np.asarray(one) for one in rows]
    if form is torch.stack:
        rows = [torch.as_tensor(one) for one in rows]
    embedding = Recognizer.from_callable(lambda images: form(rows)[: len(images)], input_size=SIZE)
    expected = torch.stack([torch.as_tensor(one).float() for one in rows])
    found = embedding.embed(faces(3))
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1), atol=1e-3, rtol=0)


def test_a_gradient_is_refused_in_words(embedding: Recognizer) -> None:
    with pytest.raises(InputError, match="no gradient"):
        embedding(faces(1).requires_grad_())


class ThroughArrays(nn.Module):
    """A network of torch in which another framework computes in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(mean_colours(self.conv(images)))


def test_networks_that_leave_torch_give_no_gradient() -> None:
    torch.manual_seed(0)  # with some weights its self-test warns that faces are all alike
    network = ThroughArrays().requires_grad_(False)
    recognizer = Recognizer(network, input_size=SIZE, threshold=0)
    assert recognizer.gives == "embeddings"
    assert folded_recognizer(recognizer) is recognizer
    assert safely_folded(network, faces(2)) is network
    assert recognizer.embed(faces(2)).shape == (2, 12)


def test_networks_of_torch_give_one() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 10, 4))
    assert Recognizer(network, input_size=SIZE).gives == "gradient"
    assert Recognizer(network.requires_grad_(False), input_size=SIZE).gives == "gradient"
    with torch.inference_mode():
        assert Recognizer(network, input_size=SIZE).gives == "gradient"


@pytest.mark.parametrize("taken", ["images.numpy()", "numpy.asarray(images)", "images.detach().numpy()"])
def test_tracing_an_onnx_network_does_not_end_the_process(taken: str, tmp_path: Path) -> None:
    """A session that is given what stands for a tensor reads memory that is not its own."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    file = tmp_path / "net.onnx"
    Recognizer(nn.Sequential(nn.Flatten(), nn.Linear(360, 4)), input_size=SIZE).to_onnx(file)
    program = f"""
import numpy, onnxruntime, torch
from xfr_plugin.recognition.folding import fold_batchnorm
session = onnxruntime.InferenceSession({str(file)!r}, providers=["CPUExecutionProvider"])
class Inside(torch.nn.Module):
    def forward(self, images):
        return torch.from_numpy(session.run(None, {{"images": {taken}}})[0])
network = Inside().eval()
assert fold_batchnorm(network) is network
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_copies_share_the_function(embedding: Recognizer) -> None:
    again = copy.deepcopy(embedding)
    torch.testing.assert_close(again.embed(faces(2)), embedding.embed(faces(2)))
    again = pickle.loads(pickle.dumps(embedding))
    torch.testing.assert_close(again.embed(faces(2)), embedding.embed(faces(2)))


def test_fingerprints_tell_functions_apart_by_name(embedding: Recognizer) -> None:
    other = Recognizer.from_callable(mean_colours, input_size=SIZE, threshold=0.5, name="another version")
    assert fingerprint(embedding) == fingerprint(copy.deepcopy(embedding))
    assert fingerprint(embedding) != fingerprint(other)


def test_every_method_serves_a_kind_or_says_which_do(embedding: Recognizer, scoring: Recognizer) -> None:
    for recognizer in (embedding, scoring):
        serving = [method for method in METHODS.values() if method.serves(recognizer)]
        assert default_method(recognizer) in {method.name for method in serving}
        for method in METHODS.values():
            if method.fits(recognizer.gives):
                continue
            with pytest.raises(
                InputError, match=f"{method.name} needs .* gives .* use one of .*leave_one_out"
            ):
                method.build(recognizer, 0.5)


def test_black_boxes_are_not_traced(embedding: Recognizer) -> None:
    network = nn.Sequential(embedding.network).eval()
    assert fold_batchnorm(network) is network
