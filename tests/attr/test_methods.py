"""FGGB and xSSAB against slow, obvious references in float64, and on real weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr import Fggb, Xssab
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, load_recognizer

Images = tuple[torch.Tensor, torch.Tensor]
TAU = 0.2


def gradient_of(value: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, image, retain_graph=True)[0][0]


def slow_fggb(
    recognizer: Recognizer,
    image: torch.Tensor,
    partner: torch.Tensor,
    embedding: str,
    gradient: str,
    level: str,
) -> torch.Tensor:
    """The definition, one channel at a time, for one image 1×3×H×W and its partner."""
    leaf = image.clone().requires_grad_()
    raw = recognizer.features(leaf)[0]
    unit = raw / raw.norm()
    other = recognizer.features(partner)[0].detach()
    other = other / other.norm()
    channels = len(raw)
    evidence = (unit * other).detach()
    score = float(evidence.sum())
    share = (TAU if level == "threshold" else score) / channels
    saliency = torch.zeros_like(image[0])
    for k in range(channels):
        grad = gradient_of((raw if embedding == "raw" else unit)[k], leaf)
        if gradient == "absolute":
            grad = (grad.abs().sum(0) / 3).expand(3, -1, -1) / 3
            norm = (grad[0] * 3).pow(2).sum().sqrt()
        else:
            norm = grad.pow(2).sum().sqrt()
        saliency += grad / norm * (float(evidence[k]) - share)
    return saliency


@pytest.mark.parametrize("embedding", ["raw", "normalized"])
@pytest.mark.parametrize("gradient", ["signed", "absolute"])
@pytest.mark.parametrize("level", ["threshold", "score"])
def test_fggb_equals_its_definition(
    recognizer: Recognizer, pair: Images, embedding: str, gradient: str, level: str
) -> None:
    attribution = Fggb(recognizer, TAU, embedding=embedding, gradient=gradient, level=level, chunk_size=24)
    maps = attribution.attribute(pair)
    for i in range(3):
        a, b = pair[0][i : i + 1], pair[1][i : i + 1]
        torch.testing.assert_close(maps[0][i], slow_fggb(recognizer, a, b, embedding, gradient, level))
        torch.testing.assert_close(maps[1][i], slow_fggb(recognizer, b, a, embedding, gradient, level))


@pytest.mark.parametrize("chunk_size", [1, 12, 13, 64])
def test_fggb_does_not_depend_on_the_chunk_size(
    recognizer: Recognizer, pair: Images, chunk_size: int
) -> None:
    expected = Fggb(recognizer, chunk_size=6).attribute(pair)
    torch.testing.assert_close(Fggb(recognizer, chunk_size=chunk_size).attribute(pair), expected)


@pytest.mark.parametrize("memory", [0.5, 0.9, 2.0, 100.0])
def test_fggb_does_not_depend_on_the_memory(recognizer: Recognizer, pair: Images, memory: float) -> None:
    expected = Fggb(recognizer).attribute(pair)
    torch.testing.assert_close(Fggb(recognizer, memory=memory).attribute(pair), expected)
    partner = recognizer(pair[1]).detach()
    alone = Fggb(recognizer, memory=memory).attribute(pair[0], additional_forward_args=partner)
    torch.testing.assert_close(alone, expected[0])


def test_fggb_of_arguments_with_a_row_for_each_face_within_a_memory(
    recognizer: Recognizer, pair: Images
) -> None:
    def scaled(images: Tensor, factor: Tensor) -> Tensor:
        return recognizer(images * factor.view(-1, 1, 1, 1))

    factors = torch.tensor([0.5, 0.8, 1.0], dtype=torch.float64)
    found, expected = (
        Fggb(scaled, TAU, memory=memory).attribute(pair, additional_forward_args=factors)
        for memory in (0.5, None)
    )
    torch.testing.assert_close(found, expected)


def test_fggb_says_how_much_memory_it_needs(recognizer: Recognizer, pair: Images) -> None:
    with pytest.raises(InputError, match=r"memory=0.001 MiB is too little: a gradient of a face takes 1 MiB"):
        Fggb(recognizer, memory=0.001).attribute(pair)


def test_fggb_does_not_trust_a_wrongly_traced_network(recognizer: Recognizer, pair: Images) -> None:
    """Symbolic tracing takes the wrong branch of a question about types; the map must not."""

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = recognizer.network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            embedding: torch.Tensor = self.inner(images)
            return embedding if isinstance(images, torch.Tensor) else embedding * 0

    expected = Fggb(lambda images: recognizer.network(images), TAU).attribute(pair)
    found = Fggb(Asking().eval(), TAU).attribute(pair)
    torch.testing.assert_close(found, expected)
    assert found[0].abs().sum() > 0


def test_fggb_channels_without_gradient_have_empty_maps(pair: Images) -> None:
    def half_constant(images: torch.Tensor) -> torch.Tensor:
        sums = images.flatten(2).sum(2)
        return torch.cat((sums, torch.ones_like(sums)), dim=1)

    maps = Fggb(half_constant, TAU).attribute(pair)
    assert torch.isfinite(maps[0]).all()


def slow_xssab(
    recognizer: Recognizer, image: torch.Tensor, partner: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = image.clone().requires_grad_()
    unit = functional.normalize(recognizer.features(leaf), dim=1)[0]
    other = functional.normalize(recognizer.features(partner), dim=1)[0].detach()
    supports = unit * other >= TAU / len(unit)
    maps = [gradient_of((unit * other)[chosen].sum(), leaf).abs().mean(0) for chosen in (supports, ~supports)]
    return maps[0], maps[1]


def test_xssab_equals_its_definition(recognizer: Recognizer, pair: Images) -> None:
    maps = Xssab(recognizer, TAU).attribute(pair)
    supporting = Xssab(recognizer, TAU, arguments="for").attribute(pair)
    opposing = Xssab(recognizer, TAU, arguments="against").attribute(pair)
    for i in range(3):
        a, b = pair[0][i : i + 1], pair[1][i : i + 1]
        good, bad = slow_xssab(recognizer, a, b)
        torch.testing.assert_close(maps[0][i].sum(0), good - bad)
        torch.testing.assert_close(supporting[0][i].sum(0), good)
        torch.testing.assert_close(opposing[0][i].sum(0), -bad)
        torch.testing.assert_close(maps[1][i].sum(0), torch.sub(*slow_xssab(recognizer, b, a)))


@pytest.mark.parametrize("cls", [Fggb, Xssab])
def test_blur_is_scipys_gaussian(recognizer: Recognizer, pair: Images, cls: type[Fggb] | type[Xssab]) -> None:
    from scipy.ndimage import gaussian_filter

    plain = cls(recognizer, TAU).attribute(pair)[0]
    smooth = cls(recognizer, TAU, blur=(17, 2.0)).attribute(pair)[0]
    expected = gaussian_filter(plain[0, 0].numpy(), 2.0, mode="mirror", radius=8)
    np.testing.assert_allclose(smooth[0, 0].numpy(), expected, rtol=1e-6, atol=1e-9)


def test_identical_faces_have_no_dissimilar_fggb_channels_below_their_share(recognizer: Recognizer) -> None:
    """At the pair's own level the evidence of identical faces is what their strong channels hold above 1/N."""
    image = torch.rand(1, 3, 24, 20, dtype=torch.float64)
    unit = recognizer.embed(image)
    maps = Fggb(recognizer, -1.0).attribute((image, image))
    assert (unit * unit - -1.0 / 6 > 0).all()
    assert (maps[0] >= 0).all()
    torch.testing.assert_close(maps[0], maps[1])


@pytest.mark.real_data
def test_real_recognizer_equals_the_reference_on_a_few_channels(real_pair: Images) -> None:
    """Float64, real weights and faces: gradients of folded and vectorised passes are exact."""
    recognizer = load_recognizer("mobilefacenet_ms1m").double()
    probe, reference = (side.double() for side in real_pair)

    def few(images: torch.Tensor) -> torch.Tensor:
        return recognizer.features(images)[:, :6]

    maps = Fggb(few, TAU, gradient="signed").attribute((probe, reference))
    leaf = probe.clone().requires_grad_()
    raw = few(leaf)[0]
    unit = raw / raw.norm()
    other = functional.normalize(few(reference), dim=1)[0]
    expected = torch.zeros_like(probe[0])
    for k in range(6):
        grad = gradient_of(raw[k], leaf)
        expected += grad / grad.norm() * (unit[k] * other[k] - TAU / 6).item()
    torch.testing.assert_close(maps[0][0], expected, rtol=1e-7, atol=1e-10)
