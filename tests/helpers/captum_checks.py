"""What Captum's tools and tests ask of an attribution class, as checks that any pair attribution can be put through.

Each check takes a `Subject` and raises AssertionError if the class fails it, or `NotApplicable` with the reason if
the check does not concern it; the first line of its docstring says what it proves. `benchmarks/conformance.py` makes
the table of docs/captum.md of them, and `test_captum_conformance.py` runs them on every registered method.

A pair has one score, so Captum's targets become partners here: where Captum's tests ask that every example of a batch
is explained for its own target, these ask that it is explained against its own partner; and that a target is refused
with AssertionError, as Captum refuses one for a model with a single output. Maps are therefore computed once for all
configurations that differ in their targets alone, and every one's target is refused.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn
from torch.nn import functional

from helpers.captum_toys import (
    BrokenModuleError,
    NotApplicable,
    PairConfig,
    close,
    distinct_net,
    faces,
    fail,
    hwc,
    lit_net,
    nudge_nothing,
    pair_configs,
    perturb,
    raises,
    relative,
    rows,
    same_form,
    traceless,
)
from helpers.tiny_decoder import toy_decoder
from helpers.tiny_evidence import toy_evidence
from xfr_plugin.attr import METHODS, Method, PairAttribution
from xfr_plugin.errors import InputError

TAU = 0.2

_NO_MAPS = (("feature maps",), "its models of three numbers have no feature maps")
_NO_CONVOLUTION = (("convolutional network",), "its models of three numbers have no convolution")
_NO_RULE = (
    ("cannot read the forward function", "no rule for"),
    "Captum's models compute outside of modules, and end in a softmax, which relevance has no rules for",
)

_NO_SOFTMAX = (("no rule for softmax",), "those models end in a softmax, which the rescale rule is not for")

_NO_REPLICAS = "DataParallel is refused: rules are attached to modules, which it replicates"


@dataclass(frozen=True)
class Subject:
    """A class under test.

    Attributes:
        name: of the method.
        cls: the class.
        needs: what it asks of a recognizer, see `Method.needs`.
        needs_both_images: whether it refuses a probe against an embedding.
        options: with which it is built.
    """

    name: str
    cls: type[PairAttribution]
    needs: str
    needs_both_images: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: Method) -> Subject:
        """A method with small option values."""
        return cls(method.name, method.cls, method.needs, method.needs_both_images, method.trial_options)

    def build(self, forward_func: Callable[..., Tensor]) -> PairAttribution:
        return self.cls(forward_func, TAU, **self.options)

    def refusals(self) -> tuple[tuple[str, ...], str]:
        """What it says (a part of its message) of those of Captum's models that it refuses, and why it may."""
        if self.needs == "composite":
            return _NO_RULE
        if self.needs == "evidence":
            return _NO_MAPS
        if self.name == "deeplift":
            return _NO_SOFTMAX
        reads_a_layer = "layer" in inspect.signature(self.cls).parameters
        return _NO_CONVOLUTION if reads_a_layer else ((), "")


def subjects() -> dict[str, Subject]:
    """Every registered method."""
    return {name: Subject.of(method) for name, method in METHODS.items()}


def check_captum_configs(subject: Subject) -> str:
    """Form, every example by itself, forward arguments, and every kind of target refused."""

    def check(config: PairConfig, *alike: PairConfig) -> None:
        attribution = built(subject, config.model, (config.pair[0], *(config.arguments or ())))
        with traceless(config.model):
            maps = attribution.attribute(config.pair, additional_forward_args=config.arguments)
        same_form(maps, config.pair)
        for i in (0, 2):
            alone = attribution.attribute(
                tuple(side[i : i + 1] for side in config.pair),
                additional_forward_args=rows(config.arguments, i, len(config.pair[0])),
            )
            close(alone, tuple(side[i : i + 1] for side in maps), f"{config.name}: example {i}", 1e-4)
        for each in (config, *alike):
            refuses_target(attribution, each)

    return over_configs(subject, check, noisy=False)


def check_noise_tunnel_configs(subject: Subject) -> str:
    """Without noise, the tunnel gives the plain maps."""

    def check(config: PairConfig, *_: PairConfig) -> None:
        attribution = built(subject, config.model, (config.pair[0], *(config.arguments or ())))
        plain = attribution.attribute(config.pair, additional_forward_args=config.arguments)
        noise = {**config.noise, "nt_samples": 3}
        with traceless(config.model):
            maps = NoiseTunnel(attribution).attribute(
                config.pair, additional_forward_args=config.arguments, **noise
            )
        same_form(maps, config.pair)
        close(maps, plain, config.name, 1e-4)

    return over_configs(subject, check, noisy=True)


def check_distinct_partners(subject: Subject) -> None:
    """Every probe of a batch is explained against its own partner, on a model whose channels differ."""
    model, (probe, reference) = distinct_net(), faces()
    attribution = built(subject, model)
    maps = attribution.attribute((probe, reference))
    for i in range(len(probe)):
        alone = attribution.attribute((probe[i : i + 1], reference[i : i + 1]))
        close(alone, tuple(side[i : i + 1] for side in maps), f"pair {i}")
    others = attribution.attribute((probe, reference.roll(1, 0)))
    for i in range(len(probe)):
        assert relative(others[0][i], maps[0][i]) > 1e-4, "the partner must matter to the map"


def check_tuples(subject: Subject) -> None:
    """A tensor gives a tensor, a tuple a tuple; an embedding stands for its image, or for all of them."""
    model, (probe, reference) = distinct_net(), faces()
    attribution = built(subject, model)
    embedding = model(reference).detach()
    pair = attribution.attribute((probe, reference))
    assert isinstance(pair, tuple)
    same_form(pair, (probe, reference))
    assert all(bool(side.abs().sum() > 0) for side in pair), "the maps are empty"
    if subject.needs_both_images:
        raises(InputError, lambda: attribution.attribute(probe, additional_forward_args=embedding))
        return
    alone = attribution.attribute(probe, additional_forward_args=embedding)
    in_tuple = attribution.attribute((probe,), additional_forward_args=(embedding * 3,))
    assert isinstance(alone, Tensor)
    assert isinstance(in_tuple, tuple)
    assert len(in_tuple) == 1
    close((alone,), in_tuple, "probe with the partner's embedding, as a tensor and in a tuple")
    if not attribution.reads_both_faces:
        close((alone,), pair[:1], "probe with the partner's embedding")
    for shared in (embedding[:1], embedding[0]):
        maps = attribution.attribute(probe, additional_forward_args=shared)
        expected = attribution.attribute(probe, additional_forward_args=embedding[:1].expand(len(probe), -1))
        close((maps,), (expected,), "one embedding for all probes")


def check_forward_arguments(subject: Subject) -> None:
    """Further forward arguments, a tensor with a row for each pair and a number, reach the model."""
    model, (probe, reference) = lit_net(), faces()
    example = (probe, torch.ones(3, dtype=torch.float64), 0)
    attribution = built(subject, model, example)
    plain = attribution.attribute((probe, reference), additional_forward_args=example[1:])
    gains = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    for arguments in ((gains, 0), (gains, 1), (example[1], 1)):
        with traceless(model):
            maps = attribution.attribute((probe, reference), additional_forward_args=arguments)
        same_form(maps, (probe, reference))
        if not attribution.reads_both_faces:
            embedding = model(reference, *arguments).detach()
            alone = attribution.attribute(probe, additional_forward_args=(embedding, *arguments))
            close((alone,), maps[:1], "forward arguments after the partner's embedding")
        assert relative(maps[0], plain[0]) > 1e-6, "the arguments must matter to the map"


def check_precision(subject: Subject) -> None:
    """Maps are of the inputs' type, float64 and float32, and agree."""
    model, pair = distinct_net(), faces()
    double = built(subject, model).attribute(pair)
    single_model = copy.deepcopy(model).float()
    single_pair = tuple(image.float() for image in pair)
    single = built(subject, single_model).attribute(single_pair)
    same_form(double, pair)
    same_form(single, single_pair)
    close(tuple(side.double() for side in single), double, "float32 against float64", 2e-2)


def check_no_grad(subject: Subject) -> None:
    """Under `torch.no_grad()`, and on inputs that require gradients, the maps are the same and carry none."""
    model, pair = distinct_net(), faces()
    attribution = built(subject, model)
    expected = attribution.attribute(pair)
    leaves = tuple(image.clone().requires_grad_() for image in pair)
    with traceless(model), torch.no_grad():
        close(attribution.attribute(leaves), expected, "under no_grad", 1e-9)
    with traceless(model):
        maps = attribution.attribute(leaves)
    close(maps, expected, "inputs that require gradients", 1e-9)
    assert not any(side.requires_grad for side in maps)
    assert all(leaf.requires_grad and leaf.grad is None for leaf in leaves)
    frozen = copy.deepcopy(model).requires_grad_(False)
    close(built(subject, frozen).attribute(pair), expected, "a frozen model", 1e-9)


def check_hooks_removed(subject: Subject) -> None:
    """Hooks, gradients, modes and weights are as before: after success, a wrong target, and a failing module."""
    model, pair = distinct_net(), faces(2)
    attribution = built(subject, model)
    with traceless(model):
        attribution.attribute(pair)
    with traceless(model):
        raises(AssertionError, lambda: attribution.attribute(pair, target=(9999,) * 20))
    broken = distinct_net()
    attribution = built(subject, broken)
    broken.conv2.forward = fail
    with traceless(broken):
        raises(BrokenModuleError, lambda: attribution.attribute(pair))
    del broken.conv2.forward
    fresh = built(subject, distinct_net()).attribute(pair)
    close(attribution.attribute(pair), fresh, "after a failing module", 1e-9)


def check_noise_tunnel(subject: Subject) -> None:
    """NoiseTunnel in batches: over pairs with noise, for each of its three kinds, and over probes alone without."""
    model, pair = distinct_net(), faces(2)
    attribution = built(subject, model)
    tunnel = NoiseTunnel(attribution)
    for kind in ("smoothgrad", "smoothgrad_sq", "vargrad"):
        torch.manual_seed(0)
        with traceless(model):
            maps = tunnel.attribute(pair, nt_type=kind, nt_samples=3, stdevs=0.05, nt_samples_batch_size=2)
        same_form(maps, pair)
        if kind != "smoothgrad":
            assert all(bool((side >= 0).all()) for side in maps)
    if subject.needs_both_images:
        return
    embedding = model(pair[1]).detach()
    plain = attribution.attribute(pair[0], additional_forward_args=embedding)
    with traceless(model):
        alone = tunnel.attribute(
            pair[0], additional_forward_args=embedding, nt_samples=3, stdevs=1e-9, nt_samples_batch_size=2
        )
    same_form((alone,), pair[:1])
    close((alone,), (plain,), "probes alone, without noise", 1e-4)


def check_infidelity(subject: Subject) -> None:
    """`captum.metrics.infidelity` accepts the maps, and calls them as good as any rescaling, normalised."""
    model, pair = distinct_net(), faces(2)
    maps = built(subject, model).attribute(pair)

    def score(probe: Tensor, reference: Tensor) -> Tensor:
        return functional.cosine_similarity(model(probe), model(reference))

    def measured(attributions: tuple[Tensor, ...]) -> Tensor:
        torch.manual_seed(0)
        value: Tensor = infidelity(
            score, perturb, pair, attributions, n_perturb_samples=8, max_examples_per_batch=4, normalize=True
        )
        return value

    value = measured(maps)
    assert value.shape == (2,)
    assert bool(torch.isfinite(value).all())
    assert bool((value >= 0).all())
    torch.testing.assert_close(measured(tuple(3 * side for side in maps)), value)


def check_sensitivity(subject: Subject) -> None:
    """`captum.metrics.sensitivity_max` runs over pairs and over probes alone, and is 0 without perturbation."""
    model, (probe, reference) = distinct_net(), faces(2)
    attribution = built(subject, model)
    embedding = model(reference).detach()
    calls: list[tuple[Any, dict[str, Any]]] = [((probe, reference), {})]
    if not subject.needs_both_images:
        calls.append((probe, {"additional_forward_args": embedding}))
    for inputs, keywords in calls:
        value = sensitivity_max(attribution.attribute, inputs, n_perturb_samples=2, **keywords)
        assert value.shape == (2,)
        assert bool(torch.isfinite(value).all())
        still = sensitivity_max(attribution.attribute, inputs, nudge_nothing, n_perturb_samples=1, **keywords)
        assert bool((still < 1e-6).all()), "the same faces must have the same maps"


def check_visualization(subject: Subject) -> None:
    """`visualize_image_attr` draws the map of each face, signed, over the face."""
    model, pair = distinct_net(), faces(1)
    maps = built(subject, model).attribute(pair)
    options = {"method": "blended_heat_map", "sign": "all", "use_pyplot": False, "show_colorbar": True}
    for image, side in zip(pair, maps, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure, axes = visualization.visualize_image_attr(hwc(side), hwc(image), **options)
        assert axes.images
        figure.clear()


def check_data_parallel(subject: Subject) -> None:
    """A model in DataParallel gives the maps of the model, on the CUDA devices that there are."""
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here; without one DataParallel only passes calls on")
    if subject.needs == "composite":
        raise NotApplicable(_NO_REPLICAS)
    model, pair = distinct_net().cuda(), tuple(image.cuda() for image in faces(4))
    expected = built(subject, model).attribute(pair)
    wrapped = nn.DataParallel(model)
    with traceless(wrapped):
        close(built(subject, wrapped).attribute(pair), expected, "DataParallel", 1e-6)


def check_wrapped(subject: Subject) -> str:
    """A model inside another module (a Sequential, DataParallel without devices) gives the maps of the model."""
    model, pair = distinct_net(), faces(2)
    expected = built(subject, model).attribute(pair)
    close(built(subject, nn.Sequential(model)).attribute(pair), expected, "Sequential", 1e-9)
    if torch.cuda.is_available():
        return ""
    parallel = nn.DataParallel(model)
    if subject.needs == "composite":
        raises(InputError, lambda: built(subject, parallel).attribute(pair))
        return _NO_REPLICAS
    close(built(subject, parallel).attribute(pair), expected, "DataParallel", 1e-9)
    return ""


def check_contract(subject: Subject) -> None:
    """What Captum reads off a class: its name, delta, and whether maps carry the factor of the input."""
    attribution = built(subject, distinct_net())
    assert attribution.get_name().replace(" ", "") == type(attribution).__name__
    assert isinstance(attribution, Attribution)
    arguments = inspect.signature(attribution.attribute).parameters
    assert attribution.has_convergence_delta() == ("return_convergence_delta" in arguments)
    assert isinstance(attribution.multiplies_by_inputs, bool)
    assert hasattr(type(attribution).attribute, "__wrapped__"), "NoiseTunnel calls attribute.__wrapped__"


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "Captum's configurations": check_captum_configs,
    "Captum's NoiseTunnel configurations": check_noise_tunnel_configs,
    "own partner each": check_distinct_partners,
    "tensors and tuples": check_tuples,
    "forward arguments": check_forward_arguments,
    "float64 and float32": check_precision,
    "no_grad": check_no_grad,
    "hooks removed": check_hooks_removed,
    "NoiseTunnel": check_noise_tunnel,
    "infidelity": check_infidelity,
    "sensitivity_max": check_sensitivity,
    "visualize_image_attr": check_visualization,
    "wrapped models": check_wrapped,
    "DataParallel": check_data_parallel,
    "class contract": check_contract,
}
"""Title of a check → check. What a check returns is a remark for the table."""


def outcome(subject: Any, check: Callable[[Any], str | None]) -> tuple[bool | None, str]:
    """Run a check: whether it passed (None: not applicable), and a remark or why not."""
    try:
        remark = check(subject)
    except NotApplicable as reason:
        return None, str(reason)
    except Exception as problem:
        return False, f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    return True, remark or ""


def built(subject: Subject, model: nn.Module, example: tuple[Any, ...] | None = None) -> PairAttribution:
    """Build the class; one that needs a decoder or an evidence network gets a small one for the model."""
    if subject.needs not in ("decoder", "evidence"):
        return subject.build(model)
    images, *arguments = example or faces()[:1]
    if subject.needs == "evidence":
        network = toy_evidence(copy.deepcopy(model), images, *arguments)
        return replace(subject, options={**subject.options, "network": network}).build(model)
    with torch.no_grad():
        weights = next(model.parameters(), images)
        dim = copy.deepcopy(model)(images.to(weights), *arguments).shape[1]
    decoder = toy_decoder(dim, (images.shape[2], images.shape[3]))
    return replace(subject, options={**subject.options, "decoder": decoder}).build(model)


def over_configs(subject: Subject, check: Callable[..., None], noisy: bool) -> str:
    """Run a check on Captum's configurations, and say which models the class refuses, as `refusals` foresees.

    The check gets the configurations of one kind together, those of the fewest pairs first.

    Raises:
        NotApplicable: it refuses all of them.
    """
    configs = [config for config in pair_configs()[0] if bool(config.noise) == noisy]
    expected, reason = subject.refusals()
    kinds: dict[tuple[object, ...], list[PairConfig]] = {}
    for config in sorted(configs, key=lambda config: len(config.pair[0])):
        kinds.setdefault(config.kind(), []).append(config)
    refused = sum(len(alike) for alike in kinds.values() if _refused(partial(check, *alike), expected))
    if refused == len(configs):
        raise NotApplicable(reason)
    return f"but for {refused} of {len(configs)} configurations: {reason}" if refused else ""


def _refused(call: Callable[[], None], expected: tuple[str, ...]) -> bool:
    """Whether a call is refused with expected words; any other refusal is an error."""
    try:
        call()
    except InputError as refusal:
        if not any(words in str(refusal) for words in expected):
            raise
        return True
    return False


def refuses_target(attribution: PairAttribution, config: PairConfig) -> None:
    if config.target is None:
        return
    raises(
        AssertionError,
        lambda: attribution.attribute(
            config.pair, target=config.target, additional_forward_args=config.arguments
        ),
    )
