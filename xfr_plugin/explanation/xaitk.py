"""Our methods as a plugin of xaitk-saliency, under its interface of image similarity (extra `xaitk`).

The entry point `smqtk_plugins` names this module, so that `GenerateImageSimilarityBlackboxSaliency.get_impls()`
finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from smqtk_descriptors.interfaces.image_descriptor_generator import ImageDescriptorGenerator
from torch import Tensor
from xaitk_saliency import GenerateImageSimilarityBlackboxSaliency

from xfr_plugin.attr import get_method
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

__all__ = ["FaceSimilaritySaliency"]


class FaceSimilaritySaliency(GenerateImageSimilarityBlackboxSaliency):  # type: ignore[misc]  # of an extra
    """Explain the similarity of a reference image to each query by one of our methods that need scores only.

    Args:
        method: see `xfr methods`. Those of regions take images for aligned faces; the others know of no faces.
        options: of the method.
        threshold: similarity (cosine) from which on two images match, for methods that look at it.

    Raises:
        InputError: an unknown method, or one that needs more than scores.

    Example:
        >>> FaceSimilaritySaliency("occlusion").get_config()["method"]
        'occlusion'
    """

    def __init__(
        self, method: str = "corrrise", options: Mapping[str, Any] | None = None, threshold: float = 0.0
    ) -> None:
        super().__init__()
        if not get_method(method).fits("embeddings"):
            raise InputError(f"{method} needs more than scores: see `xfr methods`")
        self.method, self.options, self.threshold = method, dict(options or {}), threshold

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON holds them."""
        return {"method": self.method, "options": self.options, "threshold": self.threshold}

    def _generate(
        self,
        ref_image: NDArray[Any],
        query_images: Sequence[NDArray[Any]],
        blackbox: ImageDescriptorGenerator,
    ) -> NDArray[np.float64]:
        if not query_images:
            return np.empty((0, *ref_image.shape[:2]))
        black_box = _BlackBox(ref_image, blackbox)
        recognizer = Recognizer.from_callable(
            black_box, input_size=ref_image.shape[:2], threshold=self.threshold
        )
        recognizer.tested = True  # whatever it embeds, faces or not
        attribution = get_method(self.method).build(recognizer, self.threshold, **self.options)
        partners = torch.nn.functional.normalize(_embedded(blackbox, query_images), dim=1)
        maps = [
            attribution.attribute(black_box.image, additional_forward_args=partner[None])[0].sum(dim=0)
            for partner in partners
        ]
        return np.stack([_scaled(one) for one in maps])


class _BlackBox:
    """Embeddings of changed reference images, which go in the form of the reference image."""

    def __init__(self, like: NDArray[Any], blackbox: ImageDescriptorGenerator) -> None:
        self._is_grey, self._type, self._blackbox = like.ndim == 2, like.dtype, blackbox
        self._top = 255.0 if np.issubdtype(like.dtype, np.integer) else 1.0
        if not self._is_grey and like.shape[2] != 3:
            raise InputError(f"images have one colour or three, not {like.shape[2]}")
        colours = np.repeat(like[:, :, None], 3, axis=2) if self._is_grey else like
        self.image = (
            torch.from_numpy(colours.astype(np.float32) / self._top).permute(2, 0, 1)[None].clamp(0, 1)
        )

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (images.permute(0, 2, 3, 1).numpy() * self._top).round(0 if self._top > 1 else 6)
        rows = pixels.astype(self._type)
        return _embedded(self._blackbox, [row[:, :, 0] if self._is_grey else row for row in rows])


def _embedded(blackbox: ImageDescriptorGenerator, images: Iterable[NDArray[Any]]) -> Tensor:
    found = list(blackbox.generate_arrays_from_images(images))
    return torch.from_numpy(np.stack(found)).float()


def _scaled(values: Tensor) -> NDArray[np.float64]:
    """A map in −1…1."""
    largest = float(values.abs().max())
    scaled: NDArray[np.float64] = (values / largest if largest > 0 else values).double().numpy()
    return scaled
