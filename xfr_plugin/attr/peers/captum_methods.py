"""Captum's gradient methods on pairs: integrated gradients, input × gradient, SmoothGrad, DeepLift.

But for DeepLift nothing is rewritten: each class hands the faces and a `CosineHead` to Captum's own, and adds what a
pair needs: both faces, each against the other's embedding, bounded memory, and random numbers that do not depend on
the batch. DeepLift's rule is met in `_base.rectified`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from xfr_plugin.attr._base.baselines import Baseline, baseline_images, checked_baseline
from xfr_plugin.attr._base.caveats import AGAINST_BASELINE, LITTLE_BETTER, TOO_FEW
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.on_cosine import BaselineAttribution, CosineAttribution, checked_count
from xfr_plugin.attr._base.rectified import Call, multipliers, recorded
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.base.captum import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.randomness import seeded
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["PairDeepLift", "PairInputXGradient", "PairIntegratedGradients", "PairSmoothGrad"]

_METHODS = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid")
_NOISE_TYPES = ("smoothgrad", "smoothgrad_sq", "vargrad")


@attribution_method(
    name="integrated_gradients",
    title="Integrated gradients",
    paper="Sundararajan, Taly and Yan, arXiv 1703.01365",
    year=2017,
    needs="gradient",
    cost="1 forward; 50 forward and backward a face",
    relative_cost=155,
    caveat=f"{AGAINST_BASELINE}; {LITTLE_BETTER}",
    batchable=True,
    trial_options={"n_steps": 10},
)
class PairIntegratedGradients(BaselineAttribution):
    """Integrated gradients (Sundararajan et al., ICML 2017, arXiv 1703.01365) of the cosine.

    Each face moves from its baseline to itself, its partner's embedding being fixed. The map of each face sums to
    s − s₀, its score less that of its baseline, up to the error of the quadrature.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        baseline: where the path begins, see `Baseline`. Pixels like the baseline get no attribution.
        n_steps: points on the path.
        method: quadrature, as Captum names it.
        internal_batch_size: images in one backward pass; bounds the memory.

    Raises:
        InputError: an unknown option.

    Example:
        >>> integrated = PairIntegratedGradients(recognizer, baseline="blur", n_steps=20)
        >>> probe_map, reference_map = integrated.attribute((probe, reference))
        >>> integrated.multiplies_by_inputs
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        baseline: Baseline = "black",
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int = 32,
    ) -> None:
        super().__init__(forward_func, threshold)
        if method not in _METHODS:
            raise InputError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        self.baseline = checked_baseline(baseline)
        self.n_steps = checked_count("n_steps", n_steps)
        self.method = method
        self.internal_batch_size = checked_count("internal_batch_size", internal_batch_size)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Maps carry the factor input − baseline."""
        return True

    def _batch_size(self) -> int:
        return self.internal_batch_size

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        maps: Tensor = IntegratedGradients(head).attribute(
            images,
            baselines=baseline_images(images.detach(), self.baseline),
            additional_forward_args=arguments,
            n_steps=self.n_steps,
            method=self.method,
            internal_batch_size=self.internal_batch_size,
        )
        return maps


@attribution_method(
    name="input_x_gradient",
    title="Input times gradient",
    paper="Shrikumar, Greenside, Shcherbina and Kundaje, arXiv 1605.01713",
    year=2016,
    needs="gradient",
    cost="1 forward; 1 forward and backward a face",
    relative_cost=4.5,
    caveat=f"{AGAINST_BASELINE}; {LITTLE_BETTER}",
    batchable=True,
)
class PairInputXGradient(CosineAttribution):
    """Input × gradient (Shrikumar et al., 2016, arXiv 1605.01713) of the cosine; black pixels get nothing.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        batch_size: images in one backward pass; bounds the memory.

    Raises:
        InputError: an unknown option.

    Example:
        >>> probe_map, reference_map = PairInputXGradient(recognizer).attribute((probe, reference))
        >>> bool((probe_map[probe == 0] == 0).all())
        True
    """

    def __init__(
        self, forward_func: Callable[..., Tensor], threshold: float | None = None, *, batch_size: int = 32
    ) -> None:
        super().__init__(forward_func, threshold)
        self.batch_size = checked_count("batch_size", batch_size)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Maps carry the factor input."""
        return True

    def _batch_size(self) -> int:
        return self.batch_size

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        maps: Tensor = InputXGradient(head).attribute(images, additional_forward_args=arguments)
        return maps


@attribution_method(
    name="smoothgrad",
    title="SmoothGrad",
    paper="Smilkov, Thorat, Kim, Viégas and Wattenberg, arXiv 1706.03825",
    year=2017,
    needs="gradient",
    cost="1 forward; 50 forward and backward a face",
    relative_cost=115,
    caveat="the sign of its maps says whether brighter pixels raise the score, not whether they argue for a "
    f"match; {TOO_FEW}",
    trial_options={"n_samples": 5},
)
class PairSmoothGrad(CosineAttribution):
    """SmoothGrad (Smilkov et al., 2017, arXiv 1706.03825): the cosine's gradient, averaged over noisy copies.

    Captum's `NoiseTunnel` over its `Saliency`. Every image meets the same noise, so that a map does not depend on
    the batch. The sign of a gradient says whether a brighter pixel raises the score, not whether the pixel argues
    for a match; squares, variances and `absolute` gradients have no negative part at all.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        n_samples: noisy copies.
        noise: standard deviation of the noise, of the range [0, 1] of the image.
        noise_type: `smoothgrad` (mean), `smoothgrad_sq` (mean square) or `vargrad` (variance).
        gradient: `signed` or `absolute`.
        samples_per_batch: noisy copies in one backward pass; bounds the memory.
        seed: of the noise. The global random numbers are left alone.

    Raises:
        InputError: an unknown option.

    Example:
        >>> squares = PairSmoothGrad(recognizer, noise=0.1, noise_type="smoothgrad_sq")
        >>> probe_map, reference_map = squares.attribute((probe, reference))
        >>> bool((probe_map >= 0).all())
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        n_samples: int = 50,
        noise: float = 0.15,
        noise_type: str = "smoothgrad",
        gradient: Literal["signed", "absolute"] = "signed",
        samples_per_batch: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(forward_func, threshold)
        if noise_type not in _NOISE_TYPES:
            raise InputError(f"noise_type must be one of {', '.join(_NOISE_TYPES)}, got {noise_type!r}")
        if noise <= 0:
            raise InputError(f"noise must be positive, got {noise}")
        self.n_samples = checked_count("n_samples", n_samples)
        self.noise = float(noise)
        self.noise_type = noise_type
        self.gradient = checked_choice("gradient", gradient, "signed", "absolute")
        self.samples_per_batch = checked_count("samples_per_batch", samples_per_batch)
        self.seed = seed

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        def score(noisy: Tensor, *further: Any) -> Tensor:
            scores: Tensor = head(
                noisy.to(images), *further
            )  # Captum's noise has 32 bits, also on images of 16
            return scores

        with seeded(self.seed):
            maps: Tensor = NoiseTunnel(Saliency(score)).attribute(
                images,
                nt_type=self.noise_type,
                nt_samples=self.n_samples,
                nt_samples_batch_size=min(self.samples_per_batch, self.n_samples),
                stdevs=self.noise,
                abs=self.gradient == "absolute",
                additional_forward_args=arguments,
            )
        return maps


@attribution_method(
    name="deeplift",
    title="DeepLift, rescale rule",
    paper="Shrikumar, Greenside and Kundaje, arXiv 1704.02685",
    year=2017,
    needs="gradient",
    cost="1 forward; 2 forward and 1 backward a face",
    relative_cost=9,
    caveat=f"{AGAINST_BASELINE}; {LITTLE_BETTER}",
)
class PairDeepLift(BaselineAttribution):
    """DeepLift, rescale rule (Shrikumar et al., ICML 2017, arXiv 1704.02685), of the cosine.

    Every activation gets the rule, also those that are not on the list of Captum's DeepLift, or are called as
    functions, and what has no rule is refused: Captum silently takes their plain gradient. The normalisation of the
    embedding is taken by its gradient, so the maps do not sum exactly to the difference of the scores.

    Args:
        forward_func: a module; see also `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        baseline: what the face is compared with, see `Baseline`. What activations do to one that all faces share is
            kept with the recognizer, twice the memory of a face's activations.
        batch_size: faces in one backward pass, each with its baseline; bounds the memory.

    Raises:
        InputError: an unknown option; a network with attention, layer normalisation, products of signals or the
            like, for which there is no rule.

    Example:
        >>> probe_map, reference_map = PairDeepLift(recognizer, baseline="mean").attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        baseline: Baseline = "black",
        batch_size: int = 16,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.baseline = checked_baseline(baseline)
        self.batch_size = checked_count("batch_size", batch_size)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Maps carry the factor input − baseline."""
        return True

    def _batch_size(self) -> int:
        return self.batch_size

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        if not isinstance(self.forward_func, nn.Module):
            raise InputError(
                "DeepLift gives the functions of a network its rule: give it a module, not a function"
            )
        baselines = baseline_images(images.detach(), self.baseline)
        is_one = len(arguments) == 1 and bool((baselines == baselines[:1]).all())
        calls = (
            self._of_one(head, baselines[:1], arguments[0][:1])
            if is_one
            else recorded(head, (baselines, *arguments))
        )
        return (images.detach() - baselines) * multipliers(head, (images, *arguments), calls)

    def _of_one(self, head: CosineHead, baseline: Tensor, partner: Tensor) -> list[Call]:
        """What activations do to a baseline 1×C×H×W; the latest is kept with a folded network, which nobody changes.

        The partner makes no difference to them.
        """
        network = head.model.network if isinstance(head.model, Recognizer) else head.model
        known = _LATEST.get(network) if isinstance(network, nn.Module) else None
        if known is not None and torch.equal(known[0], baseline):
            return known[1]
        calls = recorded(head, (baseline, partner))
        if head.model is not self.forward_func and isinstance(network, nn.Module):
            _LATEST[network] = baseline, calls
        return calls


_LATEST: WeakKeyDictionary[nn.Module, tuple[Tensor, list[Call]]] = WeakKeyDictionary()
