"""Alignment: from five landmarks to the crop that recognizers are trained on.

The template is ArcFace's (Deng et al., CVPR 2019, arXiv 1801.07698): five points on a 112×112 crop.
Coordinates are (x, y) in pixels with pixel centres at integers. What every photo needs does without
`skimage.transform`, whose imports take a twentieth of the time of a command that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import ArrayLike, NDArray

from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.errors import FaceError, InputError, in_one_line

__all__ = [
    "ARCFACE_TEMPLATE",
    "Landmarks",
    "align",
    "alignment_transform",
    "fit_aligned",
    "five_points",
    "place_on_template",
    "template",
]

Landmarks = NDArray[np.float64]
"""Five points (x, y), 5×2: the subject's right eye, left eye, nose tip, right and left mouth corner."""

Image = NDArray[np.uint8]
"""An RGB image, H×W×3."""

ARCFACE_TEMPLATE: Landmarks = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_TEMPLATE_SIDE = 112
_REACH = 4.0  # of the blur, in standard deviations
_LONGEST_SIDE = 2000  # in the photo, of what is filtered for a crop
_LARGEST_ASPECT = 10


def template(size: tuple[int, int] = (112, 112)) -> Landmarks:
    """ArcFace's five points on a crop of `size` (height, width).

    The face keeps its height; a crop that is not square sees more or less at the sides.
    """
    return place_on_template(ARCFACE_TEMPLATE, size)


def place_on_template(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Move points (x, y) of the 112×112 template to a crop of `size` (height, width)."""
    height, width = size
    shift = np.array([(width - height) / 2, 0.0])
    placed: Landmarks = (points + 0.5) * (height / _TEMPLATE_SIDE) - 0.5 + shift
    return placed


def alignment_transform(landmarks: ArrayLike, size: tuple[int, int] = (112, 112)) -> NDArray[np.float64]:
    """Least-squares similarity transform from the photo to the aligned crop (Umeyama, 1991), a 3×3 matrix.

    Args:
        landmarks: five points, see `Landmarks`.
        size: height and width of the crop in pixels.

    Raises:
        InputError: the landmarks are not 5×2 finite numbers.
        FaceError: the landmarks coincide.
    """
    points = five_points(landmarks)
    if np.ptp(points, axis=0).max() < 1e-3:
        raise FaceError("the five landmarks coincide: the face cannot be aligned")
    # in the plane of complex numbers a similarity is z → factor · z + shift
    given, wanted = points @ (1, 1j), template(size) @ (1, 1j)
    centred = given - given.mean()
    factor = np.vdot(centred, wanted - wanted.mean()) / np.vdot(centred, centred).real
    shift = wanted.mean() - factor * given.mean()
    a, b = factor.real, factor.imag
    return np.array([[a, -b, shift.real], [b, a, shift.imag], [0, 0, 1]])


def five_points(landmarks: ArrayLike) -> Landmarks:
    """Landmarks as an array, 5×2.

    Raises:
        InputError: they are not 5×2 finite numbers.
    """
    try:
        points = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"landmarks must be five points (5×2): {in_one_line(error)}") from error
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise InputError(f"landmarks must be five finite points (5×2), got shape {points.shape}")
    return points


def align(photo: Image, landmarks: ArrayLike, size: tuple[int, int] = (112, 112)) -> Image:
    """Warp a photo so that its face lies on the ArcFace template; black outside the photo.

    Args:
        photo: RGB, H×W×3, 0…255.
        landmarks: five points in the photo, see `Landmarks`.
        size: height and width of the crop in pixels.

    Raises:
        InputError: the landmarks are not 5×2 finite numbers.
        FaceError: the landmarks coincide.
    """
    transform = alignment_transform(landmarks, size)
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    factor = _reduction(max(size) / scale)
    if factor > 1:
        landmarks = (np.asarray(landmarks, dtype=np.float64) + 0.5) / factor - 0.5
        return align(_reduced(photo, factor), landmarks, size)
    sigma = _blur(scale)
    to_photo = np.linalg.inv(transform).astype(np.float64)
    rows, columns = _seen(photo.shape, to_photo, size, margin=int(_REACH * sigma + 0.5) + 2)
    to_photo[:2, 2] -= columns.start, rows.start
    channels = [_warped(channel, to_photo, size, sigma) for channel in _channels(photo[rows, columns])]
    return _to_uint8(np.stack(channels, axis=-1))


def fit_aligned(face: Image, size: tuple[int, int]) -> Image:
    """Bring an already aligned crop to another size: cut the sides (or pad them with black), then resize.

    Args:
        face: aligned RGB crop, H×W×3, of any size, that follows `template`.
        size: height and width wanted, in pixels.

    Raises:
        FaceError: one side is more than ten times the other: this is no crop of a face.
    """
    if face.shape[:2] == size:
        return face
    from skimage.transform import resize  # takes its time to import

    height, width = face.shape[:2]
    if max(height, width) > _LARGEST_ASPECT * min(height, width):
        raise FaceError(f"an image of {width}×{height} pixels is no aligned face: cut out the face")
    factor = _reduction(height)
    if factor > 1:
        return fit_aligned(_reduced(face, factor), size)
    wanted = max(1, round(height * size[1] / size[0]))
    margin = wanted - face.shape[1]
    if margin > 0:
        face = np.pad(face, ((0, 0), (margin // 2, margin - margin // 2), (0, 0)))
    start = (face.shape[1] - wanted) // 2
    cut = face[:, start : start + wanted]
    shrinks = size[0] < height
    channels = [resize(channel, size, order=1, anti_aliasing=shrinks) for channel in _channels(cut)]
    return _to_uint8(np.stack(channels, axis=2))


def _channels(photo: Image) -> Iterator[Image]:
    """Channels of a photo, H×W, one after the other: they are held in 64 bits; raises DeadlineError between them."""
    for place in range(photo.shape[2]):
        check_deadline()
        yield photo[:, :, place]


def _reduction(side: float) -> int:
    """By what a photo is reduced first, if a crop sees so many pixels: wide filters on many of them take minutes."""
    return int(2 * side / _LONGEST_SIDE) if side > _LONGEST_SIDE else 1


def _reduced(photo: Image, factor: int) -> Image:
    """A photo of means of `factor` × `factor` pixels."""
    return np.asarray(PIL.Image.fromarray(photo).reduce(factor))


def _blur(scale: float) -> float:
    """Standard deviation, in pixels of the photo, of the blur before shrinking, so that nothing aliases."""
    return 0.0 if scale >= 0.5 else (1 / scale - 1) / 2


def _seen(
    shape: tuple[int, ...], to_photo: NDArray[np.float64], size: tuple[int, int], margin: int
) -> tuple[slice, slice]:
    """Rows and columns of a photo that a crop of `size` sees, and a margin around them; never none."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ to_photo[:2].T
    low = np.floor(corners.min(0)).astype(int) - margin
    high = np.ceil(corners.max(0)).astype(int) + margin + 1
    limits = np.array([shape[1], shape[0]])
    low, high = np.clip(low, 0, limits - 1), np.clip(high, 1, limits)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _blurred(channel: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8] | NDArray[np.float64]:
    """A channel itself, or blurred, in [0, 1]."""
    if not sigma:
        return channel
    from skimage.filters import gaussian  # takes its time to import

    blurred: NDArray[np.float64] = gaussian(channel, sigma=sigma, truncate=_REACH)
    return blurred


def _warped(
    channel: NDArray[np.uint8], to_photo: NDArray[np.float64], size: tuple[int, int], sigma: float
) -> NDArray[np.float64]:
    """Blur and warp one channel, H×W, bilinearly; values in [0, 1], and 0 outside of it."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = (row[0] * columns + row[1] * rows + row[2] for row in to_photo[:2])
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    padded: NDArray[Any] = np.pad(_blurred(channel, sigma), 1)
    largest = 255 if padded.dtype == np.uint8 else 1

    height, width = padded.shape

    def at(row: NDArray[np.int_], column: NDArray[np.int_]) -> NDArray[np.float64]:
        values = padded[np.clip(row + 1, 0, height - 1), np.clip(column + 1, 0, width - 1)]
        found: NDArray[np.float64] = values / largest
        return found

    right, down = x - left, y - top
    above = (1 - right) * at(top, left) + right * at(top, left + 1)
    below = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    warped: NDArray[np.float64] = (1 - down) * above + down * below
    return warped


def _to_uint8(image: NDArray[np.float64]) -> Image:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
