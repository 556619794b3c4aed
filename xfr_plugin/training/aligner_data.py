"""Photographs for the training of the aligner: faces with landmarks, the finder's boxes, and what is no face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import Landmarks
from xfr_plugin.faces.finder import Candidate, load_finder
from xfr_plugin.faces.search import candidate_around, search_rounds
from xfr_plugin.training.faces_data import read_pixels

__all__ = ["BOX_SPREAD", "PhotoSet", "box_offset", "find_candidates", "read_labelled", "read_photos"]

BOX_SPREAD = (0.09, 0.11, 0.28, 0.07)
"""Standard deviations of what `box_offset` gives for the finder's boxes, on photographs that it was not trained on
(`benchmarks/aligner.py --boxes --held-out`)."""

_LEAST_SCORE_OF_A_FALSE_BOX = 0.2
_NEAR = 0.7
_MOST_DIFFERENCE_OF_SIDES = 1.2


@dataclass(frozen=True)
class PhotoSet:
    """Photographs with one labelled face each. A box is its centre, its side and its angle in radians.

    Attributes:
        images: grey, uint8, N×1×H×W.
        landmarks: in pixels, N×5×2.
        usual_boxes: the boxes that fit the landmarks, N×4.
        boxes: the finder's boxes of the faces; where it found none, the usual ones, N×4.
        false_boxes: what the finder takes for faces in the photo upside down, as photo and box, M×5.
    """

    images: Tensor
    landmarks: Tensor
    usual_boxes: Tensor
    boxes: Tensor
    false_boxes: Tensor

    def __len__(self) -> int:
        return len(self.images)


def read_photos(folder: Path, landmarks: dict[str, Landmarks], files: Sequence[str]) -> PhotoSet:
    """Read photographs, all of one size, and run the finder over them.

    Unlabelled people stand in upright photographs: what is no face comes from the same photographs upside down.

    Args:
        folder: of the photographs.
        landmarks: in the photographs, by file.
        files: the photographs, relative to `folder`.

    Raises:
        InputError: a file has no landmarks, or another size than the first.
        PhotoFormatError: a file is damaged or no image.
    """
    images = read_labelled(folder, landmarks, files)
    usual, boxes, false_boxes = [], [], []
    for index, (file, image) in enumerate(zip(files, images, strict=True)):
        usual.append(candidate_around(landmarks[file], 0.0))
        faces = [c for c in find_candidates(image) if _is_face(c, landmarks[file])]
        boxes.append(max(faces, key=lambda face: face.score, default=usual[-1]))
        height, width = image.shape
        for candidate in find_candidates(image[::-1, ::-1], _LEAST_SCORE_OF_A_FALSE_BOX):
            x, y, side, angle = _numbers(candidate)
            false_boxes.append((float(index), width - 1 - x, height - 1 - y, side, angle + math.pi))
    return PhotoSet(
        torch.from_numpy(np.stack(images))[:, None],
        torch.from_numpy(np.stack([landmarks[file] for file in files])).float(),
        torch.tensor([_numbers(candidate) for candidate in usual]),
        torch.tensor([_numbers(candidate) for candidate in boxes]),
        torch.tensor(false_boxes).reshape(-1, 5),
    )


def read_labelled(
    folder: Path, landmarks: dict[str, Landmarks], files: Sequence[str]
) -> list[NDArray[np.uint8]]:
    """Read photographs that have landmarks and one size, grey; see `read_photos`."""
    unlabelled = [file for file in files if file not in landmarks]
    if unlabelled:
        raise InputError(f"{len(unlabelled)} photographs have no landmarks, e.g. {unlabelled[0]}")
    images = [read_pixels(folder / file, "L") for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"photographs must have one size: {file} differs from {files[0]}")
    return images


def find_candidates(image: NDArray[np.uint8], least_score: float = 0.4) -> list[Candidate]:
    """What the shipped finder takes for faces in a grey photo (H×W) at first sight, best first."""
    photo = Image.fromarray(np.ascontiguousarray(image))
    return load_finder()(photo, next(search_rounds(photo.size)), least_score)


def box_offset(candidate: Candidate, landmarks: Landmarks) -> tuple[float, float, float, float]:
    """How a box differs from the one that fits the landmarks: x, y and side in eye distances, angle in radians."""
    usual = _numbers(candidate_around(landmarks, 0.0))
    x, y, side, angle = (value - other for value, other in zip(_numbers(candidate), usual, strict=True))
    eyes = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    return x / eyes, y / eyes, side / eyes, angle


def _is_face(candidate: Candidate, landmarks: Landmarks) -> bool:
    x, y, side, _angle = box_offset(candidate, landmarks)
    return math.hypot(x, y) < _NEAR and abs(side) < _MOST_DIFFERENCE_OF_SIDES


def _numbers(candidate: Candidate) -> tuple[float, float, float, float]:
    box = candidate.box
    return box.x + box.width / 2 - 0.5, box.y + box.height / 2 - 0.5, box.width, candidate.angle
