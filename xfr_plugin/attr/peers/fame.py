"""FAME: what a face has to change for its score to fall, and what for it to rise (2026, arXiv 2605.12017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from xfr_plugin.attr._base.caveats import TOO_FEW
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.on_cosine import CosineAttribution, checked_count
from xfr_plugin.attr._base.smoothing import Blur, blurred, checked_blur
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.attr.peers.gradcam import Arguments
from xfr_plugin.base.options import checked_choice
from xfr_plugin.errors import InputError

__all__ = ["Fame"]

_LUMA = (0.299, 0.587, 0.114)


@attribution_method(
    name="fame",
    title="Feature changes by small gradient steps",
    paper="arXiv 2605.12017",
    year=2026,
    needs="gradient",
    cost="1 forward; 150 forward and backward a face",
    relative_cost=390,
    caveat="its maps show where small changes of the pixels move the score most, as an adversarial perturbation "
    f"does; {TOO_FEW}",
    trial_options={"steps": 6},
)
class Fame(CosineAttribution):
    """Follows the gradient in small steps of the pixels and shows where the face has changed.

    From the face x, x ← x − η·g / max|g|, with g the gradient of the loss: the cosine itself (L⁺: the changed
    regions had argued for the match) or 1 − cosine (L⁻: they had argued against it). The partner's embedding stays
    as it is. The map of a loss is |grey(x̄) − grey(x)|, blurred; the signed map is that of L⁺ less that of L⁻. A face
    whose cosine is 1 within rounding has nothing left to raise, and no dissimilar map.

    Reimplemented from the method's description. Every colour of the map holds an equal part (one in C).

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        steps: steps of each loss; the description gives 75 to 200, and 500 for the paper's figures.
        step_size: η, the largest change of a colour in one step, of the range [0, 1].
        clip: keep the changed face in [0, 1].
        arguments: `combined`, `for` (L⁺ alone) or `against` (L⁻ alone, then ≤ 0 everywhere).
        grey: `mean` of the colours, or `luma`: .299 red, .587 green and .114 blue, of RGB images only.
        blur: kernel size and σ, in pixels, of the Gaussian blur; None for none.
        batch_size: faces in one backward pass, each once for every loss; bounds the memory.

    Raises:
        InputError: an unknown option.

    Example:
        >>> probe_map, reference_map = Fame(recognizer, steps=20).attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        steps: int = 75,
        step_size: float = 1 / 255,
        clip: bool = False,
        arguments: Arguments = "combined",
        grey: Literal["mean", "luma"] = "mean",
        blur: Blur | None = (13, 3),
        batch_size: int = 16,
    ) -> None:
        super().__init__(forward_func, threshold)
        if step_size <= 0:
            raise InputError(f"step_size must be positive, got {step_size}")
        self.steps = checked_count("steps", steps)
        self.step_size = float(step_size)
        self.clip = bool(clip)
        self.arguments = checked_choice("arguments", arguments, "combined", "for", "against")
        self.grey = checked_choice("grey", grey, "mean", "luma")
        self.blur = checked_blur(blur)
        self.batch_size = checked_count("batch_size", batch_size)

    def _batch_size(self) -> int:
        return self.batch_size

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        signs = {"combined": (1.0, -1.0), "for": (1.0,), "against": (-1.0,)}[self.arguments]
        losses = torch.tensor(signs).to(images).repeat_interleave(len(images))
        start = images.detach().repeat(len(signs), 1, 1, 1)
        changed = self._descend(head, start, losses, _repeated(arguments, len(signs)))
        change = self._grey(changed - start).abs() * losses.view(-1, 1, 1, 1)
        signed = change.view(len(signs), -1, *change.shape[1:]).sum(dim=0)
        return blurred(signed.expand_as(images) / images.shape[1], self.blur)

    def _grey(self, images: Tensor) -> Tensor:
        """M×1×H×W of images M×C×H×W."""
        if self.grey == "mean":
            return images.mean(dim=1, keepdim=True)
        if images.shape[1] != 3:
            raise InputError(f"grey='luma' is of three colours, got {images.shape[1]}: take grey='mean'")
        return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)

    def _descend(self, head: CosineHead, faces: Tensor, losses: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        """Faces after the steps; a loss is +1 to lower the cosine, −1 to raise it."""
        for _ in range(self.steps):
            with torch.enable_grad():
                leaf = faces.detach().requires_grad_()
                scores = head(leaf, *arguments)
                (gradient,) = torch.autograd.grad(scores.sum(), leaf)
            faces = faces - self.step_size * _direction(gradient, scores.detach(), losses)
            faces = faces.clamp(0, 1) if self.clip else faces
        return faces


def _direction(gradient: Tensor, scores: Tensor, losses: Tensor) -> Tensor:
    """Gradients of the losses M×C×H×W, scaled to a largest value of 1; none where nothing is left to raise."""
    finfo = torch.finfo(gradient.dtype)
    largest = gradient.abs().amax(dim=(1, 2, 3)).clamp_min(finfo.tiny)
    is_done = (losses < 0) & (1 - scores < finfo.eps**0.5)
    scale: Tensor = losses * ~is_done / largest
    return gradient * scale.view(-1, 1, 1, 1)


def _repeated(arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Arguments with a row for each image, for that many copies of all images."""
    return tuple(
        value.repeat(count, *(1,) * (value.ndim - 1)) if isinstance(value, Tensor) else value
        for value in arguments
    )
