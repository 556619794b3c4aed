"""Forward passes by other runtimes, and files that they run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.recognition import Recognizer, backends, calibrate, load_recognizer
from xfr_plugin.recognition.backends import PAYS
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.self_test import faces_of_nobody

pytest.importorskip("onnx", reason="onnx is not installed")

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture
def small(recognizer: Recognizer) -> Recognizer:
    """The small recognizer in float32."""
    return recognizer.float()


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    pytest.importorskip(name)
    monkeypatch.setattr(backends, "runtimes", lambda: (name,))
    return name


def images(count: int, size: tuple[int, int] = (24, 20)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_embeddings_are_those_of_torch(small: Recognizer, runtime: str, count: int) -> None:
    fast = small.for_forward_passes(PAYS)
    assert fast is not small
    assert runtime[:4] in type(fast.network).__name__.lower() or runtime == "openvino"
    given = images(count)
    torch.testing.assert_close(fast.embed(given), small.embed(given), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        fast.embed(given.contiguous(memory_format=torch.channels_last)), small.embed(given), atol=1e-5, rtol=0
    )


def test_few_passes_do_not_pay_for_an_export(small: Recognizer, runtime: str) -> None:
    assert small.for_forward_passes(PAYS - 1) is small
    assert small.for_forward_passes(PAYS) is not small
    assert small.for_forward_passes(1) is not small  # what is made is used


def other_weights(network: nn.Module) -> None:
    with torch.no_grad():
        network.fc.weight.mul_(torch.linspace(0.5, 2, 6)[:, None])


def written_through_data(network: nn.Module) -> None:
    network.fc.weight.data.mul_(torch.linspace(0.5, 2, 6)[:, None])


def other_statistics(network: nn.Module) -> None:
    network.bn1.running_mean += 1


@pytest.mark.parametrize("change", [other_weights, written_through_data, other_statistics])
def test_changed_weights_are_noticed(
    small: Recognizer, runtime: str, change: Callable[[nn.Module], None]
) -> None:
    before = small.for_forward_passes(PAYS).embed(images(2))
    change(small.network)
    assert small.for_forward_passes(1) is small
    after = small.for_forward_passes(PAYS).embed(images(2))
    torch.testing.assert_close(after, small.embed(images(2)), atol=1e-5, rtol=0)
    assert not torch.allclose(after, before, atol=1e-3)


def test_hooks_training_and_double_precision_are_left_to_torch(recognizer: Recognizer, runtime: str) -> None:
    assert recognizer.for_forward_passes(PAYS) is recognizer  # float64
    small = recognizer.float()
    called: list[None] = []
    handle = small.network.conv1.register_forward_hook(lambda *_: called.append(None))
    small.for_forward_passes(PAYS).embed(images(1))
    assert called
    handle.remove()
    small.network.train()
    assert small.for_forward_passes(PAYS) is small
    small.network.eval()
    assert small.for_forward_passes(PAYS) is not small


class TellsTrainingOfExport(nn.Module):
    """A constant is baked in where values of images become numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1440, 6)

    def forward(self, faces: Tensor) -> Tensor:
        weight = float(faces.mean().detach())
        embedding: Tensor = self.fc(faces.flatten(1)) + torch.linspace(-1, 1, 6) * weight
        return embedding


def test_an_export_that_computes_something_else_is_not_used(runtime: str) -> None:
    torch.manual_seed(0)
    recognizer = Recognizer(TellsTrainingOfExport(), input_size=(24, 20), threshold=0)
    assert recognizer.for_forward_passes(PAYS) is recognizer


def test_threads_share_one_export(small: Recognizer, runtime: str) -> None:
    expected = small.embed(images(4))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fast_recognizer(small).embed(images(4)), range(12)))
    for units in found:
        torch.testing.assert_close(units, expected, atol=1e-5, rtol=0)


def test_copies_make_their_own(small: Recognizer, runtime: str) -> None:
    small.for_forward_passes(PAYS)
    again = copy.deepcopy(small)
    other_weights(again.network)
    torch.testing.assert_close(
        again.for_forward_passes(PAYS).embed(images(3)), again.embed(images(3)), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        small.for_forward_passes(PAYS).embed(images(3)), small.embed(images(3)), atol=1e-5, rtol=0
    )


def test_a_written_file_is_the_recognizer(small: Recognizer, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    calibration = calibrate([0.5, 0.6, 0.7] * 400, [0.0, 0.1, 0.2] * 400, "toy")
    given = Recognizer(
        small.network, input_size=(24, 20), mean=0.4, std=0.3, calibration=calibration, name="own"
    )
    file = tmp_path / "own.onnx"
    given.to_onnx(file)
    found = load_recognizer(file)
    assert (found.gives, found.name, found.contract) == ("embeddings", "own", given.contract)
    assert found.threshold == given.threshold
    given.with_threshold(0.45).to_onnx(tmp_path / "stricter.onnx")
    assert load_recognizer(tmp_path / "stricter.onnx").threshold == 0.45
    torch.testing.assert_close(found.embed(images(5)), given.embed(images(5)), atol=1e-5, rtol=0)
    assert load_recognizer(file, threshold=0.25).threshold == 0.25
    assert fingerprint(found) == fingerprint(pickle.loads(pickle.dumps(found)))
    with pytest.raises(InputError, match="no network of torch"):
        found.to_onnx(tmp_path / "again.onnx")


def test_a_converted_file_has_a_gradient(small: Recognizer, tmp_path: Path) -> None:
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    file = tmp_path / "own.onnx"
    given = Recognizer(small.network, input_size=(24, 20), mean=0.4, std=0.3, threshold=0.2, name="own")
    given.to_onnx(file)
    converted = Recognizer.from_onnx(file, gradients=True)
    assert (converted.gives, converted.name, converted.threshold) == ("gradient", "own", 0.2)
    assert converted.contract == given.contract == Recognizer.from_onnx(file).contract
    probe = images(1).requires_grad_()
    converted(probe)[0, 0].backward()
    own = images(1).requires_grad_()
    given(own)[0, 0].backward()
    torch.testing.assert_close(probe.grad, own.grad, atol=1e-5, rtol=1e-3)


def test_files_for_one_image_take_many(small: Recognizer, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    file = tmp_path / "one.onnx"
    small.to_onnx(file)
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, file)
    found = load_recognizer(file)
    torch.testing.assert_close(found.embed(images(5)), small.embed(images(5)), atol=1e-5, rtol=0)


def test_files_that_cannot_be_read_are_errors_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("openvino", reason="openvino is not installed")
    for name in ("x.onnx", "x.xml", "y.onnx"):
        if name != "y.onnx":
            (tmp_path / name).write_bytes(b"no model")
        (tmp_path / "x.bin").write_bytes(b"")
        with pytest.raises(WeightsError):
            load_recognizer(tmp_path / name)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["xfr_compact128", "mobilefacenet_ms1m", "faceid_plain"])
def test_real_recognizers_by_every_runtime(name: str, runtime: str, tmp_path: Path) -> None:
    recognizer = load_recognizer(name)
    fast = recognizer.for_forward_passes(PAYS)
    assert fast is not recognizer
    faces = faces_of_nobody(recognizer.input_size)
    torch.testing.assert_close(fast.embed(faces), recognizer.embed(faces), atol=1e-5, rtol=0)
    file = tmp_path / f"{name}.onnx"
    recognizer.to_onnx(file)
    torch.testing.assert_close(load_recognizer(file).embed(faces), recognizer.embed(faces), atol=1e-5, rtol=0)


@pytest.mark.real_data
def test_the_real_openvino_file_tells_people_apart(xfr_data: Path) -> None:
    """Of `pairsDevTest.txt`; the card's settings are found by the name of the file."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    from xfr_plugin.evaluation.pairs import read_pair_list
    from xfr_plugin.faces.folder import FaceFolder

    found = load_recognizer(xfr_data / "weights/openvino/face-reidentification-retail-0095.xml")
    assert found.contract.description.startswith("128×128 BGR, 0…255")
    pairs = read_pair_list(xfr_data / "faces/pairsDevTest.txt").pairs
    some = [pair for pair in pairs if "Betsy_Coffin" not in pair.probe + pair.reference][::20]
    folder = FaceFolder(xfr_data / "faces", found.input_size)
    sides = [
        found.embed(torch.stack([folder.pixels(getattr(pair, side)) / 255 for pair in some]))
        for side in ("probe", "reference")
    ]
    scores, genuine = found.compare(*sides).numpy(), np.array([pair.genuine for pair in some])
    assert np.mean((scores > 0.35) == genuine) > 0.95
    assert found.embed(images(2, (128, 128))).shape == (2, 256)
