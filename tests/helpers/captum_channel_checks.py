"""The checks for classes whose target is a channel of one face's embedding: Captum's targets apply as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Attribution, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from helpers.captum_toys import (
    BrokenModuleError,
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
from xfr_plugin.attr import ReconstructionExplainer
from xfr_plugin.reconstruction import Decoder, DecoderCard

CHANNELS = 5
"""Of `DistinctNet`'s embedding."""


@dataclass(frozen=True)
class ChannelSubject:
    """A class under test: how it is built for a model with so many channels."""

    name: str
    build: Callable[[nn.Module, int], Attribution]


def toy_decoder(channels: int) -> Decoder:
    """An untrained decoder, large enough for the maps of its channels to differ."""
    torch.manual_seed(channels)
    card = DecoderCard(
        name="toy",
        recognizer="toy",
        recognizer_sha256="",
        embedding_dim=channels,
        input_size=(16, 12),
        output_size=(16, 12),
        widths=(4, 4, 4),
    )
    atlas = torch.rand(channels, 16, 12)
    return Decoder(card.build_network(), card, atlas, torch.randn(channels), torch.rand(3, 16, 12)).double()


def subjects() -> dict[str, ChannelSubject]:
    listed = (
        ChannelSubject(
            "ReconstructionExplainer",
            lambda model, channels: ReconstructionExplainer(model, toy_decoder(channels), batch_size=8),
        ),
    )
    return {subject.name: subject for subject in listed}


def check_captum_configs(subject: ChannelSubject) -> None:
    """Captum's target test: a list or tensor of targets gives what each example's own target gives."""
    for config in pair_configs()[0]:
        inputs, count = config.pair[0], len(config.pair[0])
        channels = config.model(inputs, *(config.arguments or ())).shape[1]
        attribution = subject.build(config.model, channels)
        if _has_tuples(config.target):  # an embedding has one index a channel, not three
            with traceless(config.model):
                raises(Exception, lambda a=attribution, c=config: _attributed(a, c))
            continue
        with traceless(config.model):
            maps = _attributed(attribution, config)
        same_form((maps,), (inputs,))
        for i in (0, count - 1):
            alone = attribution.attribute(
                inputs[i : i + 1],
                target=_target_of(config.target, i),
                additional_forward_args=rows(config.arguments, i, count),
            )
            close((alone,), (maps[i : i + 1],), f"{config.name}: example {i}", 1e-6)


def check_distinct_channels(subject: ChannelSubject) -> None:
    """On a model whose channels differ, each example of a batch gets its own channel."""
    model, (images, _) = distinct_net(), faces()
    attribution = subject.build(model, CHANNELS)
    maps = attribution.attribute(images, target=[0, 3, 4])
    for i, channel in enumerate((0, 3, 4)):
        alone = attribution.attribute(images[i : i + 1], target=channel)
        close((alone,), (maps[i : i + 1],), f"channel {channel}")
    same = attribution.attribute(images, target=0)
    assert relative(maps[1], same[1]) > 1e-4, "the target must matter to the map"
    close((attribution.attribute(images, target=torch.tensor([0])),), (same,), "a tensor of one")
    close((attribution.attribute(images, target=(0,)),), (same,), "a tuple of one")
    close((attribution.attribute(images, target=torch.tensor([0, 3, 4])),), (maps,), "a tensor")


def check_tuples(subject: ChannelSubject) -> None:
    """A tensor gives a tensor, a tuple of one a tuple of one."""
    model, (images, _) = distinct_net(), faces()
    attribution = subject.build(model, CHANNELS)
    alone = attribution.attribute(images, target=1)
    in_tuple = attribution.attribute((images,), target=1)
    assert isinstance(alone, Tensor)
    assert isinstance(in_tuple, tuple)
    close(in_tuple, (alone,), "a tuple of one")
    assert bool(alone.abs().sum() > 0)


def check_forward_arguments(subject: ChannelSubject) -> None:
    """Further forward arguments reach the model."""
    model, (images, _) = lit_net(), faces()
    attribution = subject.build(model, CHANNELS)
    gains = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    maps = attribution.attribute(images, target=2, additional_forward_args=(gains, 1))
    changed = images * gains.view(-1, 1, 1, 1) + 1
    plain = subject.build(distinct_net(), CHANNELS)
    close((maps,), (plain.attribute(changed, target=2),), "forward arguments")
    assert relative(maps, plain.attribute(images, target=2)) > 1e-6


def check_precision(subject: ChannelSubject) -> None:
    """Maps are of the inputs' type, float64 and float32, and agree."""
    images = faces()[0]
    double = subject.build(distinct_net(), CHANNELS).attribute(images, target=1)
    single = subject.build(distinct_net().float(), CHANNELS).attribute(images.float(), target=1)
    same_form((double,), (images,))
    same_form((single,), (images.float(),))
    close((single.double(),), (double,), "float32 against float64", 2e-2)


def check_no_grad(subject: ChannelSubject) -> None:
    """Under `torch.no_grad()`, and on inputs that require gradients, the maps are the same and carry none."""
    model, (images, _) = distinct_net(), faces()
    attribution = subject.build(model, CHANNELS)
    expected = attribution.attribute(images, target=1)
    leaf = images.clone().requires_grad_()
    with traceless(model), torch.no_grad():
        close((attribution.attribute(leaf, target=1),), (expected,), "under no_grad")
    with traceless(model):
        maps = attribution.attribute(leaf, target=1)
    same_form((maps,), (images,))
    close((maps,), (expected,), "inputs that require gradients")
    assert leaf.requires_grad
    assert leaf.grad is None


def check_hooks_removed(subject: ChannelSubject) -> None:
    """Nothing is left on the model after success, a wrong target, and a failing module."""
    model, (images, _) = distinct_net(), faces(2)
    attribution = subject.build(model, CHANNELS)
    with traceless(model):
        attribution.attribute(images, target=1)
    with traceless(model):
        raises(AssertionError, lambda: attribution.attribute(images, target=(9999,) * 20))
    with traceless(model):
        raises(AssertionError, lambda: attribution.attribute(images))
    broken = distinct_net()
    broken.conv2.forward = fail
    attribution = subject.build(broken, CHANNELS)
    with traceless(broken):
        raises(BrokenModuleError, lambda: attribution.attribute(images, target=1))


def check_noise_tunnel(subject: ChannelSubject) -> None:
    """NoiseTunnel, in batches, with a target for each example; without noise it gives the plain maps."""
    model, (images, _) = distinct_net(), faces()
    attribution = subject.build(model, CHANNELS)
    tunnel = NoiseTunnel(attribution)
    plain = attribution.attribute(images, target=[0, 3, 4])
    still = tunnel.attribute(images, target=[0, 3, 4], nt_samples=4, nt_samples_batch_size=2, stdevs=0.0)
    close((still,), (plain,), "without noise", 1e-5)
    for kind in ("smoothgrad", "smoothgrad_sq", "vargrad"):
        noisy = tunnel.attribute(images, target=[0, 3, 4], nt_type=kind, nt_samples=3, stdevs=0.1)
        same_form((noisy,), (images,))


def check_infidelity(subject: ChannelSubject) -> None:
    """`captum.metrics.infidelity` of the channel's value accepts the maps."""
    model, (images, _) = distinct_net(), faces(2)
    maps = subject.build(model, CHANNELS).attribute(images, target=[1, 4])
    value = infidelity(model, _perturb_one, images, maps, target=[1, 4], n_perturb_samples=4, normalize=True)
    assert value.shape == (2,)
    assert bool(torch.isfinite(value).all())


def check_sensitivity(subject: ChannelSubject) -> None:
    """`captum.metrics.sensitivity_max` runs, and is 0 without perturbation."""
    model, (images, _) = distinct_net(), faces(2)
    attribution = subject.build(model, CHANNELS)
    value = sensitivity_max(attribution.attribute, images, n_perturb_samples=2, target=[1, 4])
    assert value.shape == (2,)
    assert bool(torch.isfinite(value).all())
    still = sensitivity_max(attribution.attribute, images, nudge_nothing, n_perturb_samples=2, target=[1, 4])
    assert bool((still < 1e-6).all())


def check_visualization(subject: ChannelSubject) -> None:
    """`visualize_image_attr` draws the map over the face."""
    images = faces(1)[0]
    maps = subject.build(distinct_net(), CHANNELS).attribute(images, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, axes = visualization.visualize_image_attr(
            hwc(maps), hwc(images), method="blended_heat_map", sign="all", use_pyplot=False
        )
    assert axes.images
    figure.clear()


CHANNEL_CHECKS: dict[str, Callable[[ChannelSubject], None]] = {
    "Captum's configurations": check_captum_configs,
    "own channel each": check_distinct_channels,
    "tensors and tuples": check_tuples,
    "forward arguments": check_forward_arguments,
    "float64 and float32": check_precision,
    "no_grad": check_no_grad,
    "hooks removed": check_hooks_removed,
    "NoiseTunnel": check_noise_tunnel,
    "infidelity": check_infidelity,
    "sensitivity_max": check_sensitivity,
    "visualize_image_attr": check_visualization,
}
"""Title of a check → check."""


def _attributed(attribution: Attribution, config: Any) -> Tensor:
    """Attribute Captum's own target, through NoiseTunnel where the configuration says so."""
    inputs, keywords = config.pair[0], {"target": config.target, "additional_forward_args": config.arguments}
    if config.noise:
        return NoiseTunnel(attribution).attribute(inputs, **keywords, **{**config.noise, "nt_samples": 4})
    maps: Tensor = attribution.attribute(inputs, **keywords)
    return maps


def _has_tuples(target: Any) -> bool:
    return isinstance(target, list) and isinstance(target[0], tuple)


def _target_of(target: Any, i: int) -> int:
    """The channel of example i."""
    if isinstance(target, Tensor):
        return int(target[i if target.numel() > 1 else 0])
    return int(target[i]) if isinstance(target, list) else int(target)


def _perturb_one(images: Tensor) -> tuple[Tensor, Tensor]:
    noise, moved = perturb((images, images))
    return noise[0], moved[0]
