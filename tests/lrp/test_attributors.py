"""Relevance of scores and channels: against LRP written out by hand, and leaving no trace."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus, EpsilonPlusFlat, LayerMapComposite
from zennit.rules import ReLUGuidedBackprop

from xfr_plugin.errors import InputError
from xfr_plugin.lrp import EpsilonPlusFlatFace
from xfr_plugin.lrp.attributors import CosineRelevance, EmbeddingAttributor, similarity_to
from xfr_plugin.lrp.bilrp import BiLRP
from xfr_plugin.lrp.channel_relevance import ChannelRelevance
from xfr_plugin.lrp.propagation import LinearPropagation, LoopedPropagation, channel_relevance
from xfr_plugin.recognition import Recognizer

EPS = 1e-6  # of Zennit's rules


class PlainNet(nn.Module):
    """Dense, strided, grouped and dilated convolutions without bias: N×3×10×8 → N×5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=(2, 1), dilation=(2, 1), groups=4, bias=False)
        self.act2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(4 * 2 * 2, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(images))))
        embedding: Tensor = self.fc(self.pool(x).flatten(1))
        return embedding


@pytest.fixture
def network() -> PlainNet:
    torch.manual_seed(3)
    return PlainNet().double().eval()


@pytest.fixture
def images() -> Tensor:
    """Two pairs: two probes, then their references."""
    return torch.randn(4, 3, 10, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def matrix(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Weights of a bias-free layer as a dense matrix (outputs × inputs), by its unit responses."""
    units = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return layer(units).detach().flatten(1).T


def divide(relevance: Tensor, z: Tensor) -> Tensor:
    return relevance / (z + EPS * torch.where(z >= 0, 1.0, -1.0))


def relevance_by_hand(network: PlainNet, image: Tensor, start: Tensor) -> Tensor:
    """Epsilon (linear layer), z-plus (second convolution) and flat rule (first), with dense matrices."""
    hidden1 = network.act1(network.conv1(image[None]))[0]
    hidden2 = network.act2(network.conv2(hidden1[None]))[0]
    pooled, places = functional.max_pool2d(hidden2, 2, return_indices=True)
    x = pooled.flatten()
    w = network.fc.weight
    r = x * (w.T @ divide(start, w @ x))
    wide = torch.zeros_like(hidden2).flatten(1).scatter(1, places.flatten(1), r.view(4, -1)).flatten()
    w, x = matrix(network.conv2, hidden1), hidden1.flatten()  # x ≥ 0 after the ReLU
    r = x * (w.clamp_min(0).T @ divide(wide, w.clamp_min(0) @ x))
    ones = (
        matrix(lambda u: functional.conv2d(u, torch.ones_like(network.conv1.weight), None, 2, 1), image) > 0
    ).double()
    return (ones.T @ divide(r, ones.sum(1))).view(image.shape).detach()


def channel_maps_by_hand(network: PlainNet, images: Tensor, start: Tensor) -> Tensor:
    rows = torch.eye(5, dtype=torch.float64)
    maps = [
        torch.stack(
            [
                relevance_by_hand(network, image, row * value)
                for image, value in zip(images, start, strict=True)
            ]
        )
        for row in rows
    ]
    return torch.stack(maps)


def traces(network: nn.Module) -> tuple[list[str], list[int]]:
    hooks = [
        len(getattr(module, name))
        for module in network.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]
    own = [f"{name}.{key}" for name, module in network.named_modules() for key in module.__dict__]
    return [*network.state_dict(), *own], hooks


def test_cosine_relevance_is_lrp_of_the_score(network: PlainNet, images: Tensor) -> None:
    output, found = CosineRelevance(network, EpsilonPlusFlat())(images)
    units = functional.normalize(network(images).detach())
    torch.testing.assert_close(output, network(images).detach())
    for i, partner in enumerate((2, 3, 0, 1)):
        expected = relevance_by_hand(network, images[i], units[i] * units[partner])
        torch.testing.assert_close(found[i], expected)


def test_relevance_is_conserved_without_biases(network: PlainNet, images: Tensor) -> None:
    _, found = CosineRelevance(network, EpsilonPlusFlat())(images)
    units = functional.normalize(network(images).detach())
    score = (units[:2] * units[2:]).sum(1)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.cat((score, score)), rtol=1e-3, atol=1e-5)


def test_probes_alone_with_a_fixed_reference(network: PlainNet, images: Tensor) -> None:
    _, both = CosineRelevance(network, EpsilonPlusFlat())(images)
    reference = 3 * network(images[2:])
    _, alone = CosineRelevance(network, EpsilonPlusFlat(), similarity_to(reference))(images[:2])
    torch.testing.assert_close(alone, both[:2])
    _, shared = CosineRelevance(network, EpsilonPlusFlat())(images[:2], similarity_to(reference[0]))
    torch.testing.assert_close(shared[0], both[0])


def test_channel_relevance_is_lrp_of_each_channel(network: PlainNet, images: Tensor) -> None:
    expected = channel_maps_by_hand(network, images, network(images).detach())
    for chunk_size in (1, 2, 5, 64):
        output, found = ChannelRelevance(network, EpsilonPlusFlat(), chunk_size=chunk_size)(images)
        assert found.shape == (5, 4, 3, 10, 8)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(output, network(images).detach())


def test_channels_can_be_chosen_and_started_with_another_relevance(network: PlainNet, images: Tensor) -> None:
    start = torch.rand(4, 5, dtype=torch.float64)
    expected = channel_maps_by_hand(network, images, start)
    attributor = ChannelRelevance(network, EpsilonPlusFlat(), start, channels=range(1, 4))
    torch.testing.assert_close(attributor(images)[1], expected[1:4])
    torch.testing.assert_close(attributor(images, lambda output: 2 * start)[1], 2 * expected[1:4])
    with pytest.raises(InputError, match="beyond the embedding's 5"):
        ChannelRelevance(network, channels=range(6))(images)


def test_recorded_propagation_agrees_with_zennits_pass(recognizer: Recognizer) -> None:
    network, faces = recognizer.network, torch.randn(2, 3, 24, 20, dtype=torch.float64)
    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
    _, found = ChannelRelevance(network, composite)(faces)
    for k in range(6):
        one_hot = torch.eye(6, dtype=torch.float64)[k]
        _, expected = Gradient(network, composite, lambda output, row=one_hot: output * row)(faces)
        torch.testing.assert_close(found[k], expected)


def test_recorded_propagation_serves_relevance_where_the_embedding_is_zero() -> None:
    """Of outputs that no relevance reaches no pass is recorded; a channel that is zero here may be given some."""
    torch.manual_seed(4)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(40, 6), nn.ReLU()
    network = nn.Sequential(*layers).double().eval()
    faces = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    assert bool((network(faces) == 0).any())
    with ChannelRelevance(network, EpsilonPlusFlatFace()).propagation(faces) as propagation:
        assert isinstance(propagation, LinearPropagation)
    _, found = ChannelRelevance(network, EpsilonPlusFlatFace(), torch.ones_like)(faces)
    for k in range(6):
        one_hot = torch.eye(6, dtype=torch.float64)[k].expand(2, 6)
        _, expected = Gradient(network, EpsilonPlusFlatFace(), one_hot)(faces)
        assert expected.any()
        torch.testing.assert_close(found[k], expected)


def test_without_a_composite_maps_are_gradients(network: PlainNet, images: Tensor) -> None:
    _, found = ChannelRelevance(network, attr_output=torch.ones_like)(images)
    leaf = images.clone().requires_grad_()
    for k in range(5):
        (expected,) = torch.autograd.grad(network(leaf)[:, k].sum(), leaf)
        torch.testing.assert_close(found[k], expected)


def test_rules_that_are_not_linear_are_propagated_one_by_one(network: PlainNet, images: Tensor) -> None:
    def composite() -> LayerMapComposite:
        return LayerMapComposite([((nn.ReLU,), ReLUGuidedBackprop())])

    with ChannelRelevance(network, composite()).propagation(images) as propagation:
        assert isinstance(propagation, LoopedPropagation)
    with ChannelRelevance(network, EpsilonPlusFlat()).propagation(images) as propagation:
        assert isinstance(propagation, LinearPropagation)
    _, found = ChannelRelevance(network, composite())(images)
    for k in range(5):
        one_hot = torch.eye(5, dtype=torch.float64)[k]
        _, expected = Gradient(network, composite(), lambda output, row=one_hot: output * row)(images)
        torch.testing.assert_close(found[k], expected)


def test_zennits_contract_of_attr_output(network: PlainNet, images: Tensor) -> None:
    constant = torch.rand(4, 5, dtype=torch.float64)
    _, expected = Gradient(network, EpsilonPlus(), constant)(images)
    for at_start, at_call in ((constant, None), (None, constant), (torch.zeros_like, constant)):
        _, found = CosineRelevance(network, EpsilonPlus(), at_start)(images, at_call)
        torch.testing.assert_close(found, expected)
    with CosineRelevance(network, EpsilonPlus(), lambda output: constant) as attributor:
        assert all(hook.active for hook in attributor.composite.hook_refs)
        with attributor.inactive():
            assert not any(hook.active for hook in attributor.composite.hook_refs)
        torch.testing.assert_close(attributor(images)[1], expected)
        torch.testing.assert_close(attributor(images)[1], expected)


CLASSES: list[Callable[..., EmbeddingAttributor]] = [CosineRelevance, ChannelRelevance, BiLRP]


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_is_left_behind(cls: Callable[..., EmbeddingAttributor], recognizer: Recognizer) -> None:
    network, faces = recognizer.network, torch.randn(2, 3, 24, 20, dtype=torch.float64)
    before, parameters = traces(network), [p.clone() for p in network.parameters()]
    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
    cls(network, composite)(faces)
    with cls(network, composite) as attributor:
        attributor(faces)
    with pytest.raises(RuntimeError, match="broken"), cls(network, composite):
        raise RuntimeError("broken")
    assert traces(network) == before
    for parameter, expected in zip(network.parameters(), parameters, strict=True):
        assert torch.equal(parameter, expected)
        assert parameter.grad is None
    assert not faces.requires_grad


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_undo_hooks_and_canonizers(
    cls: Callable[..., EmbeddingAttributor], recognizer: Recognizer
) -> None:
    class Refusing(Canonizer):
        def apply(self, root_module: nn.Module) -> list[Canonizer]:
            raise ValueError("no such network")

        def register(self) -> None: ...

        def remove(self) -> None: ...

    network, faces = recognizer.network, torch.randn(2, 3, 24, 20, dtype=torch.float64)
    before, expected = traces(network), network(faces)
    with pytest.raises(ValueError, match="no such network"):
        cls(network, EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm(), Refusing()]))(faces)
    assert traces(network) == before
    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])

    def failing(output: Tensor) -> Tensor:
        raise KeyError("attr_output")

    with pytest.raises(KeyError):
        cls(network, composite, failing)(faces)
    with pytest.raises(RuntimeError):
        cls(network, composite)(faces[:, :2])
    assert traces(network) == before
    torch.testing.assert_close(network(faces), expected, rtol=0, atol=0)


def test_abandoned_loops_undo_hooks_too(network: PlainNet, images: Tensor) -> None:
    before = traces(network)
    attributor = ChannelRelevance(network, EpsilonPlusFlat())
    with attributor.propagation(images) as propagation:
        for channels, _ in channel_relevance(propagation, propagation.output, chunk_size=2):
            assert channels == range(2)
            break
    assert traces(network) == before


@pytest.mark.parametrize("cls", CLASSES)
def test_works_where_gradients_are_off(
    cls: Callable[..., EmbeddingAttributor], network: PlainNet, images: Tensor
) -> None:
    expected = cls(network, EpsilonPlusFlat())(images)
    with torch.no_grad():
        found = cls(network, EpsilonPlusFlat())(images)
    with torch.inference_mode():
        also = cls(network, EpsilonPlusFlat())(images.clone())
    for one, other, third in zip(expected, found, also, strict=True):
        assert not one.requires_grad
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_memory_of_a_propagation_is_freed(network: PlainNet, images: Tensor) -> None:
    attributor = ChannelRelevance(network, EpsilonPlusFlat())
    gc.collect()
    gc.disable()
    try:
        with attributor.propagation(images) as propagation:
            propagation.maps(propagation.output[None])
            alive = weakref.ref(propagation.output)
            recorded = weakref.ref(propagation)
            del propagation
        assert recorded() is None
        assert alive() is None
    finally:
        gc.enable()


def test_wrong_inputs_are_refused(network: PlainNet, images: Tensor) -> None:
    with pytest.raises(InputError, match="N probes and then N references, got 3"):
        CosineRelevance(network)(images[:3])
    with pytest.raises(InputError, match="embeddings 4×D"):
        CosineRelevance(network.conv1)(images)
    with pytest.raises(InputError, match="embeddings 4×D"):
        ChannelRelevance(nn.Identity())(images)
    with pytest.raises(InputError, match="chunk_size"):
        ChannelRelevance(network, chunk_size=0)
    with pytest.raises(InputError, match="range with step 1"):
        ChannelRelevance(network, channels=range(0, 4, 2))
