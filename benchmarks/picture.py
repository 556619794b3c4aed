"""Draw explanations to be looked at: twenty pairs, and bad cases; and how long a picture takes.

Pairs of `pairsDevTest.txt` (people that no model of ours was trained on). Bad cases are two genuine pairs whose
reference is changed, and the pair, of 60, in which a face is turned the most.

    python benchmarks/picture.py --out DIR [--recognizer NAME] [--method NAME] [--check] [--only bad]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from xfr_plugin import Explanation, explain, load_recognizer
from xfr_plugin.errors import FaceWarning
from xfr_plugin.explanation.figures.explanation import explanation_picture, explanation_png
from xfr_plugin.explanation.words import components
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.zoo import data_root

Photo = NDArray[np.uint8]
BLACK = (10, 10, 12)


def drawn(photo: Photo, draw: Callable[[ImageDraw.ImageDraw], object]) -> Photo:
    image = Image.fromarray(photo)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def sunglasses(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((24, 42, 52, 62), fill=BLACK)
    draw.ellipse((59, 42, 88, 62), fill=BLACK)
    draw.line((50, 50, 62, 50), fill=BLACK, width=3)


def eye_patch(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((58, 38, 90, 66), fill=BLACK)
    draw.line((18, 24, 62, 44), fill=BLACK, width=3)


def cap(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 112, 24), fill=(60, 70, 110))
    draw.chord((-6, 8, 118, 40), 0, 360, fill=(40, 48, 80))


def other_nose(photo: Photo, donor: Photo) -> Photo:
    """The donor's nose, blended in by a soft ellipse."""
    mask = Image.new("L", (112, 112))
    ImageDraw.Draw(mask).ellipse((42, 46, 70, 84), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(2))
    return np.asarray(Image.composite(Image.fromarray(donor), Image.fromarray(photo), mask))


def half_in_shadow(photo: Photo) -> Photo:
    light = np.interp(np.arange(112), (50, 62), (0.25, 1.0))
    return (photo * light[None, :, None]).astype(np.uint8)


def bad_cases(first: Photo, second: Photo, stranger: Photo) -> dict[str, Photo]:
    image = Image.fromarray(second)
    return {
        "as_it_is": second,
        "same_photograph": first,
        "covered_mouth": drawn(second, lambda draw: draw.rectangle((34, 84, 78, 104), fill=BLACK)),
        "sunglasses": drawn(second, sunglasses),
        "bar_over_the_eyes": drawn(second, lambda draw: draw.rectangle((16, 43, 96, 61), fill=BLACK)),
        "eye_patch": drawn(second, eye_patch),
        "cap": drawn(second, cap),
        "other_nose": other_nose(second, stranger),
        "blurred": np.asarray(image.filter(ImageFilter.GaussianBlur(4))),
        "half_in_shadow": half_in_shadow(second),
        "tiny": np.asarray(image.resize((14, 14)).resize(image.size)),
    }


def turned(pairs: list[tuple[Photo, Photo]]) -> tuple[Photo, Photo]:
    """The pair of which one face's cheeks differ the most in area."""

    def unevenness(photo: Photo) -> float:
        (regions,) = find_regions(torch.from_numpy(photo.transpose(2, 0, 1)[None] / 255).float())
        right, left = (regions.areas()[name] + 1 for name in ("right_cheek", "left_cheek"))
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

    listed = [
        pair for pair in read_pairs(faces / "pairsDevTest.txt") if (faces / "lfw112" / pair.probe).is_file()
    ]
    listed = [pair for pair in listed if (faces / "lfw112" / pair.reference).is_file()]
    rng, found = np.random.default_rng(seed), {}
    for same, word in ((True, "genuine"), (False, "impostor")):
        kind = [pair for pair in listed if pair.same == same]
        chosen = [kind[i] for i in rng.choice(len(kind), 60, replace=False)]
        photos = [(read(pair.probe), read(pair.reference)) for pair in chosen]
        found |= {f"{word}_{number}": pair for number, pair in enumerate(photos[:10])}
        if same:
            for number in (10, 11):
                bad = bad_cases(*photos[number], stranger=photos[number + 2][1])
                found |= {
                    f"bad_{number}_{name}": (photos[number][0], changed) for name, changed in bad.items()
                }
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
        shares = sorted(components(explanation.probe.regions), key=lambda part: -abs(part.share))
        print(name, explanation, ", ".join(f"{part.name} {part.value}" for part in shares[:3]), flush=True)
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
    print(f"processor time: {1000 * drawing:.0f} ms to draw, {1000 * encoded:.0f} ms with the PNG")


if __name__ == "__main__":
    main()
