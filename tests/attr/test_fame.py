"""FAME against its steps written out, and what it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import Fame
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

Images = tuple[Tensor, Tensor]


def slow_change(
    recognizer: Recognizer, face: Tensor, partner: Tensor, sign: int, steps: int, clip: bool
) -> Tensor:
    """|grey(x̄) − grey(x)|, H×W, of one face 1×C×H×W; sign +1 lowers the cosine, −1 lowers 1 − cosine."""
    moved = face.clone()
    for _ in range(steps):
        leaf = moved.clone().requires_grad_()
        cosine = functional.cosine_similarity(recognizer.features(leaf), recognizer.features(partner))
        loss = cosine if sign > 0 else 1 - cosine
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        moved = moved - 0.01 * gradient / gradient.abs().max()
        moved = moved.clamp(0, 1) if clip else moved
    return (moved - face)[0].mean(0).abs()


@pytest.mark.parametrize("clip", [False, True])
def test_fame_equals_its_definition(recognizer: Recognizer, pair: Images, clip: bool) -> None:
    maps = Fame(recognizer, steps=6, step_size=0.01, blur=None, clip=clip, batch_size=4).attribute(pair)
    for i in range(3):
        face, partner = pair[1][i : i + 1], pair[0][i : i + 1]
        lowered = slow_change(recognizer, face, partner, 1, 6, clip)
        raised = slow_change(recognizer, face, partner, -1, 6, clip)
        torch.testing.assert_close(maps[1][i].sum(0), lowered - raised, rtol=1e-6, atol=1e-10)


def test_grey_can_be_luma(recognizer: Recognizer, pair: Images) -> None:
    """Each colour's change by its weight in grey; of other images than RGB nobody knows these."""
    face, partner = pair[0][:1], pair[1][:1]
    options = {"steps": 4, "step_size": 0.01, "blur": None, "arguments": "for"}
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    moved = face.clone()
    for _ in range(4):
        leaf = moved.clone().requires_grad_()
        cosine = functional.cosine_similarity(recognizer.features(leaf), recognizer.features(partner))
        (gradient,) = torch.autograd.grad(cosine.sum(), leaf)
        moved = moved - 0.01 * gradient / gradient.abs().max()
    expected = torch.einsum("chw,c->hw", (moved - face)[0], weights).abs()
    maps = Fame(recognizer, grey="luma", **options).attribute((face, partner))
    torch.testing.assert_close(maps[0][0].sum(0), expected, rtol=1e-6, atol=1e-10)
    plain = Fame(lambda images: images.flatten(1)[:, :8], threshold=0.2, grey="luma", **options)
    with pytest.raises(InputError, match="three colours"):
        plain.attribute((face[:, :2], partner[:, :2]))


def test_identical_faces_have_no_dissimilar_map(recognizer: Recognizer, pair: Images) -> None:
    maps = Fame(recognizer, steps=5).attribute((pair[0], pair[0]))
    assert bool((maps[0] >= -1e-12).all())
