"""Recognizers that people have: each card is true of a network of its layout, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.lrp_layouts import LAYOUTS
from helpers.transformers import timm_network
from torch import Tensor, nn

from xfr_plugin.attr import METHODS
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.errors import LayoutError, WeightsError
from xfr_plugin.recognition import Recognizer, build_network, load_recognizer, loading
from xfr_plugin.recognition.export import exported
from xfr_plugin.recognition.networks import IResNet
from xfr_plugin.recognition.published import PublishedCard, contract_of_file, published_cards

CARDS = {card.name.split()[0] + " " + card.files[0]: card for card in published_cards()}


class WithNorm(nn.Module):
    """As AdaFace's networks: the unit embedding, and its length."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(images)
        norm = torch.norm(output, 2, 1, True)
        return torch.div(output, norm), norm


def flat(card: PublishedCard) -> nn.Module:
    """A small network of the card's input and output."""
    height, width = (side // 8 for side in card.input_size)
    layers = (nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * height * width, card.embedding), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(card.embedding, card.embedding)).eval()


def file_for(card: PublishedCard, folder: Path) -> Path:
    """A model file with random weights under a name of the card's."""
    pattern = next(name for name in card.files if name.endswith((".onnx", ".xml")))
    path = folder / pattern.replace("*", "x")
    model = exported(flat(card), torch.rand(2, 3, *card.input_size))
    if path.suffix == ".onnx":
        path.write_bytes(model)
        return path
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    openvino.save_model(openvino.Core().read_model(model), path)
    return path


def arcface_torch(folder: Path) -> Recognizer:
    """A checkpoint of data-parallel training, under the name that its source gives it."""
    path = folder / "ms1mv3_arcface_r18.pth"
    torch.save(
        {f"module.{key}": value for key, value in build_network("iresnet18").state_dict().items()}, path
    )
    return load_recognizer(path)


def dlib(folder: Path) -> Recognizer:
    """Which takes 8-bit chips and gives lists."""

    def chips(faces: Tensor) -> list[list[float]]:
        pixels = (255 * faces).round().byte().permute(0, 2, 3, 1).numpy()
        return [pixel[::15, ::15].astype(float).reshape(-1)[:128].tolist() for pixel in pixels]

    return Recognizer.from_callable(chips, input_size=(150, 150), name="dlib")


BUILT: dict[str, Callable[[Path], Recognizer]] = {
    "arcface_torch": arcface_torch,
    "AdaFace": lambda _: Recognizer(WithNorm(IResNet((1, 1, 1, 1))), channel_order="BGR"),
    "EdgeFace": lambda _: Recognizer(timm_network("edgenext_xx_small")),
    "facenet-pytorch": lambda _: Recognizer(
        LAYOUTS["inception_resnet"](), input_size=(160, 160), mean=0.5, std=128 / 255
    ),
    "dlib": dlib,
    "CVLFace": lambda _: Recognizer(timm_network("vit_tiny_patch16_224", img_size=112, depth=1)),
}
"""Those that are no files which we run, as `use` says."""


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_true_of_a_network_of_its_layout(name: str, tmp_path: Path) -> None:
    card = CARDS[name]
    torch.manual_seed(0)
    own = BUILT.get(name.split()[0])
    if own is None:
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package, reason=f"{package} is not installed")
        recognizer = load_recognizer(file_for(card, tmp_path))
        assert recognizer.embed(torch.rand(3, 3, *card.input_size)).shape == (3, card.embedding)
        assert recognizer.provenance.source.endswith(card.source)
    else:
        recognizer = own(tmp_path)
    if name.split()[0] != "dlib":  # which normalises by itself
        assert recognizer.contract.description == card.description
    method = "xssab" if recognizer.gives == "gradient" else "mery_avg"
    probe, reference = torch.rand(2, 1, 3, *card.input_size)
    options = METHODS[method].trial_options
    maps = METHODS[method].build(recognizer, 0.1, **options).attribute((probe, reference))
    assert all(side.isfinite().all() and side.any() for side in maps)


def test_a_checksum_tells_the_published_file_from_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    card = next(card for card in published_cards() if "w600k_r50.onnx" in card.files)
    assert card.sha256
    assert all(len(digest) == 64 for known in published_cards() for digest in known.sha256)
    path = file_for(card, tmp_path)
    digest = sha256_of(path)
    assert load_recognizer(path).provenance.source == f"by its name: {card.source}"
    monkeypatch.setattr(loading, "contract_of_file", lambda _: card.model_copy(update={"sha256": (digest,)}))
    found = load_recognizer(path).provenance
    assert (found.source, found.licence, found.sha256) == (card.source, card.licence, digest)


@pytest.mark.parametrize(
    "file", ["adaface_ir50_ms1mv2.ckpt", "edgeface_s_gamma_05.pt", "20180402-114759-vggface2.pt"]
)
def test_weights_of_networks_that_we_do_not_build_say_how_to_use_them(file: str, tmp_path: Path) -> None:
    """With the beginnings of keys that their authors save them with."""
    state = {"state_dict": {f"model.{key}": value for key, value in LAYOUTS["ir_se"]().state_dict().items()}}
    torch.save(state, tmp_path / file)
    card = contract_of_file(Path(file))
    assert card is not None
    with pytest.raises(LayoutError, match="fit none of our architectures") as caught:
        load_recognizer(tmp_path / file)
    assert card.use in str(caught.value)


def test_dlibs_file_says_how_to_use_it(tmp_path: Path) -> None:
    (tmp_path / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(b"dlib")
    with pytest.raises(WeightsError, match=r"Recognizer\.from_callable"):
        load_recognizer(tmp_path / "dlib_face_recognition_resnet_model_v1.dat")
