"""Every method on every architecture that people bring: it works, or there is one clear error.

`python -m pytest` holds the table of `docs/recognizers.md` against it; run as a program, this file prints the table,
or the rows that are named.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.transformers import ARCHITECTURES, SIZE, SmallViT, made
from torch import Tensor, nn

from xfr_plugin.attr import METHODS, GradCam
from xfr_plugin.attr._base.layers import Tokens, find_layer
from xfr_plugin.errors import InputError, XfrError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.self_test import faces_of_nobody

PAGE = Path(__file__).parents[2] / "docs" / "recognizers.md"
WORKS = "yes"
_NO_RULES = {
    "ebp": "excitation_backprop_face has no rule for attention and layer normalisation",
    "deeplift": "DeepLift has no rule for .*use another method",
}


EMPTY = "an empty map"
EMPTIED = {("InceptionResnetV1 (in small)", "score_cam")}
"""Where these random weights leave nothing of the sum of activations, which is negative all over one face, after the
method's ReLU; the page says so."""

TOKENS = {
    "ViT (timm)": ("network.blocks.1.norm1", Tokens((7, 7), 1, True)),
    "ViT, mean and registers (timm)": ("network.blocks.1.norm2", Tokens((7, 7), 5, True)),
    "ViT (HuggingFace)": ("network.0.layers.1.layernorm_before", Tokens((7, 7), 1, True)),
    "ViT (torchvision)": ("network.encoder.layers.encoder_layer_1.ln_1", Tokens((7, 7), 1, True)),
    "Swin (timm)": ("network.norm", Tokens((7, 7), 0, False)),
    "Swin (HuggingFace)": ("network.0.layernorm", Tokens((14, 14), 0, True)),
    "Swin (torchvision)": ("network.norm", Tokens((14, 14), 0, False)),
}
"""Where Grad-CAM looks, and how the tokens lie there."""


def faces() -> tuple[Tensor, Tensor]:
    probe, reference = faces_of_nobody(SIZE)[:2].split(1)
    return probe, reference


def cell(recognizer: Recognizer, name: str) -> str:
    """`yes`, or the kind of the error."""
    method = METHODS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Captum's hooks
            maps = method.build(recognizer, 0.1, **method.trial_options).attribute(faces())
    except XfrError as error:
        return "no rules" if re.search(_NO_RULES.get(name, "$^"), str(error)) else str(error)
    for side in maps:
        assert side.shape == (1, 3, *SIZE)
        assert side.isfinite().all()
    return WORKS if all(side.any() for side in maps) else EMPTY


def shown_methods() -> list[str]:
    """All but those for which something must have been trained."""
    return [name for name, method in METHODS.items() if method.needs not in ("decoder", "evidence")]


def table() -> dict[str, dict[str, str]]:
    """Cells of the page by architecture, then by method."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| architecture | methods"))
    rows = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in lines[head + 2 :]
        if line.startswith("|")
    ]
    return {
        row[0]: dict.fromkeys(re.findall(r"`(\w+)`", row[2]), "no rules")
        for row in rows[: len(ARCHITECTURES)]
    }


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_table_is_true(architecture: str) -> None:
    recognizer = made(architecture)
    refused = table()[architecture]
    for name in shown_methods():
        expected = EMPTY if (architecture, name) in EMPTIED else refused.get(name, WORKS)
        assert cell(recognizer, name) == expected, name


@pytest.mark.parametrize("architecture", sorted(TOKENS))
def test_grad_cam_looks_at_tokens_and_not_at_patches(architecture: str) -> None:
    recognizer = made(architecture)
    layer, tokens = find_layer(recognizer, None, faces()[0])
    name, expected = TOKENS[architecture]
    assert layer is recognizer.get_submodule(name)
    assert tokens == expected
    by_name = GradCam(recognizer, layer=name).attribute(faces())
    torch.testing.assert_close(by_name, GradCam(recognizer).attribute(faces()))


def test_tokens_become_maps_and_tokens_again() -> None:
    for tokens, shape in (
        (Tokens((3, 4), 2, True), (5, 14, 6)),
        (Tokens((3, 4), 0, False), (5, 3, 4, 6)),
    ):
        output = torch.randn(shape)
        maps = tokens.to_maps(output)
        assert maps.shape == (5, 6, 3, 4)
        torch.testing.assert_close(tokens.from_maps(maps, output), output)


def test_grad_cam_of_a_transformer_is_that_of_the_formula() -> None:
    """Of a class token: the norm before the last attention, after which other tokens count for nothing."""
    torch.manual_seed(0)
    network = SmallViT().eval()
    recognizer = Recognizer(network, input_size=(64, 48), threshold=0.1)
    probe, reference = torch.rand(2, 1, 3, 64, 48)
    partner = recognizer.embed(reference)
    kept: list[Tensor] = []
    handle = network.blocks[1].norm1.register_forward_hook(lambda _m, _i, output: kept.append(output))
    leaf = probe.clone().requires_grad_()
    score = (recognizer(leaf) * partner).sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    handle.remove()
    activations, weights = (
        x[:, 1:].detach().unflatten(1, (4, 3)).movedim(-1, 1) for x in (kept[0], gradient)
    )
    expected = (weights.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1, keepdim=True)
    expected = nn.functional.interpolate(expected, (64, 48), mode="bilinear").expand(1, 3, 64, 48) / 3
    found = GradCam(recognizer).attribute(probe, additional_forward_args=partner)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_a_layer_without_places_is_refused() -> None:
    recognizer = Recognizer(SmallViT(), input_size=(64, 48), threshold=0.1)
    images = torch.rand(1, 3, 64, 48)
    assert find_layer(recognizer, "network.patches", images)[1] is None  # who asks for the patches gets them
    with pytest.raises(InputError, match="tokens with a place"):
        find_layer(recognizer, "network.blocks.0.attention", images)


def main() -> None:
    sys.stdout.write(
        "| architecture | methods that explain it | methods that have no rules for it |\n|---|---|---|\n"
    )
    for architecture in sys.argv[1:] or ARCHITECTURES:
        recognizer = made(architecture)
        refused = [name for name in shown_methods() if cell(recognizer, name) not in (WORKS, EMPTY)]
        listed = ", ".join(f"`{name}`" for name in refused) or "none"
        count = "all" if not refused else "all others"
        sys.stdout.write(f"| {architecture} | {count} | {listed} |\n")


if __name__ == "__main__":
    main()
