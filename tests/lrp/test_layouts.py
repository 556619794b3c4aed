"""Canonizer, composites and coverage on the published layouts of face networks, each as a small network."""

from __future__ import annotations

import pytest
import torch
from helpers.architectures import KINDS
from helpers.lrp_layouts import LAYOUTS, build, images_for, randomised
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from zennit.composites import COMPOSITES, EpsilonPlus
from zennit.core import Composite

from xfr_plugin.errors import InputError
from xfr_plugin.lrp import FaceCanonizer, coverage
from xfr_plugin.lrp.choice import composite_name

OURS = ("epsilon_plus_flat_face", "epsilon_gamma_box_face", "excitation_backprop_face")


@pytest.fixture(params=LAYOUTS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@pytest.fixture(params=OURS)
def composite(request: pytest.FixtureRequest) -> Composite:
    built: Composite = COMPOSITES[request.param]()
    return built


def snapshot(network: nn.Module) -> tuple[list[str], dict[str, Tensor], dict[str, int], list[set[str]]]:
    """All that a canonizer may touch: state, identity of parameters, modules, and attributes of modules."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    owners = {name: id(parameter) for name, parameter in network.named_parameters()}
    return (
        [name for name, _ in network.named_modules()],
        state,
        owners,
        [set(vars(m)) for m in network.modules()],
    )


def assert_same(first: tuple, second: tuple) -> None:
    assert first[0] == second[0]
    assert list(first[1]) == list(second[1])
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())
    assert first[2:] == second[2:]


def no_hooks(network: nn.Module) -> bool:
    return not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())


def test_canonizer_keeps_the_output_and_leaves_no_trace(network: nn.Module) -> None:
    images = images_for(network)
    before, expected = snapshot(network), network(images)
    (instance,) = FaceCanonizer().apply(network)
    canonical = network(images)
    instance.remove()
    torch.testing.assert_close(
        canonical, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max())
    )
    assert torch.equal(network(images), expected)
    assert_same(before, snapshot(network))
    assert no_hooks(network)


def test_every_batchnorm_is_folded(network: nn.Module) -> None:
    """No layout needs the affine rule: each BatchNorm has a linear layer beside it."""
    (instance,) = FaceCanonizer().apply(network)
    try:
        batchnorms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
        x = torch.randn(2, 3)
        assert all(torch.equal(m.forward(x), x) for m in batchnorms)
    finally:
        instance.remove()


def test_composites_cover_the_layout_and_leave_no_trace(network: nn.Module, composite: Composite) -> None:
    images = images_for(network).requires_grad_()
    before, expected = snapshot(network), network(images).detach()
    rows = coverage(network, composite)
    assert {row.name for row in rows} >= {
        name for name, m in network.named_modules() if not m._modules and not isinstance(m, nn.Sequential)
    }
    with composite.context(network):
        output = network(images)
        (relevance,) = torch.autograd.grad(output, images, output.detach())
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    assert torch.isfinite(relevance).all()
    assert relevance.abs().sum() > 0
    assert_same(before, snapshot(network))
    assert no_hooks(network)


def test_a_backward_pass_can_be_repeated_and_is_linear(network: nn.Module, composite: Composite) -> None:
    """Rules may keep what they computed of the forward pass, not what they computed of the relevance."""
    images = images_for(network).requires_grad_()
    with composite.context(network):
        output = network(images)
        first, second = torch.randn(2, *output.shape, dtype=output.dtype)
        of = [
            torch.autograd.grad(output, images, start, retain_graph=True)[0]
            for start in (first, second, first + 2 * second)
        ]
    scale = float(of[2].abs().max())
    torch.testing.assert_close(of[0] + 2 * of[1], of[2], rtol=1e-9, atol=1e-9 * scale)


def test_relevance_of_a_copy_with_batchnorm_written_out_is_the_same(composite: Composite) -> None:
    """A network with BatchNorm after convolutions has the relevance of one whose convolutions were folded by hand."""
    torch.manual_seed(4)
    conv, batchnorm, fc = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Linear(4 * 36, 5)
    batchnorm.running_mean.normal_()
    batchnorm.running_var.uniform_(0.5, 2)
    net = nn.Sequential(conv, batchnorm, nn.ReLU(), nn.Flatten(), fc).double().eval()
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), fc).double().eval()
    scale = batchnorm.weight.double() / (batchnorm.running_var + batchnorm.eps).sqrt()
    plain[0].weight.data = conv.weight.data * scale[:, None, None, None]
    plain[0].bias.data = (batchnorm.bias - batchnorm.running_mean * scale).data
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for network in (net, plain):
        with composite.context(network):
            output = network(images)
            found.append(torch.autograd.grad(output, images, output.detach())[0])
    torch.testing.assert_close(found[0], found[1])


def test_zennits_own_composite_is_seen_to_miss_the_additions() -> None:
    with pytest.raises(InputError, match=r"add in \w+ \(body\.0\)"):
        coverage(build("iresnet"), EpsilonPlus())


def test_layers_without_a_rule_are_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Softmax(1)).eval()
    with pytest.raises(InputError, match=r"1 \(GroupNorm\), 2 \(Softmax\)"):
        coverage(network, COMPOSITES["epsilon_plus_flat_face"]())
    assert no_hooks(network)


def test_training_mode_is_refused_at_once_or_at_the_forward_pass() -> None:
    network = build("iresnet").train()
    before = snapshot(network)
    with pytest.raises(InputError, match="eval"):
        FaceCanonizer().apply(network)
    assert_same(before, snapshot(network))
    with (
        pytest.raises(InputError, match="training mode"),
        COMPOSITES["epsilon_plus_flat_face"]().context(network),
    ):
        network(images_for(network))
    network.eval()
    with (
        pytest.raises(InputError, match="training mode"),
        Composite(canonizers=[FaceCanonizer()]).context(network),
    ):
        network.train()(images_for(network))
    assert no_hooks(network)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_and_traced_modules_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    for compiled in (torch.jit.script(network), torch.jit.trace(network, torch.randn(1, 3, 8, 8))):
        for root in (compiled, nn.Sequential(compiled)):
            with pytest.raises(InputError, match="scripted or traced"):
                FaceCanonizer().apply(root)


class Doubtful(nn.Module):
    """A forward function that cannot be canonized, by the kind of its trouble."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.act = nn.PReLU(3)
        self.trouble = trouble

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        if self.trouble == "reuse":
            return self.act(y)
        if self.trouble == "product":
            return self.other(x) * y
        if self.trouble == "function":
            return torch.logsumexp(y, dim=1)
        return y if float(y.detach().sum()) > 0 else x


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("reuse", r"uses act \(PReLU\) 2 times"),
        ("product", "uses mul"),
        ("function", "uses logsumexp"),
        ("flow", "cannot read the forward function"),
    ],
)
def test_what_cannot_be_canonized_is_refused_and_left_as_it_was(trouble: str, message: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), Doubtful(trouble)).eval()
    before = snapshot(network)
    with pytest.raises(InputError, match=message):
        FaceCanonizer().apply(network)
    assert_same(before, snapshot(network))
    assert no_hooks(network)


def test_zennit_names_ours_only_once_the_package_is_imported() -> None:
    assert set(OURS) <= set(COMPOSITES)
    for name in OURS:
        rule = nn.Identity()
        built = COMPOSITES[name](layer_map=[(nn.Conv2d, rule)], first_map=[(nn.Linear, rule)])
        assert built.layer_map[0] == (nn.Conv2d, rule)
        assert built.first_map[0] == (nn.Linear, rule)


@pytest.mark.parametrize("name", KINDS)
def test_our_networks_keep_their_output_and_are_covered(name: str) -> None:
    built = randomised(KINDS[name]())
    images = torch.randn(
        1, 3, *KINDS[name].input_size, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    before = snapshot(built)
    with torch.no_grad():
        expected = built(images)
        composite = COMPOSITES[composite_name(built)]()
        coverage(built, composite, images)
        with Composite(canonizers=composite.canonizers).context(built):
            canonical = built(images)
    torch.testing.assert_close(canonical, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert_same(before, snapshot(built))
