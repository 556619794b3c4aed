"""The input contract: what a recognizer takes, checked where it is made and wherever it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError

__all__ = [
    "ChannelOrder",
    "InputContract",
    "Size",
    "check_images",
    "check_pixels",
    "check_threshold",
    "input_contract",
]

ChannelOrder = Literal["RGB", "BGR"]

_Side = Annotated[int, Field(ge=1, le=4096)]
_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(gt=0, le=10)]

Size: TypeAlias = tuple[_Side, _Side]

_TOLERANCE = 0.05


class InputContract(Document):
    """What a recognizer takes: faces on ArcFace's template, as RGB in 0…1; and what it makes of them.

    Attributes:
        input_size: height and width of the aligned face in pixels.
        mean: subtracted from the pixels, by channel of the network's input.
        std: divides the result.
        channel_order: of the network's input.
        template: where the five landmarks lie, see `faces.template`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    input_size: Size = (112, 112)
    mean: tuple[_Mean, _Mean, _Mean] = (0.5, 0.5, 0.5)
    std: tuple[_Std, _Std, _Std] = (0.5, 0.5, 0.5)
    channel_order: ChannelOrder = "RGB"
    template: ClassVar[str] = "ArcFace"

    @property
    def value_range(self) -> tuple[float, float]:
        """Least and greatest value that the network sees."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return min(0 - mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)

    @property
    def description(self) -> str:
        """The contract on one line."""
        height, width = self.input_size
        low, high = self.value_range
        return f"{height}×{width} {self.channel_order}, {low:.4g}…{high:.4g}, {self.template} template"


def input_contract(
    input_size: Sequence[int], mean: object, std: object, channel_order: str = "RGB"
) -> InputContract:
    """Check settings given by hand; `mean` and `std` are one number or three.

    Raises:
        InputError: a setting that makes no sense for pixels in 0…1; the message says which, and what to write.
    """
    given = {
        "input_size": _plain(input_size),
        "mean": _triple(mean, "mean"),
        "std": _triple(std, "std"),
        "channel_order": channel_order,
    }
    try:
        return InputContract.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0])
        raise InputError(f"{setting}={given[setting]} makes no sense: {_ADVICE[setting]}") from error


_ADVICE = {
    "input_size": "it is (height, width) of the aligned face in pixels",
    "mean": "pixels are 0…1 here, and so is their mean: divide by 255 what is meant for 0…255",
    "std": "it is positive, for pixels in 0…1: divide by 255 what is meant for 0…255",
    "channel_order": "it is 'RGB' or 'BGR'",
}


def check_threshold(
    threshold: float | None, what: str = "threshold", *, is_cosine: bool = True
) -> float | None:
    """Return the threshold as a number.

    Raises:
        InputError: it is none, or no cosine (−1…1) where it is to be one.
    """
    if threshold is None:
        return None
    try:
        value = float(threshold)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be a number, got {threshold!r}") from error
    if is_cosine and not -1 <= value <= 1:
        raise InputError(f"{what} must be a cosine in −1…1, got {value:g}")
    if not math.isfinite(value):
        raise InputError(f"{what} must be a finite number, got {value:g}")
    return value


def check_images(images: Tensor, size: tuple[int, int], name: str) -> None:
    """Check that images are floats N×3×H×W of a size.

    Raises:
        InputError: they are not; the message says what to do.
    """
    height, width = size
    wanted = f"{name} takes aligned faces of shape N×3×{height}×{width}"
    if not isinstance(images, Tensor):
        raise InputError(
            f"{wanted}, as a tensor and not as {type(images).__name__}: torch.from_numpy(array), or for a photograph "
            "xfr_plugin.explain(…) or xfr_plugin.faces.prepare_face(…)"
        )
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise InputError(f"{wanted}, got {tuple(images.shape)}: {_how_to_shape(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"{name} takes images of floats in 0…1, not {images.dtype}: divide by 255")


def _how_to_shape(shape: Sequence[int]) -> str:
    if len(shape) == 3:
        return "a single image is images[None]"
    if len(shape) == 4 and shape[1] != 3 and shape[3] == 3:
        return "put the colours first, by images.permute(0, 3, 1, 2)"
    if len(shape) == 4 and shape[1] == 1:
        return "grey images get three colours by images.expand(-1, 3, -1, -1)"
    return "align the photo to this size first"


def check_pixels(images: Tensor, size: tuple[int, int], name: str) -> None:
    """Check that images are of a size, see `check_images`, and hold pixels in 0…1.

    Raises:
        InputError: they are not finite, or of another range; the message says what to do.
    """
    check_images(images, size, name)
    if not images.numel():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if math.isfinite(low) and math.isfinite(high) and low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name} takes pixels in 0…1, and some are not a number or infinite")
    hint = "divide by 255" if high > 2 else "give them before mean and std are applied"
    raise InputError(f"{name} takes pixels in 0…1, got {low:.3g}…{high:.3g}: {hint}")


def _triple(value: Any, what: str) -> tuple[float, ...]:
    try:
        values = tuple(torch.as_tensor(value, dtype=torch.float64).flatten().tolist())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} must be one number or three, got {value!r}") from error
    if len(values) not in (1, 3):
        raise InputError(f"{what} must be one number or three, got {len(values)}")
    return values * (3 // len(values))


def _plain(size: Any) -> Any:
    """A size of any integers, e.g. of NumPy's, as a tuple."""
    try:
        return tuple(
            side if isinstance(side, bool) else int(side) if int(side) == side else side for side in size
        )
    except (TypeError, ValueError):
        return size
