"""The TorchServe handler, with TorchServe's own context: statuses by item, metrics, self-test."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from helpers.own_recognizers import KINDS, forget, own_deployment
from helpers.serving_faces import crops
from PIL import Image

import xfr_plugin.recognition.zoo
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.fingerprint import fingerprint
from xfr_plugin.service import Deployment, confinement
from xfr_plugin.service.slow_lane import SlowLane

pytest.importorskip("ts", reason="TorchServe is not installed")

from xfr_plugin.torchserve import ArchivePlan
from xfr_plugin.torchserve.archive import build_archive, stage
from xfr_plugin.torchserve.recognizers import runtime_of
from xfr_plugin.torchserve.vendoring import needed_packages

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports whatever accelerator is installed, and some of them warn
    from ts.context import Context, RequestProcessor
    from ts.torch_handler.base_handler import BaseHandler
    from ts.utils.util import list_classes_from_module

ROOT = Path(__file__).parents[2]


class Metrics:
    """Takes note of what is added, with the signature of TorchServe's cache."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, str]] = []

    def add_counter(self, name: str, value: float, idx: Any = None, dimensions: Any = ()) -> None:
        self.seen.append((name, value, str(dimensions[0])))

    def add_time(
        self, name: str, value: float, idx: Any = None, unit: str = "ms", dimensions: Any = ()
    ) -> None:
        assert unit in ("ms", "s")
        self.seen.append((name, value, str(dimensions[0])))


@pytest.fixture(autouse=True, scope="module")
def confined() -> Iterator[list[Any]]:
    """A handler confines the process that it is in. Here it takes note instead: other tests run in this one, too."""
    noted: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confinement, "confine", noted.append)
        patch.setattr(confinement, "allow_batch", noted.append)
        yield noted


@pytest.fixture(scope="module")
def module() -> ModuleType:
    path = ROOT / "handlers" / "xfr_handler.py"
    spec = importlib.util.spec_from_file_location("xfr_handler", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def context(tmp_path: Path, **settings: Any) -> Context:
    manifest = {"model": {"modelName": "xfr"}}
    made = Context("xfr", str(tmp_path), manifest, 8, None, "0.12.0", True, Metrics(), {"handler": settings})
    return made


@pytest.fixture(scope="module")
def handler(module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = module.XfrHandler()
    made.initialize(context(tmp_path_factory.mktemp("model"), limits={"deadline_ms": None}))
    return made


def test_it_confines_its_process(handler: Any, confined: list[Any]) -> None:
    assert confined


def test_the_module_defines_one_class(module: ModuleType) -> None:
    """TorchServe refuses a handler with more."""
    (found,) = list_classes_from_module(module)
    assert issubclass(found, BaseHandler)
    assert len(inspect.getsource(module).splitlines()) < 80


def test_each_item_has_its_own_endpoint_status_and_body(handler: Any, tmp_path: Path) -> None:
    made = context(tmp_path)
    items: list[dict[str, Any]] = [
        {"probe": bytearray(crops()[0]), "reference": bytearray(crops()[1])},
        {"probe": bytearray(b"no image"), "reference": bytearray(crops()[1])},
        {"body": bytearray(json.dumps({"probe": "x"}).encode())},
        {"probe": bytearray(crops()[2]), "reference": bytearray(crops()[3])},
    ]
    endpoints = ["False", "True", "False", "True"]
    made.request_processor = [RequestProcessor({"explain": endpoint}) for endpoint in endpoints]
    made.request_ids = {index: str(index) for index in range(4)}
    bodies = [json.loads(body) for body in handler.handle(items, made)]
    assert [made.get_response_status(index)[0] for index in range(4)] == [200, 415, 400, 200]
    assert [made.get_response_content_type(index) for index in range(4)] == ["application/json"] * 4
    assert bodies[0]["explanation"] is None
    assert bodies[3]["explanation"]["method"] == "leave_one_out"
    assert [bodies[1]["code"], bodies[2]["code"]] == ["not_an_image", "malformed"]
    assert bodies[0]["batch_size"] == bodies[3]["batch_size"] == 3  # the malformed one never came so far
    seen = {(name, kind) for name, _, kind in made.metrics.seen}
    assert ("XfrBatches", "Kind:4") in seen
    assert ("XfrErrors", "Kind:not_an_image") in seen
    assert ("XfrExplanations", "Kind:leave_one_out") in seen
    assert ("XfrStageTime", "Kind:embed") in seen


def test_one_worker_is_kept_free_of_what_is_slow(handler: Any, tmp_path: Path) -> None:
    """While another worker is slow, this one says so instead of being slow too; afterwards it answers."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 4000)).save(buffer, "PNG")
    large = {
        "probe": bytearray(buffer.getvalue()),
        "reference": bytearray(crops()[0]),
        "alignment": b"aligned",
    }

    def status() -> int:
        made = context(tmp_path)
        made.request_processor, made.request_ids = [RequestProcessor({})], {0: "0"}
        handler.handle([large], made)
        return int(made.get_response_status(0)[0])

    other = SlowLane(Path(handler.context.system_properties["model_dir"]), 1)
    with other.batch():
        assert other.enter()
        assert status() == 503
    assert status() == 200


def test_an_untrained_recognizer_never_serves(module: ModuleType, tmp_path: Path) -> None:
    import torch

    from xfr_plugin.recognition import load_recognizer, zoo_card
    from xfr_plugin.recognition.zoo import save_recognizer

    broken = load_recognizer("xfr_compact128")
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.zero_()
    save_recognizer(broken, tmp_path / "recognizer.safetensors", zoo_card("xfr_compact128"))
    made = module.XfrHandler()
    with pytest.raises(RuntimeError, match="the deployment does not work"):
        made.initialize(context(tmp_path, recognizer="recognizer.safetensors"))
    assert not made.initialized


@pytest.mark.parametrize("settings", [{"treshold": 1}, {"recognizer": "nonesuch"}, {"fmr": 1e-9}])
def test_wrong_settings_never_serve(module: ModuleType, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="the deployment does not work"):
        module.XfrHandler().initialize(context(tmp_path, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_a_recognizer_of_ones_own_is_packaged_and_served(
    kind: str, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the archive holds is enough: the user's own files are gone when the handler starts."""
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    deployment = own_deployment(kind, tmp_path / "own")
    archive = build_archive(ArchivePlan(deployment=deployment, vendor=False), tmp_path / "store")
    expected = deployment.threshold or load_recognizer(deployment.recognizer).threshold
    staged = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(staged)
    settings = yaml.safe_load((staged / "model-config.yaml").read_text())["handler"]
    shutil.rmtree(tmp_path / "own")
    forget()
    monkeypatch.syspath_prepend(str(staged))  # as TorchServe does
    answer = asked_with_crops(module, staged, settings)
    assert answer["decision"]["threshold"] == pytest.approx(expected)
    assert answer["explanation"]["method"] == "leave_one_out"


@pytest.mark.real_data
def test_the_real_openvino_file_is_packaged_and_served(
    module: ModuleType, tmp_path: Path, xfr_data: Path
) -> None:
    """Under its own name, by which the archive knows that it takes BGR in 0…255."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    source = xfr_data / "weights" / "openvino" / "face-reidentification-retail-0095.xml"
    deployment = Deployment(recognizer=str(source), threshold=0.35)
    archive = build_archive(ArchivePlan(deployment=deployment, vendor=False), tmp_path / "store")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    settings = yaml.safe_load((tmp_path / "unpacked" / "model-config.yaml").read_text())["handler"]
    answer = asked_with_crops(module, tmp_path / "unpacked", settings)
    assert answer["decision"]["threshold"] == 0.35
    assert answer["versions"]["recognizer_sha256"] == fingerprint(load_recognizer(source))
    assert answer["explanation"]["method"] == "leave_one_out"


def asked_with_crops(module: ModuleType, unpacked: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What a handler that starts on an unpacked archive answers on two crops, with reasons."""
    made = module.XfrHandler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pooled pixels take all faces for one
        made.initialize(context(unpacked, **settings))
    asked = context(unpacked)
    asked.request_processor = [RequestProcessor({"explain": "True"})]
    asked.request_ids = {0: "0"}
    item = {"probe": bytearray(crops()[0]), "reference": bytearray(crops()[1])}
    (body,) = made.handle([item], asked)
    assert asked.get_response_status(0)[0] == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_what_is_installed_is_not_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        xfr_plugin.recognition.zoo, "from_factory", lambda *_: load_recognizer("xfr_compact128")
    )
    with pytest.raises(InputError, match="lies in a folder of yours"):
        stage(
            ArchivePlan(deployment=Deployment(recognizer="pydantic:factory"), vendor=False),
            tmp_path / "staged",
        )


def test_runtimes_of_model_files_are_vendored() -> None:
    assert [runtime_of(name) for name in ("a.onnx", "b.XML", "c.pt", "xfr_compact128")] == [
        ("onnxruntime",),
        ("openvino",),
        (),
        (),
    ]
    assert "onnxruntime" in needed_packages(("onnxruntime",))
