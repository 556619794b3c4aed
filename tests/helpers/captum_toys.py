"""Toy models, Captum's configurations turned to faces, and comparisons: what the conformance checks share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.testing.attr.helpers.test_config import config as captum_configs
from torch import Tensor, nn

OTHER_CLASSES_ARGUMENTS = {
    "baselines",
    "internal_batch_size",
    "n_samples",
    "perturbations_per_eval",
    "sliding_window_shapes",
}
"""Arguments of `attribute` that belong to classes of Captum's; ours take such at construction, or not at all."""


class NotApplicable(Exception):  # noqa: N818  # not an error
    """Why a check does not concern a class."""


class DistinctNet(nn.Module):
    """Faces N×3×16×12 to embeddings N×5 whose channels have different gradients, unlike those of Captum's models."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(8 * 8 * 6, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu1(self.conv1(images))
        x = self.relu2(self.conv2(x))
        embedding: Tensor = self.fc(x.flatten(1))
        return embedding


class LitNet(nn.Module):
    """`DistinctNet` with two further arguments: a gain for each face (N), and a shift of all colours (a number)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DistinctNet()

    def forward(self, images: Tensor, gain: Tensor, shift: int) -> Tensor:
        embedding: Tensor = self.network(images * gain.view(-1, 1, 1, 1) + shift)
        return embedding


class ByColour(nn.Module):
    """One of Captum's models of three features, fed with the mean of each colour of a face N×3×H×W.

    For its models of two inputs the second is zero: probe and reference both go through the first.
    """

    def __init__(self, model: nn.Module, inputs: int) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, images: Tensor, *arguments: Any) -> Tensor:
        features = images.mean(dim=(2, 3))
        zeros = [torch.zeros_like(features)] * (self.inputs - 1)
        output: Tensor = self.model(features, *zeros, *arguments)
        return output


def lit_net() -> nn.Module:
    torch.manual_seed(0)
    return LitNet().double().eval()


def distinct_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return DistinctNet().double().eval()


def faces(count: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Probes and references, each count×3×16×12 in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    probe, reference = torch.rand(2, count, 3, 16, 12, generator=generator, dtype=torch.float64)
    return probe, reference


@dataclass(frozen=True)
class PairConfig:
    """One of Captum's configurations, for pairs.

    Attributes:
        name: Captum's.
        model: maps faces and further arguments to embeddings.
        pair: probes and references.
        arguments: further forward arguments, or None.
        target: Captum's target, for pair classes to refuse.
        noise: arguments of NoiseTunnel.
    """

    name: str
    model: nn.Module
    pair: tuple[Tensor, Tensor]
    arguments: tuple[Any, ...] | None
    target: Any
    noise: Mapping[str, Any]

    def kind(self) -> tuple[object, ...]:
        """Equal for configurations that differ in targets, random numbers and the number of pairs alone."""
        arguments = tuple(type(v) if isinstance(v, Tensor) else v for v in self.arguments or ())
        return repr(self.model), self.pair[0].shape[1:], arguments, tuple(self.noise.items())


def pair_configs() -> tuple[list[PairConfig], dict[str, str]]:
    """Captum's configurations as far as they can be put to pairs, and why the others cannot."""
    configs, reasons = [], {}
    for config in captum_configs:
        reason = _why_not(config)
        if reason is None:
            configs.append(_for_pairs(config))
        else:
            reasons[config["name"]] = reason
    return configs, reasons


def _why_not(config: Mapping[str, Any]) -> str | None:
    if "layer" in config:
        return "explains the units of a layer, not an input"
    if config.get("baseline_distr"):
        return "is about a distribution of baselines, which no pair class takes"
    if type(config["model"]).__name__ == "ReLULinearModel":
        return "its model has a single output, which is no embedding: the cosine of two numbers is ±1"
    return None


def _for_pairs(config: Mapping[str, Any]) -> PairConfig:
    given = {k: v for k, v in config["attribute_args"].items() if k not in OTHER_CLASSES_ARGUMENTS}
    inputs = given.pop("inputs")
    inputs = inputs if isinstance(inputs, tuple) else (inputs, inputs.flip(0) * 0.7)
    model = copy.deepcopy(config["model"]).double().eval()
    if inputs[0].ndim == 2:  # three features become the three colours of a face
        count = 2 if type(model).__name__.endswith("MultiInput") else 1
        model = ByColour(model, count)
        inputs = tuple(_coloured(features) for features in inputs)
    arguments = given.pop("additional_forward_args", None)
    if arguments is not None:
        # an embedding is N×D: the switch of Captum's model to more dimensions stays off
        arguments = tuple(_as_forward_argument(value) for value in arguments)
    return PairConfig(
        name=config["name"],
        model=model,
        pair=tuple(image.double() for image in inputs),
        arguments=arguments,
        target=given.pop("target", None),
        noise=given,
    )


def _coloured(features: Tensor) -> Tensor:
    """Faces N×3×16×12 whose mean colours are the features N×3."""
    generator = torch.Generator().manual_seed(3)
    texture = torch.rand(16, 12, generator=generator) + 0.5
    return features[..., None, None] * (texture / texture.mean())


def _as_forward_argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double()
    return False if value is True else value


class BrokenModuleError(AssertionError):
    """Raised by a module that fails, as in Captum's own tests of hook removal."""


def fail(*_: object) -> Tensor:
    raise BrokenModuleError("this module fails")


def raises(kind: type[BaseException], call: Callable[[], object]) -> None:
    with suppress(kind):
        call()
        raise RuntimeError(f"expected {kind.__name__}")


def same_form(maps: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    """Maps are finite, contiguous, detached, and of the inputs' shapes, types and devices."""
    assert isinstance(maps, tuple)
    assert len(maps) == len(inputs)
    for side, image in zip(maps, inputs, strict=True):
        assert side.shape == image.shape
        assert side.dtype == image.dtype
        assert side.device == image.device
        assert side.is_contiguous()
        assert not side.requires_grad
        assert bool(torch.isfinite(side).all()), "the map holds values that are not finite"


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest expected magnitude; maps of rounding errors are equal."""
    scale = float(expected.abs().max())
    return float((found - expected).abs().max()) / max(scale, 1e-9)


def close(
    found: tuple[Tensor, ...], expected: tuple[Tensor, ...], what: str, tolerance: float = 1e-6
) -> None:
    for side, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        difference = relative(mine, theirs)
        assert difference <= tolerance, f"{what}: maps of face {side} differ by {difference:.1e}"


@contextmanager
def traceless(model: nn.Module) -> Iterator[None]:
    """Check that a block leaves no hook, gradient, mode or weight of the model changed, whatever happens in it."""
    before, weights = _state(model), copy.deepcopy(model.state_dict())
    try:
        yield
    finally:
        assert _state(model) == before, "the model was left changed"
        assert model.state_dict().keys() == weights.keys(), "the model's weights were renamed"
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name]), f"weights {name} were changed"


def _state(model: nn.Module) -> list[object]:
    hooks = [
        (
            type(m).__name__,
            m.training,
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            len(m._backward_hooks),
        )
        for m in model.modules()
    ]
    return [hooks, [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()]]


def rows(arguments: tuple[Any, ...] | None, i: int, count: int) -> tuple[Any, ...] | None:
    if arguments is None:
        return None
    return tuple(v[i : i + 1] if isinstance(v, Tensor) and len(v) == count else v for v in arguments)


def perturb(inputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    noise = tuple(0.03 * torch.randn_like(image) for image in inputs)
    return noise, tuple(image - change for image, change in zip(inputs, noise, strict=True))


def nudge_nothing(inputs: Any, radius: float = 0.0) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def hwc(images: Tensor) -> np.ndarray:
    array: np.ndarray = images[0].permute(1, 2, 0).numpy()
    return array
