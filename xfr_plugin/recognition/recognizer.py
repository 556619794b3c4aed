"""A recognizer: preprocessing, network, normalised embedding, threshold and provenance in one object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.errors import InputError
from xfr_plugin.recognition.calibration import Calibration

__all__ = ["ChannelOrder", "Provenance", "Recognizer"]

ChannelOrder = Literal["RGB", "BGR"]


class Provenance(BaseModel):
    """Where a network comes from. Shown with every explanation, so that a figure can be traced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "given by the caller"
    licence: str = "unknown"
    training_data: str = "unknown"
    sha256: str | None = None


class Recognizer(nn.Module):
    """A face recognizer, differentiable from an aligned face to its embedding.

    Any network will do::

        recognizer = Recognizer(my_network, input_size=(112, 112), mean=0.5, std=0.5, threshold=0.3)
        explanation = xfr_plugin.explain("a.jpg", "b.jpg", recognizer=recognizer)

    The network is put into evaluation mode. Its parameters are left as they are.

    Args:
        network: maps preprocessed images N×3×H×W to embeddings N×D, normalised or not.
        input_size: height and width of the aligned face in pixels.
        mean: subtracted from the image in [0, 1]; one number or one for each channel of the network's input.
        std: divides the result; one number or one for each channel.
        channel_order: what the network was trained on. Images are always given as RGB.
        threshold: score at and above which a pair is a match; the calibration's, if left out.
        calibration: thresholds measured on labelled pairs, see `recognition.calibrate`.
        name: used in results; the network's class name, if left out.
        provenance: where the network comes from.

    Raises:
        InputError: sizes, means or deviations that make no sense.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        input_size: tuple[int, int] = (112, 112),
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        channel_order: ChannelOrder = "RGB",
        threshold: float | None = None,
        calibration: Calibration | None = None,
        name: str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        if len(input_size) != 2 or min(input_size) < 1:
            raise InputError(f"input_size must be (height, width) in pixels, got {input_size}")
        if channel_order not in ("RGB", "BGR"):
            raise InputError(f"channel_order must be 'RGB' or 'BGR', got {channel_order!r}")
        self.network = network
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.channel_order: ChannelOrder = channel_order
        self.calibration = calibration
        self.name = name or type(network).__name__
        self.provenance = provenance or Provenance()
        self._threshold = threshold
        self.register_buffer("mean", _per_channel(mean, "mean"), persistent=False)
        self.register_buffer("std", _per_channel(std, "std"), persistent=False)
        if bool((self.std <= 0).any()):
            raise InputError("std must be positive")
        self.eval()

    @property
    def threshold(self) -> float:
        """Score at and above which a pair is a match (cosine, −1…1).

        Raises:
            InputError: neither a threshold nor a calibration was given.
        """
        if self._threshold is not None:
            return self._threshold
        if self.calibration is not None:
            return self.calibration.threshold
        raise InputError(
            f"recognizer {self.name!r} has no threshold: pass threshold=… or calibrate it on labelled pairs"
        )

    def threshold_at(self, fmr: float) -> float:
        """Threshold for a false match rate (0…1), from the calibration.

        Raises:
            InputError: the recognizer is not calibrated, or not for this rate.
        """
        if self.calibration is None:
            raise InputError(
                f"recognizer {self.name!r} is not calibrated: pass threshold=… instead of an FMR"
            )
        return self.calibration.threshold_at(fmr)

    def with_network(self, network: nn.Module) -> Recognizer:
        """Copy this recognizer around another network of the same function, e.g. a folded one."""
        copy = Recognizer(
            network,
            input_size=self.input_size,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            channel_order=self.channel_order,
            threshold=self._threshold,
            calibration=self.calibration,
            name=self.name,
            provenance=self.provenance,
        )
        copy.mean, copy.std = self.mean, self.std  # their device and type, exactly
        return copy

    @property
    def device(self) -> torch.device:
        """Where the recognizer computes."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """What the recognizer computes in; images of other types are refused by its layers."""
        return self.mean.dtype

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn aligned RGB images in [0, 1], N×3×H×W, into what the network expects.

        Raises:
            InputError: the shape is not N×3×H×W with the recognizer's `input_size`.
        """
        if images.ndim != 4 or images.shape[1] != 3 or tuple(images.shape[2:]) != self.input_size:
            height, width = self.input_size
            raise InputError(
                f"{self.name} takes aligned faces of shape N×3×{height}×{width}, got {tuple(images.shape)}: "
                "align the photo to this size first"
            )
        if self.channel_order == "BGR":
            images = images.flip(1)
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Embedding before normalisation, N×D, of aligned RGB images in [0, 1].

        Raises:
            InputError: wrong image shape, or the network does not return N×D.
        """
        embedding: Tensor = self.network(self.preprocess(images))
        if embedding.ndim != 2 or embedding.shape[0] != images.shape[0]:
            raise InputError(
                f"the network of {self.name} returned shape {tuple(embedding.shape)} for {len(images)} "
                "images; an embedding must be N×D"
            )
        return embedding

    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised embedding, N×D, of aligned RGB images in [0, 1], N×3×H×W."""
        return functional.normalize(self.features(images), dim=1)

    @torch.no_grad()
    def embed(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Embed many images without gradients, `batch_size` at a time; N×D on the recognizer's device."""
        chunks = [self(chunk.to(self.device)) for chunk in torch.split(images, batch_size)]
        return torch.cat(chunks)


def _per_channel(value: float | Sequence[float], what: str) -> Tensor:
    values = (float(value),) * 3 if isinstance(value, (int, float)) else tuple(map(float, value))
    if len(values) != 3:
        raise InputError(f"{what} must be one number or three, got {len(values)}")
    return torch.tensor(values).view(1, 3, 1, 1)
