"""The demonstration: from photographs to pictures, on what comes with the package's dependencies.

The photograph is scikit-image's astronaut, Eileen Collins, taken by NASA (public domain); other photographs are
edited copies of it, and the faces beside hers are people who do not exist, decoded from random embeddings. So
nobody's likeness is used that is not public already. Run it with `xfr demo`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data
from skimage.transform import swirl
from torch.nn import functional

from xfr_plugin.errors import FaceError, InputError
from xfr_plugin.explanation.api import explain
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.faces import Landmarks
from xfr_plugin.faces.cascade import CascadeDetector
from xfr_plugin.recognition import Recognizer
from xfr_plugin.reconstruction import Decoder, find_decoder

__all__ = ["EDITS", "invented_people", "run_demo"]

Photo = NDArray[np.uint8]

_SEED = 1  # its two people are no look-alikes, unlike those of seed 0


def run_demo(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    """Explain the astronaut against edited copies of her, and people who do not exist against each other.

    Returns:
        For each pair, its name with the decision, and the path of the picture in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _explain_astronaut(folder, recognizer) + _explain_invented(folder, recognizer)


def _explain_astronaut(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    photo: Photo = data.astronaut()
    found = CascadeDetector()(photo)
    if not found:
        raise FaceError("the face of the demonstration photograph was not found")
    landmarks = max(found, key=lambda face: face.box.area).landmarks
    Image.fromarray(photo).save(folder / "astronaut.png")
    pictures = []
    for name, edit in EDITS.items():
        copy = edit(photo, landmarks)
        Image.fromarray(copy).save(folder / f"astronaut_{name}.png")
        explanation = explain(photo, copy, recognizer=recognizer)
        pictures.append(_saved(explanation, folder, f"the astronaut {name.replace('_', ' ')}", name))
    return pictures


def _explain_invented(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    """Explain pairs of decoded faces; none, where the recognizer has no decoder in the package."""
    try:
        decoder = find_decoder(recognizer)
    except InputError:
        return []
    first, alike, second = invented_people(decoder)
    for name, face in zip(("first", "alike", "second"), (first, alike, second), strict=True):
        Image.fromarray(face).save(folder / f"invented_{name}.png")
    pairs = (("a person who does not exist and a likeness", alike), ("two people who do not exist", second))
    return [
        _saved(explain(first, other, recognizer=recognizer, alignment="aligned"), folder, title, title)
        for title, other in pairs
    ]


def _saved(explanation: Explanation, folder: Path, title: str, name: str) -> tuple[str, Path]:
    decision = explanation.verification
    picture, _ = explanation.save(folder, f"explained_{name.replace(' ', '_')}")
    return f"{title}: {'match' if decision.match else 'no match'}, score {decision.score:.3f}", picture


def invented_people(decoder: Decoder, seed: int = _SEED) -> tuple[Photo, Photo, Photo]:
    """Decode people who do not exist from random embeddings, distributed as those of real faces are.

    Returns:
        Aligned faces, H×W×3: a person, a likeness (halfway from the person to the other), and another person.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = decoder.mean_embedding
    noise = torch.randn(2, len(mean), generator=generator) / len(mean) ** 0.5
    people = functional.normalize(mean + (1 - mean.square().sum()).sqrt() * noise, dim=1)
    alike = functional.normalize(1.5 * people[0] + people[1], dim=0)
    with torch.no_grad():
        faces = decoder.faces(torch.stack((people[0], alike, people[1])))
    images = (faces.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().numpy()
    return images[0], images[1], images[2]


def mirrored_and_darkened(photo: Photo, _: Landmarks) -> Photo:
    """Mirror a photo and halve its brightness."""
    return np.ascontiguousarray(photo[:, ::-1] // 2)


def with_sunglasses(photo: Photo, landmarks: Landmarks) -> Photo:
    """Draw sunglasses over the eyes."""
    image = Image.fromarray(photo)
    draw = ImageDraw.Draw(image)
    right, left = landmarks[:2]
    radius = 0.4 * float(np.linalg.norm(left - right))
    for x, y in (right, left):
        draw.ellipse((x - radius, y - 0.7 * radius, x + radius, y + 0.7 * radius), fill=(12, 12, 14))
    draw.line((*right, *left), fill=(12, 12, 14), width=max(2, round(radius / 6)))
    return np.asarray(image)


def with_another_nose(photo: Photo, landmarks: Landmarks) -> Photo:
    """Twist the nose, and leave everything else as it is."""
    eye_distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    x, y = landmarks[2] - (0, 0.1 * eye_distance)
    twisted = swirl(photo, center=(x, y), strength=4, radius=0.75 * eye_distance, preserve_range=True)
    copy: Photo = twisted.astype(np.uint8)
    return copy


EDITS: dict[str, Callable[[Photo, Landmarks], Photo]] = {
    "mirrored_and_darkened": mirrored_and_darkened,
    "with_sunglasses": with_sunglasses,
    "with_another_nose": with_another_nose,
}
"""Name → edit of a photo, given its five landmarks."""
