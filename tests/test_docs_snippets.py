"""The Python snippets of README and docs run, page by page, each after the ones above it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from xfr_plugin.attr import METHODS
from xfr_plugin.cli.demonstration import mirrored_and_darkened
from xfr_plugin.errors import FaceWarning

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
        warnings.simplefilter("ignore", FaceWarning)  # the cascade sees a second face in the photograph
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
        warnings.simplefilter("ignore", FaceWarning)  # the cascade sees a second face in the photograph
        space = run("README.md", given)
    assert "forehead" in capsys.readouterr().out
    assert Path("result/explanation.png").is_file()
    assert space["probe_map"].shape == probe.shape


@pytest.mark.usefixtures("photographs")
def test_faithfulness_page() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # the cascade sees a second face in the photograph
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
    """The snippets of its first section; what follows wants scores of the reader's."""
    from xfr_plugin import explain

    space: dict[str, Any] = {}
    exec(snippets("docs/recognizers.md")[0][1], space)
    made = [space[name] for name in ("recognizer", "black_box", "remote")]
    assert [recognizer.gives for recognizer in made] == ["gradient", "embeddings", "scores"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained networks take all faces for one
        for recognizer in made[1:]:
            explanation = explain(
                "a.jpg", "b.jpg", recognizer=recognizer, method="mery_avg", options={"stride": 28}
            )
            assert explanation.probe.saliency.shape == (112, 112)
