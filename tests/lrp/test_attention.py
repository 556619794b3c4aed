"""AttnLRP: rules of functions against slow formulas, conservation, every transformer that people bring, no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.transformers import ATTENTIVE, SmallViT, network_of
from torch import Tensor, nn
from torch.nn import functional
from zennit.composites import COMPOSITES
from zennit.core import Composite

from xfr_plugin.errors import InputError
from xfr_plugin.lrp import AttentionCanonizer, AttentionFace, coverage
from xfr_plugin.lrp.functions import FunctionRules

EPSILON = 1e-12


def relevance_of(
    function: Callable[..., Tensor], *signals: Tensor, given: Tensor | None = None
) -> list[Tensor]:
    """Relevance of the signals of a function that is run with the rules; it starts with the output, if not given."""
    leaves = [signal.detach().clone().requires_grad_() for signal in signals]
    with FunctionRules(EPSILON):
        output = function(*leaves)
    found = torch.autograd.grad(output, leaves, output.detach() if given is None else given)
    return list(found)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Reference:
    """The rules of AttnLRP by loops over single numbers, of a block of attention for one image: tokens N×D.

    t → layer norm → q, k, v → softmax(q kᵀ / √d) v → output layer → + t. One head; no biases but that of the norm.
    """

    def __init__(self, width: int) -> None:
        self.weights = {name: numbers(width, width, seed=i) for i, name in enumerate("qkvo")}
        self.scale, self.shift = numbers(width, seed=5), numbers(width, seed=6)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = functional.layer_norm(tokens, tokens.shape[-1:], self.scale, self.shift)
        q, k, v = (functional.linear(normed, self.weights[name]) for name in "qkv")
        mixed = functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return tokens + functional.linear(mixed, self.weights["o"])

    def relevance(self, tokens: Tensor, given: Tensor) -> tuple[Tensor, float]:
        """Relevance of the tokens, and how much the constant terms of softmax and norm absorb."""
        count, width = tokens.shape
        mean, root = tokens.mean(1), (tokens.var(1, unbiased=False) + 1e-5).sqrt()
        normed = torch.zeros_like(tokens)
        for n in range(count):
            for d in range(width):
                normed[n, d] = (tokens[n, d] - mean[n]) / root[n] * self.scale[d] + self.shift[d]
        q, k, v = (normed @ self.weights[name].T for name in "qkv")
        scores = q @ k.T / width**0.5
        shares = scores.exp() / scores.exp().sum(1, keepdim=True)
        mixed = shares @ v
        attended = mixed @ self.weights["o"].T
        total = tokens + attended

        direct = given * tokens / total
        of_mixed = self._of_linear(mixed, self.weights["o"], attended, given * attended / total)
        of_shares, of_v = self._of_product(shares, v, mixed, of_mixed)
        of_scores, absorbed = self._of_softmax(scores, shares, of_shares)
        of_q, of_kt = self._of_product(q, k.T, scores * width**0.5, of_scores)
        of_normed = torch.zeros_like(normed)
        for name, output, part in (("q", q, of_q), ("k", k, of_kt.T), ("v", v, of_v)):
            of_normed += self._of_linear(normed, self.weights[name], output, part)
        of_tokens, by_shift = self._of_norm(tokens, normed, root, of_normed)
        return direct + of_tokens, absorbed + by_shift

    @staticmethod
    def _of_linear(x: Tensor, weight: Tensor, z: Tensor, given: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for n in range(len(x)):
            for i in range(x.shape[1]):
                for j in range(z.shape[1]):
                    found[n, i] += x[n, i] * weight[j, i] / z[n, j] * given[n, j]
        return found

    @staticmethod
    def _of_product(a: Tensor, b: Tensor, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
        for i in range(a.shape[0]):
            for j in range(b.shape[1]):
                for t in range(a.shape[1]):
                    part = a[i, t] * b[t, j] / (2 * z[i, j]) * given[i, j]
                    of_a[i, t] += part
                    of_b[t, j] += part
        return of_a, of_b

    @staticmethod
    def _of_softmax(x: Tensor, s: Tensor, given: Tensor) -> tuple[Tensor, float]:
        found, absorbed = torch.zeros_like(x), 0.0
        for row in range(len(x)):
            for j in range(x.shape[1]):
                handed = 0.0
                for i in range(x.shape[1]):
                    part = x[row, i] * (int(i == j) - s[row, i]) * given[row, j]
                    found[row, i] += part
                    handed += float(part)
                absorbed += float(given[row, j]) - handed
        return found, absorbed

    def _of_norm(self, x: Tensor, y: Tensor, root: Tensor, given: Tensor) -> tuple[Tensor, float]:
        found, absorbed = torch.zeros_like(x), 0.0
        width = x.shape[1]
        for n in range(len(x)):
            for j in range(width):
                for i in range(width):
                    weight = (int(i == j) - 1 / width) / root[n] * self.scale[j]
                    found[n, i] += x[n, i] * weight / y[n, j] * given[n, j]
                absorbed += float(self.shift[j] / y[n, j] * given[n, j])
        return found, absorbed


def test_a_block_of_attention_has_the_relevance_of_the_formulas() -> None:
    tokens, given = numbers(5, 4, seed=7), numbers(5, 4, seed=8)
    reference = Reference(4)
    expected, absorbed = reference.relevance(tokens, given)
    (found,) = relevance_of(reference.forward, tokens, given=given)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
    assert float(found.sum()) + absorbed == pytest.approx(float(given.sum()), rel=1e-8)


def cases() -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    a, b, c = numbers(2, 3, 4, seed=1), numbers(2, 3, 4, seed=2), numbers(4, seed=3)
    image = numbers(1, 2, 4, 4, seed=4)
    kernel = numbers(3, 2, 3, 3, seed=5)
    return {
        "a sum of signals": (lambda x, y: x + y, (a, b)),
        "a difference of signals": (lambda x, y: x - y, (a, b)),
        "a sum in place": (_added_in_place, (a, b)),
        "a product of signals": (lambda x, y: x * y, (a, b)),
        "a product of matrices": (lambda x, y: x @ y.transpose(1, 2), (a, b)),
        "an einsum": (lambda x, y: torch.einsum("nij,nkj->nik", x, y), (a, b)),
        "a product with a constant": (lambda x: c * x * 2, (a,)),
        "a quotient": (lambda x: x / 3, (a,)),
        "a square": (lambda x: x * x, (a,)),
        "a norm": (lambda x: x / 2 * x.sigmoid(), (a,)),
        "an average": (lambda x: x.mean(dim=(1, 2), keepdim=True), (a,)),
        "a layer": (lambda x: functional.linear(x, numbers(5, 4)), (a,)),
        "a convolution": (lambda x: functional.conv2d(x, kernel, padding=1), (image,)),
        "pooling": (lambda x: functional.adaptive_avg_pool2d(x, 1), (image,)),
        "activations": (lambda x: functional.silu(functional.gelu(x).tanh()), (a,)),
        "moves": (
            lambda x: torch.cat((x[:, :1], x.roll(1, 2)), dim=1).flatten(1).unflatten(1, (2, -1)),
            (a,),
        ),
        "a norm without a shift": (lambda x: functional.layer_norm(x, (4,), c), (a,)),
        "a root mean square": (lambda x: functional.rms_norm(x, (4,), c), (a,)),
    }


def _added_in_place(x: Tensor, y: Tensor) -> Tensor:
    total = 1 * x
    total += y
    return total


@pytest.mark.parametrize("case", cases())
def test_relevance_is_conserved_and_values_stay(case: str) -> None:
    function, signals = cases()[case]
    expected = function(*signals)
    with FunctionRules(EPSILON):
        torch.testing.assert_close(
            function(*(signal.clone().requires_grad_() for signal in signals)), expected
        )
    given = numbers(*expected.shape, seed=9) * expected  # none where there is no output
    found = relevance_of(function, *signals, given=given)
    assert float(sum(part.sum() for part in found)) == pytest.approx(float(given.sum()), rel=1e-6)


def test_a_constant_that_is_added_absorbs_its_share() -> None:
    (found,) = relevance_of(lambda x: x + 3, torch.tensor([1.0]), given=torch.tensor([8.0]))
    assert float(found) == pytest.approx(2)


def test_scores_that_a_mask_hides_get_nothing() -> None:
    q, k, v = (numbers(1, 3, 2, seed=i) for i in range(3))
    attend = functional.scaled_dot_product_attention
    hidden = torch.tensor([[True, True, False]] * 3)
    for options in (
        {"attn_mask": hidden},
        {"attn_mask": torch.zeros(3, 3).masked_fill(~hidden, -torch.inf).double()},
    ):
        _, of_k, of_v = relevance_of(lambda *parts, o=options: attend(*parts, **o), q, k, v)
        assert float(of_k[0, 2].abs().max() + of_v[0, 2].abs().max()) == 0
    of_first, _, of_v = relevance_of(lambda *parts: attend(*parts, is_causal=True)[:, :1], q, k, v)
    assert float(of_v[0, 1:].abs().max()) == 0
    assert of_first.isfinite().all()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.logsumexp, "logsumexp"),
        (lambda x, _: x.zero_(), "zero_"),
        (torch.cumsum, "cumsum"),
        (lambda x, _: functional.linear(x, x), "linear"),
        (lambda x, _: functional.layer_norm(x, (3,), x[0]), "layer_norm"),
        (lambda x, _: 1 / x, "rdiv"),
    ],
)
def test_functions_without_a_rule_are_named(function: Callable[..., Tensor], name: str) -> None:
    leaf = numbers(2, 3).requires_grad_()
    with pytest.raises(InputError, match=f"no rule for the function {name},"), FunctionRules():
        function(2 * leaf, 1)


def test_what_is_changed_in_place_and_used_again_is_refused() -> None:
    value = 1 * numbers(2, 3).requires_grad_()
    with FunctionRules():
        changed = value.add_(1)
        with pytest.raises(InputError, match="changed in place"):
            torch.mul(changed, value)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_transformers_keep_their_output_are_covered_and_left_as_they_were(name: str) -> None:
    network, images = network_of(name)
    before, expected = _noted(network), network(images).detach()
    composite = COMPOSITES["attention_face"]()
    rows = {row.name for row in coverage(network, composite, images)}
    layers = {key for key, part in network.named_modules() if type(part) in (nn.Linear, nn.Conv2d)}
    assert rows >= layers
    leaf = images.clone().requires_grad_()
    with composite.context(network):
        output = network(leaf)
        (relevance,) = torch.autograd.grad(output, leaf, output.detach())
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert relevance.isfinite().all()
    assert relevance.any()
    assert _noted(network) == before
    assert torch.equal(network(images), expected)


def with_half_gradient(value: Tensor, share: float) -> Tensor:
    """A value that passes on a share of the gradient."""
    return share * value + ((1 - share) * value).detach()


def by_gradients(network: SmallViT, images: Tensor) -> Tensor:
    """What the network computes, with the gradient that times the input is relevance, where all have the ε rule.

    As in the authors' fast form: deviations are constants; keys and queries get a quarter, values half.
    """

    def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        root = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt().detach()
        return centred / root * norm.weight + norm.bias

    tokens = network.patches(images).flatten(2).transpose(1, 2)
    tokens = torch.cat((network.token.expand(len(tokens), -1, -1), tokens), dim=1)
    for block in network.blocks:
        attention = block.attention
        parts = functional.linear(
            normed(block.norm1, tokens), attention.in_proj_weight, attention.in_proj_bias
        )
        q, k, v = (
            part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in parts.chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(
            with_half_gradient(q, 0.25), with_half_gradient(k, 0.25), with_half_gradient(v, 0.5)
        )
        tokens = tokens + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(normed(block.norm2, tokens))
    return tokens[:, 0]


def test_with_epsilon_alone_relevance_is_the_authors_gradient_times_the_input() -> None:
    torch.manual_seed(3)
    network, leaf = SmallViT().double().eval(), numbers(2, 3, 64, 48).requires_grad_()
    expected = by_gradients(network, leaf)
    torch.testing.assert_close(expected, network(leaf))
    weights = numbers(*expected.shape, seed=1)
    (gradient,) = torch.autograd.grad(expected, leaf, weights)
    with AttentionFace(conv_gamma=0, gamma=0, stabilizer=1e-14).context(network):
        output = network(leaf)
        (found,) = torch.autograd.grad(output, leaf, weights * output.detach())
    torch.testing.assert_close(found, gradient * leaf, rtol=1e-6, atol=1e-8 * float(found.abs().max()))


@pytest.mark.parametrize("name", ATTENTIVE)
def test_relevance_is_linear_in_what_it_starts_with(name: str) -> None:
    network, images = network_of(name)
    leaf = images.requires_grad_()
    with AttentionFace().context(network):
        output = network(leaf)
        given = torch.randn_like(output)
        found, again = (torch.autograd.grad(output, leaf, f * given, retain_graph=True)[0] for f in (1, -2))
    torch.testing.assert_close(again, -2 * found, rtol=1e-4, atol=1e-4 * float(found.abs().max()))


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(SmallViT):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + super().forward(images)

    network = Twice().eval()
    with pytest.raises(InputError, match="used several times"):
        coverage(network, AttentionFace(), torch.rand(1, 3, 64, 48))


def test_what_attention_cannot_be_taken_apart_is_refused() -> None:
    attention = nn.MultiheadAttention(8, 2, add_zero_attn=True, batch_first=True).eval()
    with (
        pytest.raises(InputError, match="no rule for MultiheadAttention"),
        Composite(canonizers=[AttentionCanonizer()]).context(attention),
    ):
        attention(*[torch.rand(1, 3, 8)] * 3)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "hidden", "added", "each"])
def test_multihead_attention_is_taken_apart_as_it_computes(is_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=is_first, kdim=6, vdim=5).double().eval()
    query, key, value = numbers(3, 4, 8), numbers(3, 4, 6, seed=1), numbers(3, 4, 5, seed=2)
    count, heads = (4, 6) if is_first else (3, 8)
    masks = {
        "none": None,
        "hidden": torch.eye(count, dtype=torch.bool),
        "added": numbers(count, count),
        "each": numbers(heads, count, count),
    }
    expected = attention(query, key, value, attn_mask=masks[mask], need_weights=False)[0]
    with Composite(canonizers=[AttentionCanonizer()]).context(attention):
        found = attention(query, key, value, attn_mask=masks[mask], need_weights=False)[0]
    torch.testing.assert_close(found, expected)


def _noted(network: nn.Module) -> list[object]:
    """All that a canonizer may touch."""
    parts = [
        (name, sorted(vars(part)), len(part._forward_pre_hooks)) for name, part in network.named_modules()
    ]
    return [*parts, *((name, id(value)) for name, value in network.named_parameters())]
