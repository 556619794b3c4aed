"""Settings under which a recognizer would call anyone anyone are found before the first decision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.recognition import Recognizer, RecognizerCard, calibrate, load_recognizer, zoo_card
from xfr_plugin.recognition.self_test import faces_of_nobody

SHIPPED = "xfr_compact128"
REAL = ("mobilefacenet_ms1m", "faceid_plain")


def again(recognizer: Recognizer, **settings: object) -> Recognizer:
    """The same network with other settings."""
    given = {
        "input_size": recognizer.input_size,
        "mean": recognizer.mean.flatten().tolist(),
        "std": recognizer.std.flatten().tolist(),
        "threshold": recognizer.threshold,
    }
    return Recognizer(recognizer.network, **{**given, **settings})


class Expects(nn.Module):
    """A network that wants other pixels than it is given: those of a range whose width is `width`."""

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images / self.width)


@pytest.fixture(scope="module")
def shipped() -> Recognizer:
    return load_recognizer(SHIPPED)


def test_right_settings_pass(shipped: Recognizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = shipped.self_test()
    assert found.most < 0.3
    assert found.same > 0.9999


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_right_settings_pass_with_published_weights(name: str) -> None:
    recognizer = load_recognizer(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recognizer.self_test().least < 0.3
        again(recognizer, channel_order="BGR").self_test()  # cannot be seen: embeddings still differ


@pytest.mark.parametrize(
    "mean", [127.5, (123.7, 116.3, 103.5), -0.5, float("nan"), float("inf"), "half", (1, 2), None]
)
def test_means_that_are_none_of_pixels_in_0_to_1(mean: object) -> None:
    with pytest.raises(InputError, match="mean"):
        Recognizer(nn.Flatten(), mean=mean)


@pytest.mark.parametrize(
    "std", [128, 127.5, (58.4, 57.1, 57.4), 0, -1, float("nan"), float("inf"), [], "1/2"]
)
def test_deviations_that_are_none(std: object) -> None:
    with pytest.raises(InputError, match="std"):
        Recognizer(nn.Flatten(), std=std)


@pytest.mark.parametrize(
    "size", [(0, 4), (112,), (112, 112, 3), (112.5, 112), "ab", 112, (1 << 20, 4), (-1, -1)]
)
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(InputError, match=r"height, width"):
        Recognizer(nn.Flatten(), input_size=size)


@pytest.mark.parametrize("threshold", [1.5, -2, float("nan"), float("inf"), "high", 55])
def test_thresholds_that_are_no_cosine(threshold: object) -> None:
    with pytest.raises(InputError, match="threshold"):
        Recognizer(nn.Flatten(), threshold=threshold)
    with pytest.raises(InputError, match="threshold"):
        load_recognizer(SHIPPED, threshold=threshold)


def test_the_threshold_of_a_calibration_is_checked_too() -> None:
    distances = calibrate([5.0, 6.0] * 500, [1.0, 2.0] * 500, "distances")
    with pytest.raises(InputError, match=r"calibration's threshold .* cosine"):
        Recognizer(nn.Flatten(), calibration=distances)


@pytest.mark.parametrize(
    "settings", [{"mean": 127.5}, {"std": (1, 2, 300)}, {"input_size": (112, 0)}, {"channel_order": "GRB"}]
)
def test_settings_for_published_weights_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        load_recognizer(SHIPPED, **settings)


def test_numbers_of_any_library_will_do() -> None:
    recognizer = Recognizer(
        nn.Flatten(),
        input_size=np.array([4, 4]),
        mean=np.float32(0.5),
        std=torch.tensor([0.5, 0.25, 1]),
        threshold=np.float64(0.3),
    )
    assert recognizer.input_size == (4, 4)
    assert recognizer.std.flatten().tolist() == [0.5, 0.25, 1.0]
    assert recognizer.threshold == 0.3


@pytest.mark.parametrize("width", [255.0, 1000.0])
def test_a_network_to_which_all_faces_are_alike_is_refused(shipped: Recognizer, width: float) -> None:
    """Its pixels should be wider by far; no face is decided on."""
    wrong = Recognizer(Expects(shipped.network, width), mean=0.5, std=0.5, threshold=0.3)
    with pytest.raises(InputError, match="different faces for one person"):
        wrong.embed(torch.rand(2, 3, 112, 112))


def test_the_message_names_settings_with_which_faces_differ(shipped: Recognizer) -> None:
    wrong = Recognizer(Expects(shipped.network, 127.5), mean=0.5, std=1.0, threshold=0.3)
    with pytest.raises(InputError, match=r"with mean=0\.5, std=0\.003922"):
        wrong.embed(torch.rand(1, 3, 112, 112))


@pytest.mark.parametrize(
    "settings", [{"mean": 0.0, "std": 1 / 255}, {"input_size": (224, 224)}, {"input_size": (160, 160)}]
)
def test_implausible_settings_are_said_aloud(shipped: Recognizer, settings: dict[str, object]) -> None:
    recognizer = again(shipped, **settings)
    images = torch.rand(1, 3, *recognizer.input_size)
    with pytest.warns(UserWarning, match="eight different faces for one person at its threshold.*with "):
        recognizer.embed(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recognizer.embed(images)  # once is enough


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) + torch.randn(images.flatten(1).shape)


class AmongOthers(nn.Module):
    """Statistics of the batch even in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(48, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return flat - flat.mean(0) * (len(flat) > 1)


@pytest.mark.parametrize(
    "network", [Noisy(), AmongOthers(), nn.Sequential(nn.Flatten(), nn.RReLU(-9, 9), Noisy())]
)
def test_embeddings_that_depend_on_chance_or_on_other_faces(network: nn.Module) -> None:
    recognizer = Recognizer(network, input_size=(4, 4), threshold=0.5)
    with pytest.raises(InputError, match="depend on chance or on the rest of the batch"):
        recognizer.embed(torch.rand(1, 3, 4, 4))


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.factor


@pytest.mark.parametrize(
    ("factor", "words"),
    [(0.0, "zero"), (float("nan"), "not a number"), (float("inf"), "not a number"), (1e-30, "zero")],
)
def test_embeddings_without_a_direction_are_no_score(factor: float, words: str) -> None:
    for threshold in (None, 0.3):
        recognizer = Recognizer(Times(factor), input_size=(4, 4), threshold=threshold)
        with pytest.raises(InputError, match=words):
            recognizer.embed(torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.full((1, 3, 4, 4), 128.0), "divide by 255"),
        (torch.full((1, 3, 4, 4), 128, dtype=torch.uint8), "divide by 255"),
        (torch.full((1, 3, 4, 4), -1.0), "before mean and std"),
        (torch.full((1, 3, 4, 4), float("nan")), "0…1"),
    ],
)
def test_pixels_of_another_range_are_refused(images: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Recognizer(nn.Flatten(), input_size=(4, 4)).embed(images)


@pytest.mark.parametrize("size", [(56, 56), (10, 10), (2, 2)])
def test_sizes_that_the_network_cannot_take(shipped: Recognizer, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="check input_size"):
        again(shipped, input_size=size).embed(torch.rand(1, 3, *size))


def test_functions_that_fail_are_named_with_the_size_that_they_were_given() -> None:
    def embed(faces: Tensor) -> np.ndarray:
        return faces.numpy().reshape(len(faces), 160 * 160 * 3)

    recognizer = Recognizer.from_callable(embed, threshold=0.3)
    with pytest.raises(
        InputError, match=r"embed cannot embed faces of 112×112 pixels: ValueError.*check input_size"
    ):
        recognizer.embed(torch.rand(1, 3, 112, 112))


def test_hooks_of_others_see_their_own_faces_alone(shipped: Recognizer) -> None:
    fresh, seen = again(shipped), []
    handle = fresh.network.register_forward_hook(lambda _module, given, _output: seen.append(len(given[0])))
    fresh.embed(torch.rand(3, 3, 112, 112))
    handle.remove()
    assert seen == [3]
    assert fresh.tested


@pytest.mark.parametrize("size", [(112, 112), (160, 120), (20, 31)])
def test_faces_of_nobody_fit_any_size(size: Sequence[int]) -> None:
    faces = faces_of_nobody(size)
    assert faces.shape == (8, 3, *size)
    assert 0 <= float(faces.min()) < float(faces.max()) <= 1


def test_the_contract_is_shown(shipped: Recognizer) -> None:
    assert shipped.contract.description == zoo_card(SHIPPED).description
    assert zoo_card("mobilefacenet_ms1m").description == "112×112 RGB, -2.118…2.64, ArcFace template"
    assert RecognizerCard(name="x", architecture="faceid", channel_order="BGR").value_range == (-1, 1)


@pytest.mark.parametrize("card", [{"mean": [127.5] * 3}, {"std": [0, 1, 1]}, {"input_size": [0, 2]}])
def test_cards_in_files_are_checked(card: dict[str, object], tmp_path, shipped: Recognizer) -> None:
    from xfr_plugin.base.weights import write_weights

    document = {**zoo_card(SHIPPED).model_dump(mode="json", exclude={"weights"}), **card}
    write_weights(tmp_path / "x.safetensors", shipped.network.state_dict(), {"recognizer": document})
    with pytest.raises(WeightsError, match="damaged card"):
        load_recognizer(tmp_path / "x.safetensors")
