"""The TorchServe handler, with TorchServe's own context: statuses by item, metrics, self-test."""

from __future__ import annotations

import importlib.util
import inspect
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.serving_faces import crops

from xfr_plugin.service import confinement

pytest.importorskip("ts", reason="TorchServe is not installed")

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
    made.initialize(context(tmp_path_factory.mktemp("model")))
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
