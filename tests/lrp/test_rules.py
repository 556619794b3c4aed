"""Rules against loops over every connection, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from zennit.core import Hook
from zennit.layer import Sum
from zennit.rules import ZPlus

from xfr_plugin.lrp import AffineRule, FaceCanonizer, PReLURule, SignedPlus, SumPlus
from xfr_plugin.lrp.layers import Gated

EPS = 1e-6  # Zennit's stabilizer


def relevance_of(module: nn.Module, rule: Hook, x: Tensor, start: Tensor) -> Tensor:
    handles = rule.copy().register(module)  # Zennit keeps weak references to hooks
    hook = handles[0].instance_ref()
    try:
        leaf = x.clone().requires_grad_()
        (relevance,) = torch.autograd.grad(module(leaf), leaf, start)
    finally:
        handles.remove()
    assert hook is not None
    return relevance


def divide(value: float, z: float) -> float:
    return value / (z + (EPS if z >= 0 else -EPS))


def signed_plus_by_loops(w: Tensor, b: Tensor | None, x: Tensor, start: Tensor) -> Tensor:
    """R_i = Σ_j [sign x_i w_ij = sign z_j] x_i w_ij / (their sum + the bias of that sign) R_j, for each j."""
    relevance = torch.zeros_like(x)
    for n in range(len(x)):
        for j in range(len(w)):
            parts = [float(x[n, i] * w[j, i]) for i in range(len(w[j]))]
            bias = 0.0 if b is None else float(b[j])
            sign = 1 if sum(parts) + bias > 0 else -1
            total = sum(part for part in [*parts, bias] if part * sign > 0)
            for i, part in enumerate(parts):
                if part * sign > 0:
                    relevance[n, i] += part * divide(float(start[n, j]), total)
    return relevance


@pytest.mark.parametrize("bias", [True, False])
def test_signed_plus_against_loops(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, bias=bias).double()
    x, start = torch.randn(3, 6).double(), torch.randn(3, 5).double()
    expected = signed_plus_by_loops(linear.weight.detach(), linear.bias.detach() if bias else None, x, start)
    torch.testing.assert_close(relevance_of(linear, SignedPlus(), x, start), expected)
    if bias:
        free = relevance_of(linear, SignedPlus(zero_params=["bias"]), x, start)
        torch.testing.assert_close(free.sum(1), start.sum(1), rtol=1e-4, atol=1e-4)


def test_signed_plus_is_z_plus_where_outputs_are_positive() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    x = torch.randn(2, 3, 5, 6).double()
    start = torch.rand(2, 4, 5, 6).double() * (conv(x) > 0)
    torch.testing.assert_close(
        relevance_of(conv, SignedPlus(), x, start), relevance_of(conv, ZPlus(), x, start)
    )


def test_signed_plus_leaves_parameters_and_their_objects() -> None:
    linear = nn.Linear(4, 3, bias=False)
    weight = linear.weight
    relevance_of(linear, SignedPlus(), torch.randn(2, 4), torch.randn(2, 3))
    assert linear.weight is weight
    assert linear.bias is None


def test_sum_plus_shares_among_the_branches_that_agree() -> None:
    branches = torch.tensor([[3.0, -1.0], [-3.0, 1.0], [2.0, 2.0], [-1.0, -3.0], [0.0, 0.0]]).double()
    start = torch.tensor([1.0, 1.0, 2.0, -4.0, 1.0]).double()
    expected = torch.tensor([[1.0, 0], [1, 0], [1, 1], [-1, -3], [0, 0]]).double()
    found = relevance_of(Sum(), SumPlus(), branches, start)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slope", [0.25, -0.5, 0.0])
def test_prelu_is_the_epsilon_rule_at_its_slope(slope: float) -> None:
    prelu = nn.PReLU(1, init=slope).double()
    x, start = torch.tensor([[2.0, -2.0, 1e-6, 0.0]]).double(), torch.ones(1, 4).double()
    values = x[0].tolist()
    expected = [(v if v > 0 else slope * v) for v in values]
    expected = [y * divide(1.0, y) for y in expected]
    found = relevance_of(prelu, PReLURule(), x, start)
    torch.testing.assert_close(found[0].tolist(), expected)


def test_affine_rule_gives_the_shift_its_part() -> None:
    batchnorm = nn.BatchNorm1d(2).double().eval()
    batchnorm.running_mean[:] = torch.tensor([1.0, -2.0])
    x, start = torch.tensor([[3.0, 1.0]]).double(), torch.tensor([[1.0, 1.0]]).double()
    found = relevance_of(batchnorm, AffineRule(), x, start)
    torch.testing.assert_close(found, torch.tensor([[3 / 2, 1 / 3]]).double(), rtol=1e-5, atol=1e-5)
    batchnorm.forward = lambda value: value  # as the canonizer leaves it
    assert torch.equal(relevance_of(batchnorm, AffineRule(), x, start), start)


def test_gates_are_constants() -> None:
    signal, gate = torch.randn(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    to_signal, to_gate = torch.autograd.grad(
        Gated()(signal, gate=gate).sum(), [signal, gate], allow_unused=True
    )
    torch.testing.assert_close(to_signal, gate)
    assert to_gate is None


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}]
)
@pytest.mark.parametrize("affine", [True, False])
def test_batchnorm_before_a_padded_convolution_is_exact_at_the_border(options: dict, affine: bool) -> None:
    """The usual folded bias would be wrong there: zeros are padded after the shift, not before it."""
    torch.manual_seed(2)
    batchnorm = nn.BatchNorm2d(4, affine=affine)
    batchnorm.running_mean.normal_()
    batchnorm.running_var.uniform_(0.1, 3)
    net = nn.Sequential(batchnorm, nn.Conv2d(4, 6, 3, **{"padding": 1, **options}), nn.ReLU()).double().eval()
    for size in ((7, 8), (5, 6)):  # the bias map follows the size of the input
        images = torch.randn(2, 4, *size).double()
        expected = net(images)
        (instance,) = FaceCanonizer().apply(net)
        found = net(images)
        instance.remove()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_one_canonizer_serves_inputs_of_several_sizes() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)).double().eval()
    net[0].running_mean[:] = 2
    images = [torch.randn(1, 3, *size).double() for size in ((6, 6), (9, 7), (6, 6))]
    expected = [net(image) for image in images]
    (instance,) = FaceCanonizer().apply(net)
    found = [net(image) for image in images]
    instance.remove()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("linear", [nn.Linear, nn.Conv2d, nn.ConvTranspose2d], ids=lambda cls: cls.__name__)
def test_batchnorm_after_linear_layers_of_every_kind(linear: type[nn.Module]) -> None:
    torch.manual_seed(3)
    is_dense = linear is nn.Linear
    layer = nn.Linear(6, 4) if is_dense else linear(6, 4, 2, groups=2)
    batchnorm = nn.BatchNorm1d(4) if is_dense else nn.BatchNorm2d(4)
    batchnorm.running_mean.normal_()
    batchnorm.running_var.uniform_(0.1, 3)
    net = nn.Sequential(layer, batchnorm).double().eval()
    x = torch.randn(3, 6) if is_dense else torch.randn(3, 6, 5, 5)
    expected = net(x.double())
    (instance,) = FaceCanonizer().apply(net)
    found = net(x.double())
    instance.remove()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(net(x.double()), expected)
