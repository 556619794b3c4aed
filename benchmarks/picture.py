"""Draw explanations to be looked at: twenty pairs, and bad cases; and how long a picture takes.

Pairs of `pairsDevTest.txt`, of people on whom nothing was trained and who may be looked at (the half `dev`). Bad
cases are genuine pairs whose reference is changed by what may hide a face, and the pair, of 60, in which a face is
turned the most.

    python benchmarks/picture.py --out DIR [--recognizer NAME] [--method NAME] [--check] [--only bad]

Occluders are drawn at random (`--seed`): nobody chose them by what an explanation says of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from people import held_out_people
from PIL import Image, ImageFilter

from xfr_plugin import Explanation, explain, load_recognizer
from xfr_plugin.errors import FaceWarning
from xfr_plugin.evaluation.occluders.frame import landmarks_of
from xfr_plugin.evaluation.occluders.kinds import occlude
from xfr_plugin.explanation.figures.explanation import explanation_picture, explanation_png
from xfr_plugin.explanation.words import headline
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.zoo import data_root

Photo = NDArray[np.uint8]
CHANGED = (10, 11, 12)
OCCLUDERS = ("sunglasses", "bar over the eyes", "eye patch", "cap", "shadow over one side")
PAINTED = {"eyes": ("right_eye", "left_eye"), "mouth": ("mouth",), "nose": ("nose",)}
CHEEKS = ("right_cheek", "left_cheek")


def regions_of(photo: Photo) -> RegionMap:
    (regions,) = find_regions(torch.from_numpy(photo.transpose(2, 0, 1)[None] / 255).float())
    return regions


def painted(photo: Photo, mask: NDArray[np.bool_], colour: NDArray[np.floating]) -> Photo:
    changed = photo.copy()
    changed[mask] = np.rint(colour)
    return changed


def bad_cases(photo: Photo, rng: np.random.Generator) -> dict[str, Photo]:
    """A photograph, and what may hide a face on it."""
    image, regions = Image.fromarray(photo), regions_of(photo)
    skin = np.median(photo[regions.mask(*CHEEKS)], axis=0)
    found = {
        "as_it_is": photo,
        "mouth_blackened": painted(photo, regions.mask("mouth"), np.full(3, 10.0)),
        "blurred": np.asarray(image.filter(ImageFilter.GaussianBlur(4))),
        "tiny": np.asarray(image.resize((14, 14)).resize(image.size)),
    }
    for name, parts in PAINTED.items():
        found[f"{name}_painted_over"] = painted(photo, regions.mask(*parts), skin)
    for kind in OCCLUDERS:
        covered = occlude(photo / 255, landmarks_of(regions), kind, rng).image
        found[kind.replace(" ", "_")] = np.rint(covered * 255).astype(np.uint8)
    return found


def turned(pairs: list[tuple[Photo, Photo]]) -> tuple[Photo, Photo]:
    """The pair of which one face's cheeks differ the most in area."""

    def unevenness(photo: Photo) -> float:
        areas = regions_of(photo).areas()
        right, left = (areas[name] + 1 for name in CHEEKS)
        return abs(float(np.log(right / left)))

    return max(pairs, key=lambda pair: max(map(unevenness, pair)))


def seconds(explanation: Explanation, draw: Callable[[Explanation], object], times: int = 5) -> float:
    """Processor time of a drawing, the least of some."""
    found = []
    for _ in range(times):
        start = time.process_time()
        draw(explanation)
        found.append(time.process_time() - start)
    return min(found)


def cases(faces: Path, seed: int) -> dict[str, tuple[Photo, Photo]]:
    def read(name: str) -> Photo:
        return np.asarray(Image.open(faces / "lfw112" / name).convert("RGB"))

    files = {file for own in held_out_people(faces, "dev").values() for file in own}
    listed = [
        pair for pair in read_pairs(faces / "pairsDevTest.txt") if {pair.probe, pair.reference} <= files
    ]
    rng, found = np.random.default_rng(seed), {}
    for same, word in ((True, "genuine"), (False, "impostor")):
        kind = [pair for pair in listed if pair.same == same]
        chosen = [kind[i] for i in rng.choice(len(kind), 60, replace=False)]
        photos = [(read(pair.probe), read(pair.reference)) for pair in chosen]
        found |= {f"{word}_{number}": pair for number, pair in enumerate(photos[:10])}
        if same:
            for number in CHANGED:
                probe, reference = photos[number]
                for name, changed in bad_cases(reference, rng).items():
                    found[f"bad_{number}_{name}"] = (probe, changed)
            found["bad_same_photograph"] = photos[0][0], photos[0][0]
            found["bad_turned"] = turned(photos)
    return found


def show(recognizer: Recognizer, arguments: argparse.Namespace) -> Explanation:
    for name, pair in cases(arguments.faces, arguments.seed).items():
        if not name.startswith(arguments.only):
            continue
        explanation = explain(
            *pair, recognizer=recognizer, method=arguments.method, alignment="aligned", check=arguments.check
        )
        explanation.save(arguments.out, name)
        print(
            f"{name}: {'match' if explanation.verification.match else 'no match'}. {headline(explanation)}",
            flush=True,
        )
    return explanation


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--faces", type=Path, default=data_root() / "faces")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="", help="names that begin so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceWarning)  # the pictures say the same
        last = show(load_recognizer(arguments.recognizer), arguments)
    drawing, encoded = seconds(last, explanation_picture), seconds(last, explanation_png)
    with tempfile.TemporaryDirectory() as folder:
        saved = seconds(last, lambda explanation: explanation.save(folder))
    print(
        f"processor time: {1000 * drawing:.0f} ms to draw, {1000 * encoded:.0f} ms with the PNG, "
        f"{1000 * saved:.0f} ms to save picture and document"
    )


if __name__ == "__main__":
    main()
