"""Sanity by cascading parameter randomisation: the map of a network that knows nothing must be another one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from xfr_plugin.attr.registry import Method
from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.statistics import SMOOTHING, checked_smoothing
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.protocol import EvaluationPair, Measurement, MethodProtocol, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import (
    build,
    explained_probe,
    generator_for,
    rank_correlation,
)
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["Noise", "Randomisation", "embed_anew", "layers_from_output", "randomise"]

Noise: TypeAlias = Literal["shuffle", "normal"]
"""`shuffle`: the values of each parameter tensor change places.
`normal`: they are drawn anew from a Gaussian of the same mean and standard deviation."""


class Randomisation(MethodProtocol):
    """Layers are randomised from the output to the input, and the probe is explained again at several depths.

    Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018, arXiv 1810.03292). The recognizer itself is never
    changed, a copy is; black boxes are asked about the copy, too, and a method with a decoder or an evidence network
    keeps that of the unchanged recognizer. What is drawn differs from pair to pair, so that the mean does not hang on
    one draw.

    The running statistics of BatchNorm belong to the trained weights: left as they are, activations of a randomised
    network grow by orders of magnitude from layer to layer until they overflow. So each randomised BatchNorm gets one
    mean and one variance for all its channels, those of its input for the pair.

    Measured at each depth, in percent of the layers that have parameters of their own: `rank_correlation`,
    Spearman's, of the probe's map before and after, inside the face, both blurred; `magnitude_correlation`, the same
    of their magnitudes. Once: `remaining`, the magnitude of the rank correlation at the greatest depth; 0 is sane.

    One explanation of the probe and two forwards for each depth, 3 by default, and one forward for their order.

    Args:
        depths: shares of the layers, 0 … 1, that are randomised, counted from the output; at least one layer is.
        noise: see `Noise`.
        smoothing: σ of the blur, as a share of the face's height.

    Raises:
        InputError: an unknown option; a recognizer that is no network of torch.
    """

    name = "randomisation"
    title = "Parameter randomisation"
    higher_is_better: ClassVar[dict[str, bool]] = {"remaining": False}
    sides: Literal["both", "probe"] = "probe"
    options = ("depths", "noise", "smoothing")
    along = "layers randomised, from the output, %"

    def __init__(
        self,
        *,
        depths: Sequence[float] = (0.1, 0.5, 1.0),
        noise: Noise = "shuffle",
        smoothing: float = SMOOTHING,
    ) -> None:
        if not depths or not all(0 < depth <= 1 for depth in depths):
            raise InputError(f"depths are shares of the layers, above 0 and up to 1, got {depths!r}")
        self.noise: Noise = checked_choice("noise", noise, *get_args(Noise))
        self.depths, self.smoothing = tuple(sorted(set(depths))), checked_smoothing(smoothing)

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterator[Measurement]:
        """Randomise a copy further and further, and explain each time."""
        if setting.recognizer.gives != "gradient":
            raise InputError(
                f"{setting.recognizer.name} is no network of torch, so there are no parameters to randomise: leave "
                "this protocol out"
            )
        probe, reference = pair.images(setting.recognizer)
        changed = copy.deepcopy(setting.recognizer)
        layers = layers_from_output(changed.network, changed.preprocess(probe))
        rng, done, correlation = generator_for(setting, pair, self.name), 0, float("nan")
        face = pair.probe_regions.face
        for depth in self.depths:
            until = max(1, round(depth * len(layers)))
            for layer in layers[done:until]:
                randomise(layer, self.noise, rng)
            done = until
            partner = embed_anew(changed, torch.cat([probe, reference]), layers[:until])[1:]
            found = explained_probe(build(method, setting, changed), probe, reference, partner)
            correlation = rank_correlation(maps[0], found, face, self.smoothing)
            magnitudes = rank_correlation(np.abs(maps[0]), np.abs(found), face, self.smoothing)
            yield Measurement(self.noise, "rank_correlation", correlation, 100 * depth)
            yield Measurement(self.noise, "magnitude_correlation", magnitudes, 100 * depth)
        yield Measurement(self.noise, "remaining", abs(correlation))


@torch.no_grad()
def layers_from_output(network: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Modules with parameters, or BatchNorm's statistics, of their own, from the output to the input.

    Their order is that in which they are first called; if one is never called as a module, that of their definition.

    Raises:
        InputError: there are none.
    """
    layers = [m for m in network.modules() if list(m.parameters(recurse=False)) or _has_statistics(m)]
    if not layers:
        raise InputError("the network has no parameters, so there is nothing to randomise")
    called: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        if not any(module is known for known in called):
            called.append(module)

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(note))
        network(inputs)
    return (called if len(called) == len(layers) else layers)[::-1]


@torch.no_grad()
def randomise(layer: nn.Module, noise: Noise, rng: np.random.Generator) -> None:
    """Randomise a layer's own parameters in place, see `Noise`."""
    for parameter in layer.parameters(recurse=False):
        values = parameter.detach().double().cpu().numpy()
        if noise == "shuffle":
            drawn = rng.permutation(values.ravel()).reshape(values.shape)
        else:
            drawn = rng.normal(values.mean(), values.std(), values.shape)
        parameter.copy_(torch.from_numpy(drawn).to(parameter))


@torch.no_grad()
def embed_anew(recognizer: Recognizer, images: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """Unit embeddings, while the BatchNorms among some layers take their statistics from what passes.

    One mean and one variance for all channels, so that two images are enough: those of each channel would leave
    nothing of a pair's difference where a layer has a single position.
    """

    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = module.get_buffer("running_mean"), module.get_buffer("running_var")
        mean.fill_(inputs[0].mean())
        variance.fill_(inputs[0].var(correction=0))

    with ExitStack() as hooks:
        for layer in filter(_has_statistics, layers):
            hooks.enter_context(layer.register_forward_pre_hook(measure))
        embeddings: Tensor = recognizer(images)
    return embeddings


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
