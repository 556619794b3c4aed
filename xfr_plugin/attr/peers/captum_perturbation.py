"""Captum's perturbation methods on pairs: occlusion, LIME and KernelSHAP. They need nothing but scores.

Nothing is rewritten: each class hands the faces and a `CosineHead` to Captum's own, and adds what a pair needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.baselines import Baseline, baseline_images, checked_baseline
from xfr_plugin.attr._base.caveats import MASKED, SAMPLED, TOO_FEW
from xfr_plugin.attr._base.least_squares import LeastSquares
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.on_cosine import ScoreAttribution, checked_count
from xfr_plugin.attr._base.superpixels import Parts, checked_parts, face_parts
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.base.captum import KernelShap, Lime, Occlusion, get_exp_kernel_similarity_function
from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.randomness import seeded
from xfr_plugin.errors import InputError

__all__ = ["PairKernelShap", "PairLime", "PairOcclusion"]

_TEMPLATE = 112


@attribution_method(
    name="occlusion",
    title="Occlusion",
    paper="Zeiler and Fergus, arXiv 1311.2901",
    year=2014,
    needs="scores",
    cost="1 + 226 forward a face",
    relative_cost=260,
    caveat=f"{MASKED}; {TOO_FEW}",
    trial_options={"window": 6, "stride": 6},
)
class PairOcclusion(ScoreAttribution):
    """Occlusion (Zeiler and Fergus, ECCV 2014, arXiv 1311.2901): the drop of the cosine when a square is covered.

    A pixel gets the mean over the squares that cover it, a third of it (one part in C) in each colour.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        window: side of the square, in pixels of a 112×112 face; scaled with the height and width of others.
        stride: from one square to the next, at most `window`; scaled likewise.
        baseline: what the square is covered with, see `Baseline`.
        perturbations_per_eval: covered images in one forward pass; bounds the memory.
        show_progress: show a progress bar for each face.

    Raises:
        InputError: an unknown option, or a window of more than 112.

    Example:
        >>> occlusion = PairOcclusion(recognizer, window=28, stride=14, baseline="mean")
        >>> probe_map, reference_map = occlusion.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        window: int = 14,
        stride: int = 7,
        baseline: Baseline = "black",
        perturbations_per_eval: int = 32,
        show_progress: bool = False,
    ) -> None:
        super().__init__(forward_func, threshold)
        if window > _TEMPLATE:
            raise InputError(f"window is in pixels of a {_TEMPLATE}×{_TEMPLATE} face, got {window}")
        self.window = checked_count("window", window)
        self.stride = checked_count("stride", stride)
        if stride > window:
            raise InputError(
                f"stride must be at most the window ({window}), or pixels are missed; got {stride}"
            )
        self.baseline = checked_baseline(baseline)
        self.perturbations_per_eval = checked_count("perturbations_per_eval", perturbations_per_eval)
        self.show_progress = show_progress

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        channels, *size = images.shape[1:]
        maps: Tensor = Occlusion(head).attribute(
            images.detach(),
            sliding_window_shapes=(channels, *_scaled(self.window, size)),
            strides=(channels, *_scaled(self.stride, size)),
            baselines=baseline_images(images.detach(), self.baseline),
            additional_forward_args=arguments,
            perturbations_per_eval=self.perturbations_per_eval,
            show_progress=self.show_progress,
        )
        return maps / channels


def _scaled(length: int, size: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(1, round(length * side / _TEMPLATE)) for side in size)


class _PartsAttribution(ScoreAttribution):
    """What LIME and KernelSHAP share: parts of the face, switched off at random, the same way for every image."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        parts: Parts = "slic",
        n_parts: int = 50,
        n_samples: int = 200,
        baseline: Baseline = "mean",
        spread: Literal["coefficient", "share"] = "coefficient",
        perturbations_per_eval: int = 32,
        seed: int = 0,
        show_progress: bool = False,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.parts = checked_parts(parts)
        self.n_parts = checked_count("n_parts", n_parts)
        self.n_samples = checked_count("n_samples", n_samples)
        self.baseline = checked_baseline(baseline)
        self.spread = checked_choice("spread", spread, "coefficient", "share")
        self.perturbations_per_eval = checked_count("perturbations_per_eval", perturbations_per_eval)
        self.seed = seed
        self.show_progress = show_progress

    def _explainer(self, head: CosineHead) -> Lime:
        raise NotImplementedError

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        mask = face_parts(images[0], self.parts, self.n_parts)
        with seeded(self.seed):
            coefficients = self._explainer(head).attribute(
                images.detach(),
                baselines=baseline_images(images.detach(), self.baseline),
                feature_mask=mask.expand_as(images),
                additional_forward_args=arguments,
                n_samples=self.n_samples,
                perturbations_per_eval=self.perturbations_per_eval,
                show_progress=self.show_progress,
            )
        areas = torch.bincount(mask.flatten())[mask] if self.spread == "share" else 1
        maps: Tensor = coefficients.to(images) / areas / images.shape[1]
        return maps


@attribution_method(
    name="lime",
    title="LIME on superpixels",
    paper="Ribeiro, Singh and Guestrin, arXiv 1602.04938",
    year=2016,
    needs="scores",
    cost="1 + 200 forward a face",
    relative_cost=265,
    caveat=f"{SAMPLED}; {TOO_FEW}",
    trial_options={"parts": "regions", "n_samples": 12},
)
class PairLime(_PartsAttribution):
    """LIME (Ribeiro et al., KDD 2016, arXiv 1602.04938): a linear model of the cosine over parts of the face.

    Parts are switched off at random, each with probability one half; a ridge regression, weighted towards images
    like the original, gives each part a coefficient: how much the score gains by its presence.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        parts: what is switched off, see `Parts`.
        n_parts: superpixels wanted, for `slic`.
        n_samples: images with parts switched off; more than there are parts.
        baseline: what a part that is off is replaced with, see `Baseline`.
        alpha: strength of the ridge.
        kernel_width: of the exponential kernel on the cosine distance between the pixels of both images.
        spread: `coefficient`: a pixel's colours sum to the coefficient of its part, as usually shown; `share`: to
            an equal share of it, so that the map of a part sums to its coefficient.
        perturbations_per_eval: images in one forward pass; bounds the memory.
        seed: of the samples. The global random numbers are left alone.
        show_progress: show a progress bar for each face.

    Raises:
        InputError: an unknown option.

    Example:
        >>> lime = PairLime(recognizer, parts="regions")
        >>> probe_map, reference_map = lime.attribute((probe, reference))
        >>> len(probe_map.unique()) < 20  # one value a region
        True
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        parts: Parts = "slic",
        n_parts: int = 50,
        n_samples: int = 200,
        baseline: Baseline = "mean",
        alpha: float = 1.0,
        kernel_width: float = 0.25,
        spread: Literal["coefficient", "share"] = "coefficient",
        perturbations_per_eval: int = 32,
        seed: int = 0,
        show_progress: bool = False,
    ) -> None:
        super().__init__(
            forward_func, threshold, parts=parts, n_parts=n_parts, n_samples=n_samples, baseline=baseline,
            spread=spread, perturbations_per_eval=perturbations_per_eval, seed=seed, show_progress=show_progress,
        )  # fmt: skip
        if alpha < 0 or kernel_width <= 0:
            raise InputError(
                f"alpha must not be negative and kernel_width positive, got {alpha}, {kernel_width}"
            )
        self.alpha = float(alpha)
        self.kernel_width = float(kernel_width)

    def _explainer(self, head: CosineHead) -> Lime:
        return Lime(
            head,
            interpretable_model=LeastSquares(self.alpha),
            similarity_func=get_exp_kernel_similarity_function("cosine", self.kernel_width),
        )


@attribution_method(
    name="kernel_shap",
    title="KernelSHAP on superpixels",
    paper="Lundberg and Lee, arXiv 1705.07874",
    year=2017,
    needs="scores",
    cost="1 + 200 forward a face",
    relative_cost=245,
    caveat=f"{SAMPLED}; {TOO_FEW}",
    trial_options={"parts": "regions", "n_samples": 12},
)
class PairKernelShap(_PartsAttribution):
    """KernelSHAP (Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874): Shapley values of the parts of the face.

    The coefficients of the parts sum to s − s₀, the score less that of the face without any part.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        parts: what is switched off, see `Parts`.
        n_parts: superpixels wanted, for `slic`.
        n_samples: images with parts switched off; more than there are parts.
        baseline: what a part that is off is replaced with, see `Baseline`.
        spread: as for `PairLime`.
        perturbations_per_eval: images in one forward pass; bounds the memory.
        seed: of the samples. The global random numbers are left alone.
        show_progress: show a progress bar for each face.

    Raises:
        InputError: an unknown option.

    Example:
        >>> shap = PairKernelShap(recognizer, parts="regions", spread="share")
        >>> probe_map, reference_map = shap.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def _explainer(self, head: CosineHead) -> Lime:
        explainer = KernelShap(head)
        explainer.interpretable_model = LeastSquares()
        return explainer
