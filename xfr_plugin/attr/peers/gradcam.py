"""Class activation maps of the cosine, with both signs: Grad-CAM, Grad-CAM++, Score-CAM.

All three weigh the activations A_k of one layer by what channel k does to the score, and keep the positive part.
For a cosine, what is cut off is the answer to the other question: which regions argue against a match. So the
dissimilar map is the same method with the negated score, and the signed map is the difference

    S = relu(Σ_k w_k(s)·A_k) − relu(Σ_k w_k(−s)·A_k),

interpolated bilinearly from the layer's size to the image's. Where the weights are linear in the score, as for
Grad-CAM, it is Σ_k w_k·A_k without the rectifier. Every colour of the map holds an equal part (one in C).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from xfr_plugin.attr._base.caveats import COARSE, LITTLE_BETTER, TOO_FEW
from xfr_plugin.attr._base.layers import Tapped, Tokens, find_layer
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.on_cosine import CosineAttribution, PartnerHead, checked_count
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr.cosine_head import CosineHead
from xfr_plugin.base.captum import (
    LayerActivation,
    LayerAttribution,
    LayerGradCam,
    compute_layer_gradients_and_eval,
)
from xfr_plugin.base.folding import gives_the_same
from xfr_plugin.base.kept import kept
from xfr_plugin.base.options import checked_choice
from xfr_plugin.base.replicas import replica
from xfr_plugin.errors import InputError, UnknownNameError
from xfr_plugin.recognition.folding import for_scores, safely_folded
from xfr_plugin.recognition.recognizer import Recognizer

__all__ = ["Arguments", "GradCam", "GradCamPlusPlus", "ScoreCam"]

Arguments: TypeAlias = Literal["combined", "for", "against"]
"""The signed map; its similar part alone; or its dissimilar part alone, then ≤ 0 everywhere."""


_FOUND: WeakKeyDictionary[nn.Module, dict[Any, _Found]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Found:
    """A layer below the head, by path; how its tokens lie; and the network to run: None for the replica itself."""

    path: str | None
    tokens: Tokens | None
    fast: nn.Module | None


class _Cam(CosineAttribution):
    """What the three methods share: a layer, two rectified maps, and their way to the size of the image."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None,
        layer: str | None,
        arguments: Arguments,
        batch_size: int,
    ) -> None:
        super().__init__(forward_func, threshold)
        self.layer = layer
        self.arguments = checked_choice("arguments", arguments, "combined", "for", "against")
        self.batch_size = checked_count("batch_size", batch_size)

    def _batch_size(self) -> int:
        return self.batch_size

    def _function(self, pair: Pair) -> Callable[..., Tensor]:
        """A replica: the layer gets a hook, and the user's own keeps none."""
        function = self.forward_func
        return (
            kept(function, "replica", lambda: replica(function))
            if isinstance(function, nn.Module)
            else function
        )

    def _maps(self, head: CosineHead, images: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        if self.layer is not None:
            if not isinstance(self.forward_func, nn.Module):
                raise InputError("layer=… needs a module, but the forward function is none: leave it out")
            names = [name for name, _ in self.forward_func.named_modules() if name]
            if self.layer not in names:
                raise UnknownNameError.of("layer", self.layer, names)
        images = images.detach()  # its gradient is not asked for: that of the layer is
        head, layer, tokens = self._find(head, images[:1], arguments)
        function = Tapped(head, layer, tokens)
        layer = function.layer
        similar, dissimilar = self._cams(function, layer, images, arguments)
        signed = {"combined": similar - dissimilar, "for": similar, "against": -dissimilar}[self.arguments]
        size = (images.shape[2], images.shape[3])
        large: Tensor = LayerAttribution.interpolate(signed.detach(), size, "bilinear")
        return large.expand_as(images) / images.shape[1]

    def _find(
        self, head: CosineHead, image: Tensor, arguments: tuple[Any, ...]
    ) -> tuple[CosineHead, nn.Module, Tokens | None]:
        """The head to run, its layer, and how that one's tokens lie.

        What was found for images of a size serves all of that size.
        """
        # the layer is named as in the forward function, which sits below the head
        name = self.layer if self.layer is None else f"model.{self.layer}"
        first = [value[:1] if isinstance(value, Tensor) else value for value in arguments]
        if len(arguments) > 1 or not isinstance(head.model, nn.Module):
            return head, *find_layer(head, name, image, *first)
        known = _FOUND.setdefault(head.model, {})  # a replica, which nobody changes
        key = (name, image.shape, image.dtype)
        if key not in known:
            layer, tokens = find_layer(head, name, image, *first)
            path = next((path for path, part in head.named_modules() if part is layer), None)
            known[key] = _Found(path, tokens, self._fast(image, path))
        found = known[key]
        if found.path is None:
            return head, *find_layer(head, name, image, *first)
        head = head if found.fast is None else PartnerHead.around(found.fast)
        return head, head.get_submodule(found.path), found.tokens

    def _fast(self, image: Tensor, path: str | None) -> nn.Module | None:
        """A replica with BatchNorm folded in, if its layer of this path gives the same; else None."""
        folded = safely_folded(self.forward_func, image)
        if path is None or folded is self.forward_func or not isinstance(folded, nn.Module):
            return None
        if isinstance(folded, Recognizer):
            is_same = gives_the_same(folded.network, path.removeprefix("model.network."))
        else:
            is_same = gives_the_same(folded, path.removeprefix("model."))
        return replica(folded) if is_same else None

    @abstractmethod
    def _cams(
        self, head: nn.Module, layer: nn.Module, images: Tensor, arguments: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """Rectified maps M×1×h×w of the score and of the negated score."""


@attribution_method(
    name="gradcam",
    title="Grad-CAM of the cosine, both signs",
    paper="Selvaraju et al., arXiv 1610.02391",
    year=2017,
    needs="gradient",
    cost="1 forward; 1 forward a face, backward to the layer",
    relative_cost=4.5,
    caveat=f"{COARSE}; {LITTLE_BETTER}",
    batchable=True,
)
class GradCam(_Cam):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) of the cosine, by Captum's `LayerGradCam`.

    A channel's weight is the mean of its gradient over the layer's places.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        layer: dotted name of a layer of the forward function; if left out, the last one, in the order of calls,
            whose output has more than one place; of a transformer the last norm whose tokens have one and count.
        arguments: see `Arguments`.
        batch_size: images in one backward pass; bounds the memory.

    Raises:
        InputError: an unknown option, or a network without such a layer.

    Example:
        >>> cam = GradCam(recognizer, layer="network.conv2")
        >>> probe_map, reference_map = cam.attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        layer: str | None = None,
        arguments: Arguments = "combined",
        batch_size: int = 32,
    ) -> None:
        super().__init__(forward_func, threshold, layer, arguments, batch_size)

    def _cams(
        self, head: nn.Module, layer: nn.Module, images: Tensor, arguments: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        signed = LayerGradCam(head, layer).attribute(images, additional_forward_args=arguments)
        return signed.relu(), (-signed).relu()


@attribution_method(
    name="gradcam_plus_plus",
    title="Grad-CAM++ of the cosine, both signs",
    paper="Chattopadhay, Sarkar, Howlader and Balasubramanian, arXiv 1710.11063",
    year=2018,
    needs="gradient",
    cost="1 forward; 1 forward a face, backward to the layer",
    relative_cost=4.5,
    caveat=f"{COARSE}; {LITTLE_BETTER}",
    batchable=True,
)
class GradCamPlusPlus(_Cam):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv 1710.11063) of the cosine.

    With g the gradient at a place of channel k, the weight is Σ α·relu(g) over places, and
    α = g² / (2g² + Σ A·g³). The paper derives α for exp(s); its factor, the same for all places, is left out. The
    weights are not linear in the score: the dissimilar map takes −g throughout.

    Where gradients have both signs, as a cosine's do, Σ A·g³ can cancel 2g², and a single channel explodes. By
    default the sum runs over the places with positive A·g only, which keeps α within 0…1/2.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        layer: as for `GradCam`.
        arguments: see `Arguments`.
        places: which enter the sum in α: `positive`, or `all`, as published.
        batch_size: images in one backward pass; bounds the memory.

    Raises:
        InputError: an unknown option, or a network without such a layer.

    Example:
        >>> probe_map, reference_map = GradCamPlusPlus(recognizer).attribute((probe, reference))
        >>> probe_map.shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        layer: str | None = None,
        arguments: Arguments = "combined",
        places: Literal["positive", "all"] = "positive",
        batch_size: int = 32,
    ) -> None:
        super().__init__(forward_func, threshold, layer, arguments, batch_size)
        self.places = checked_choice("places", places, "positive", "all")

    def _cams(
        self, head: nn.Module, layer: nn.Module, images: Tensor, arguments: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        (gradients,), (activations,) = compute_layer_gradients_and_eval(
            head, layer, images, additional_forward_args=arguments
        )
        return self._plus_plus(activations, gradients), self._plus_plus(activations, -gradients)

    def _plus_plus(self, activations: Tensor, gradients: Tensor) -> Tensor:
        terms = activations * gradients**3
        terms = terms.relu() if self.places == "positive" else terms
        return _rectified_sum(activations, gradients, terms.sum(dim=(2, 3), keepdim=True))


def _rectified_sum(activations: Tensor, gradients: Tensor, totals: Tensor) -> Tensor:
    squares = gradients.square()
    denominators = 2 * squares + totals
    alpha = torch.where(denominators != 0, squares / denominators, 0)
    weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1, keepdim=True).relu()


@attribution_method(
    name="score_cam",
    title="Score-CAM of the cosine, both signs",
    paper="Wang et al., arXiv 1910.01279",
    year=2020,
    needs="gradient",
    cost="a forward for each channel of a layer, a face",
    relative_cost=530,
    caveat=f"{COARSE}; {TOO_FEW}",
)
class ScoreCam(_Cam):
    """Score-CAM (Wang et al., CVPR-W 2020, arXiv 1910.01279) of the cosine: no gradient, one pass a channel.

    Channel k's activation, scaled to the image's size and to [0, 1], masks the image; C_k is the score of the masked
    image less that of a black one. The weights are the softmax of C over channels; for the negated score, of −C.

    Args:
        forward_func: see `PairAttribution`.
        threshold: see `PairAttribution`; shifts the score, and so leaves these maps as they are.
        layer: as for `GradCam`.
        arguments: see `Arguments`.
        weights: `softmax`, as published, which cosines leave nearly uniform over many channels; or `increase`:
            C_k itself, rectified.
        max_channels: only the channels of the largest variance over places; None for all.
        batch_size: masked images in one forward pass; bounds the memory.

    Raises:
        InputError: an unknown option, or a network without such a layer.

    Example:
        >>> embedding = recognizer(reference)
        >>> ScoreCam(recognizer).attribute(probe, additional_forward_args=embedding).shape
        torch.Size([1, 3, 112, 112])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        layer: str | None = None,
        arguments: Arguments = "combined",
        weights: Literal["softmax", "increase"] = "softmax",
        max_channels: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(forward_func, threshold, layer, arguments, batch_size)
        self.weights = checked_choice("weights", weights, "softmax", "increase")
        self.max_channels = None if max_channels is None else checked_count("max_channels", max_channels)

    def _batch_size(self) -> int:
        return 1  # the batches are masks of one image

    @torch.no_grad()
    def _cams(
        self, head: nn.Module, layer: nn.Module, images: Tensor, arguments: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        activations = LayerActivation(head, layer).attribute(images, additional_forward_args=arguments)
        activations = self._kept(activations)
        # masked images need no layer, and so whatever is fastest
        score = PartnerHead.around(for_scores(self.forward_func, images, arguments[1:]))
        black = score(torch.zeros_like(images), *arguments)
        scores = [
            score(images * _masks(chunk, images), *_repeated(arguments, chunk.shape[1]))
            for chunk in activations.split(self.batch_size, dim=1)
        ]
        increase = torch.cat(scores) - black
        return self._cam(activations, increase), self._cam(activations, -increase)

    def _kept(self, activations: Tensor) -> Tensor:
        """The channels 1×K×h×w that are used, in their order."""
        if self.max_channels is None or self.max_channels >= activations.shape[1]:
            return activations
        variances = activations[0].flatten(1).var(dim=1)
        kept: Tensor = activations[:, variances.topk(self.max_channels).indices.sort().values]
        return kept

    def _cam(self, activations: Tensor, increase: Tensor) -> Tensor:
        weights = increase.softmax(dim=0) if self.weights == "softmax" else increase.relu()
        return torch.einsum("k,mkhw->mhw", weights, activations)[:, None].relu()


def _masks(activations: Tensor, images: Tensor) -> Tensor:
    """Masks K×1×H×W in [0, 1] of activations 1×K×h×w; a constant channel masks everything."""
    size = (images.shape[2], images.shape[3])
    large = LayerAttribution.interpolate(activations, size, "bilinear")[0][:, None]
    low, high = large.amin(dim=(2, 3), keepdim=True), large.amax(dim=(2, 3), keepdim=True)
    masks: Tensor = torch.where(high > low, (large - low) / (high - low), 0)
    return masks


def _repeated(arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Arguments with a row for one image, for that many masked copies."""
    return tuple(
        value.expand(count, *value.shape[1:]) if isinstance(value, Tensor) else value for value in arguments
    )
