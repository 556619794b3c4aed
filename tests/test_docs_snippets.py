"""The Python snippets of README and docs run, page by page, each after the ones above it."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import nn

from xfr_plugin import explain
from xfr_plugin.attr import METHODS
from xfr_plugin.cli.demonstration import mirrored_and_darkened
from xfr_plugin.errors import FaceWarning
from xfr_plugin.recognition import Recognizer

ROOT = Path(__file__).parents[1]


def snippets(page: str) -> list[tuple[int, str]]:
    """Line number and text of every Python snippet of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (text[: match.start(1)].count("\n") + 1, match.group(1))
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


def run(page: str, namespace: dict[str, Any]) -> dict[str, Any]:
    found = snippets(page)
    assert found
    for line, snippet in found:
        code = compile("\n" * (line - 1) + snippet, page, "exec")  # errors name the page's own line
        exec(code, namespace)
    return namespace


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two photographs that the snippets name."""
    photo = data.astronaut()
    Image.fromarray(photo).save(tmp_path / "a.jpg")
    Image.fromarray(mirrored_and_darkened(photo, None)).save(tmp_path / "b.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("photographs")
def test_captum_page() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # a second face is seen in the photograph
        for message in ("Setting backward hooks", "Input Tensor"):  # what Captum tells its users each time
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        space = run("docs/captum.md", {})
    assert space["probe_map"].shape == space["smooth"].shape == (1, 3, 112, 112)
    assert torch.isfinite(space["worse"]).all()
    assert torch.isfinite(space["unstable"]).all()
    assert space["gradients"].shape == (1, 16, 3, 112, 112)
    assert space["channel_maps"].shape == (2, 3, 112, 112)
    assert space["coarse"].ndim == 4
    assert all(bool(side.abs().sum() > 0) for side in space["maps"])


@pytest.mark.usefixtures("photographs")
def test_readme(capsys: pytest.CaptureFixture[str]) -> None:
    """With a network, images and embeddings of the reader's own, as the page supposes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(784, 16))
    probe, reference = torch.rand(2, 1, 3, 112, 112)
    given = {"my_network": network, "probe": probe, "reference": reference, "embedding": torch.randn(1, 16)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # a second face is seen in the photograph
        space = run("README.md", given)
    assert "forehead" in capsys.readouterr().out
    assert Path("result/explanation.png").is_file()
    assert space["probe_map"].shape == probe.shape


@pytest.mark.usefixtures("photographs")
def test_faithfulness_page() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # a second face is seen in the photograph
        space = run("docs/faithfulness.md", {})
    assert space["row"] in space["explanation"].faithfulness.rows


def test_every_page_compiles() -> None:
    for page in (ROOT / "docs").glob("**/*.md"):
        for line, snippet in snippets(str(page.relative_to(ROOT))):
            compile("\n" * (line - 1) + snippet, str(page), "exec")


def test_conformance_table_is_of_the_methods() -> None:
    """None fails there, or is called what it is not; one that is new may wait for the release (`make tables`)."""
    text = (ROOT / "docs" / "captum.md").read_text(encoding="utf-8")
    table = text[text.index("writes from here") :]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))
    known = {name: method.cls.__name__ for name, method in METHODS.items()}
    assert rows.items() <= {**known, "ReconstructionExplainer": "ReconstructionExplainer"}.items()
    assert rows.keys() >= {"amortised", "fggb", "lrp", "occlusion"}
    assert "fails" not in table


@pytest.mark.usefixtures("photographs")
def test_recognizers_page_makes_recognizers_that_explain() -> None:
    """The snippets of its first section."""
    space: dict[str, Any] = {}
    exec(snippets("docs/recognizers.md")[0][1], space)
    made = [space[name] for name in ("recognizer", "black_box", "remote")]
    assert [recognizer.gives for recognizer in made] == ["gradient", "embeddings", "scores"]
    for recognizer in made[1:]:
        explained_without_gradient(recognizer)


def explained_without_gradient(recognizer: Recognizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained networks take all faces for one
        explanation = explain(
            "a.jpg", "b.jpg", recognizer=recognizer, method="mery_avg", options={"stride": 28}
        )
    assert explanation.probe.saliency.shape == (112, 112)


def snippet_with(words: str) -> str:
    (found,) = [text for _, text in snippets("docs/recognizers.md") if words in text]
    return found


@pytest.mark.usefixtures("photographs")
def test_recognizers_page_makes_files_that_are_the_recognizer() -> None:
    for package in ("onnx", "onnxruntime", "onnx2torch"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    space: dict[str, Any] = {}
    exec(snippets("docs/recognizers.md")[0][1], space)
    exec(snippet_with("to_onnx"), space)
    assert (space["black_box"].gives, space["with_gradient"].gives) == ("embeddings", "gradient")
    faces = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    expected = space["recognizer"](faces)
    for name in ("black_box", "with_gradient"):
        with torch.no_grad():
            torch.testing.assert_close(space[name](faces), expected, atol=1e-5, rtol=0)
    explained_without_gradient(space["black_box"])
    pytest.importorskip("openvino", reason="openvino is not installed")
    exec(snippet_with("openvino"), space)
    assert space["by_openvino"].gives == "embeddings"
    torch.testing.assert_close(space["by_openvino"].embed(faces), expected.detach(), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("photographs")
def test_recognizers_page_takes_a_transformer_of_huggingface() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    space: dict[str, Any] = {"Recognizer": Recognizer}
    exec(snippet_with("transformers"), space)
    recognizer = space["by_transformer"]
    assert recognizer.gives == "gradient"
    assert recognizer.features(torch.rand(2, 3, 112, 112)).shape == (2, 96)
    recognizer.tested = True  # which random weights would fail
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)
        explanation = explain("a.jpg", "b.jpg", recognizer=recognizer, method="lrp")
    assert np.abs(explanation.probe.saliency).sum() > 0


def test_recognizers_page_calibrates() -> None:
    rng = np.random.default_rng(0)
    space = {"genuine_scores": rng.normal(0.6, 0.1, 2000), "impostor_scores": rng.normal(0, 0.1, 2000)}
    exec(snippet_with("calibrate("), space)
    assert space["calibration"].nominal_fmr == (1e-2, 1e-3)


class Represents:
    """deepface's `represent`, by its signature: an array H×W×3, BGR in 0…255, to a list of a dictionary."""

    @staticmethod
    def represent(
        img_path: NDArray[np.uint8], model_name: str = "VGG-Face", detector_backend: str = "opencv"
    ) -> list[dict[str, Any]]:
        assert (img_path.dtype, img_path.ndim, img_path.max() > 1) == (np.uint8, 3, True)
        assert (model_name, detector_backend) == ("ArcFace", "skip")
        rows = embedding_of(img_path)
        return [{"embedding": rows.tolist(), "facial_area": {}, "face_confidence": 0}]


class Analyses:
    """InsightFace's `FaceAnalysis`, whose recognition model embeds a list of BGR crops."""

    def __init__(self, name: str, allowed_modules: list[str]) -> None:
        assert {"detection", "recognition"} <= set(allowed_modules)  # it refuses to be without the first
        self.models = {"recognition": self}

    def get_feat(self, imgs: list[NDArray[Any]]) -> NDArray[Any]:
        return np.stack([embedding_of(image) for image in imgs])


def embedding_of(bgr: NDArray[Any]) -> NDArray[Any]:
    return bgr[::16, ::16].reshape(-1).astype(float) - 100


def test_the_bridges_of_the_recognizers_page_give_what_others_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (
        ("deepface", {"DeepFace": Represents}),
        ("insightface", {}),
        ("insightface.app", {"FaceAnalysis": Analyses}),
    ):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    space: dict[str, Any] = {"Recognizer": Recognizer}
    bridges = [
        text for _, text in snippets("docs/recognizers.md") if "deepface" in text or "insightface" in text
    ]
    for text in bridges:
        exec(text, space)
    faces = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    pixels = (255 * faces).round().permute(0, 2, 3, 1).numpy()[..., ::-1]
    expected = torch.tensor(np.stack([embedding_of(image) for image in pixels])).float()
    for name in ("by_deepface", "by_insightface"):
        space[name].tested = True  # which a stub would fail
        found = space[name].embed(faces)
        torch.testing.assert_close(found, nn.functional.normalize(expected, dim=1), atol=1e-3, rtol=0)
    assert space["by_deepface"].threshold == pytest.approx(0.32)
