"""The demonstration: from photographs to pictures, on what comes with the package's dependencies.

The photograph is scikit-image's astronaut, Eileen Collins, taken by NASA (public domain); other photographs are
edited copies of it, and the faces beside hers are means of several people each, and nobody (`swaps.donors`). So
nobody's likeness is used that is not public already. Run it with `xfr demo`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data
from skimage.transform import swirl

from xfr_plugin.base.files import make_folder, writing_to
from xfr_plugin.errors import FaceError
from xfr_plugin.explanation.api import explain
from xfr_plugin.explanation.explanation import Explanation
from xfr_plugin.explanation.words import headline
from xfr_plugin.faces import Landmarks
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.recognition import Recognizer
from xfr_plugin.swaps.donors import COMPOSITES, composite_faces

__all__ = ["EDITS", "run_demo"]

Photo = NDArray[np.uint8]


def run_demo(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    """Explain the astronaut against edited copies of her, and two people who are nobody against each other.

    Returns:
        For each pair, its name with what is said of it, and the path of the picture in `folder`.
    """
    make_folder(folder)
    with writing_to(folder):
        return _explain_astronaut(folder, recognizer) + _explain_nobody(folder, recognizer)


def _explain_astronaut(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    photo: Photo = data.astronaut()
    found = FaceDetector()(photo)
    if not found:
        raise FaceError("the face of the demonstration photograph was not found")
    landmarks = max(found, key=lambda face: face.box.area).landmarks
    Image.fromarray(photo).save(folder / "astronaut.png")
    pictures = []
    for name, edit in EDITS.items():
        copy = edit(photo, landmarks)
        Image.fromarray(copy).save(folder / f"astronaut_{name}.png")
        explanation = explain(photo, copy, recognizer=recognizer, check=True)
        pictures.append(_saved(explanation, folder, f"the astronaut {name.replace('_', ' ')}", name))
    return pictures


def _explain_nobody(folder: Path, recognizer: Recognizer) -> list[tuple[str, Path]]:
    """Explain two faces of nobody against each other."""
    # the first ones are donors: a face replaced by itself loses nothing
    faces = composite_faces(COMPOSITES, recognizer.input_size)[-2:].permute(0, 2, 3, 1).numpy()
    first, second = (np.round(face * 255).astype(np.uint8) for face in faces)
    for name, face in (("first", first), ("second", second)):
        Image.fromarray(face).save(folder / f"nobody_{name}.png")
    explanation = explain(first, second, recognizer=recognizer, alignment="aligned", check=True)
    return [_saved(explanation, folder, "two people who are nobody", "two_people")]


def _saved(explanation: Explanation, folder: Path, title: str, name: str) -> tuple[str, Path]:
    verdict = "match" if explanation.verification.match else "no match"
    picture, _ = explanation.save(folder, f"explained_{name.replace(' ', '_')}")
    return f"{title}: {verdict}. {headline(explanation)}", picture


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


def with_covered_mouth(photo: Photo, landmarks: Landmarks) -> Photo:
    """Draw a black bar over the mouth."""
    image = Image.fromarray(photo)
    right, left = landmarks[3:]
    reach = 0.35 * float(np.linalg.norm(landmarks[1] - landmarks[0])) * np.array([0.5, 1.0])
    ImageDraw.Draw(image).rectangle((*(right - reach), *(left + reach)), fill=(12, 12, 14))
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
    "with_covered_mouth": with_covered_mouth,
    "with_another_nose": with_another_nose,
}
"""Name → edit of a photo, given its five landmarks."""
