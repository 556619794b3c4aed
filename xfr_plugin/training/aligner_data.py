"""Photographs for the training of the aligner: faces with landmarks, cascade boxes, and what is no face."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfr_plugin.base.files import write_text
from xfr_plugin.errors import InputError
from xfr_plugin.faces.alignment import Landmarks
from xfr_plugin.faces.detection import Box
from xfr_plugin.training.faces_data import read_pixels
from xfr_plugin.training.windows import Candidate, find_boxes

__all__ = ["BOX_MEAN", "BOX_SPREAD", "PhotoSet", "box_offset", "read_labelled", "read_photos"]

BOX_MEAN = (0.01, -0.22, 2.78)
"""The cascade's boxes: centre (x, y) from the landmarks' mean and side, in eye distances. Near
what `benchmarks/aligner.py --boxes` measures on the training photographs."""

BOX_SPREAD = (0.08, 0.08, 0.25)
"""Their standard deviations."""

_MOST_HITS_OF_A_FALSE_BOX = 2


@dataclass(frozen=True)
class PhotoSet:
    """Photographs with one labelled face each.

    Attributes:
        images: grey, uint8, N×1×H×W.
        landmarks: in pixels, N×5×2.
        boxes: the cascade's box of the face as centre and side in pixels, N×3; NaN where it found none.
        false_boxes: other boxes of the cascade, on the photo or on the photo upside down, as photo, centre,
            side and angle in radians, M×5.
    """

    images: Tensor
    landmarks: Tensor
    boxes: Tensor
    false_boxes: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def expected_boxes(self) -> Tensor:
        """The cascade's boxes; where it found none, the box it usually gives."""
        eyes = (self.landmarks[:, 1] - self.landmarks[:, 0]).norm(dim=1, keepdim=True)
        usual = eyes * torch.tensor(BOX_MEAN) + torch.nn.functional.pad(self.landmarks.mean(1), (0, 1))
        return torch.where(self.boxes.isnan(), usual, self.boxes)


def read_photos(
    folder: Path, landmarks: dict[str, Landmarks], files: Sequence[str], boxes_file: Path
) -> PhotoSet:
    """Read photographs, all of one size, and run the cascade over them.

    Args:
        folder: of the photographs.
        landmarks: in the photographs, by file.
        files: the photographs, relative to `folder`.
        boxes_file: the cascade's boxes are kept here, so that a resumed training need not look again.

    Raises:
        InputError: a file has no landmarks, or another size than the first.
        PhotoFormatError: a file is damaged or no image.
    """
    images = read_labelled(folder, landmarks, files)
    candidates = _find_or_read_boxes(dict(zip(files, images, strict=True)), boxes_file)
    boxes, false_boxes = [], []
    for index, (file, (upright, upside_down)) in enumerate(zip(files, candidates, strict=True)):
        box, others = _sort_boxes(upright, landmarks[file])
        boxes.append(box)
        false_boxes += [(float(index), *other, 0.0) for other in others]
        height, width = images[0].shape
        turned = [_centre_and_side(candidate) for candidate in upside_down]
        false_boxes += [(float(index), width - 1 - x, height - 1 - y, side, math.pi) for x, y, side in turned]
    return PhotoSet(
        torch.from_numpy(np.stack(images))[:, None],
        torch.from_numpy(np.stack([landmarks[file] for file in files])).float(),
        torch.tensor(boxes),
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


def box_offset(candidate: Candidate, landmarks: Landmarks) -> tuple[float, float, float]:
    """Centre of a box from the landmarks' mean, and its side, in eye distances."""
    x, y, side = _centre_and_side(candidate)
    eye_distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    mean_x, mean_y = landmarks.mean(0).tolist()
    return (x - mean_x) / eye_distance, (y - mean_y) / eye_distance, side / eye_distance


def _find_or_read_boxes(
    images: dict[str, NDArray[np.uint8]], path: Path
) -> list[tuple[list[Candidate], list[Candidate]]]:
    """Boxes of each photo, and of the same photo upside down, where nothing is an upright face."""
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
    else:
        stored = {file: [_rows(image), _rows(image[::-1, ::-1])] for file, image in images.items()}
        write_text(path, json.dumps(stored))
    if not isinstance(stored, dict) or not images.keys() <= stored.keys():
        raise InputError(f"{path} holds the boxes of other photographs: delete it")
    return [(_candidates(stored[file][0]), _candidates(stored[file][1])) for file in images]


def _rows(image: NDArray[np.uint8]) -> list[tuple[float, ...]]:
    return [(*astuple(candidate.box), candidate.hits) for candidate in find_boxes(image)]


def _candidates(rows: list[list[float]]) -> list[Candidate]:
    return [Candidate(Box(*row[:4]), int(row[4])) for row in rows]


def _sort_boxes(
    found: Sequence[Candidate], landmarks: Landmarks
) -> tuple[tuple[float, float, float], list[tuple[float, float, float]]]:
    """The box of the labelled face, and boxes that are surely none.

    Boxes with many hits may be other people's faces, which have no labels: they are left out.
    """
    own = [candidate for candidate in found if _is_face(candidate, landmarks)]
    best = max(own, key=lambda candidate: candidate.hits, default=None)
    others = [c for c in found if c not in own and c.hits <= _MOST_HITS_OF_A_FALSE_BOX]
    nothing = (float("nan"),) * 3
    return _centre_and_side(best) if best else nothing, [_centre_and_side(c) for c in others]


def _is_face(candidate: Candidate, landmarks: Landmarks) -> bool:
    x, y, side = box_offset(candidate, landmarks)
    return abs(x) < 0.7 and abs(y) < 0.7 and 1.6 < side < 5


def _centre_and_side(candidate: Candidate) -> tuple[float, float, float]:
    box = candidate.box
    return box.x + box.width / 2 - 0.5, box.y + box.height / 2 - 0.5, box.width
