"""Brightness, contrast, sharpness and evenness of aligned LFW faces: from which values on a photograph is unusual.

And how far faces lie from where alignment puts them, in aligned crops and in photographs taken for crops; and how
much copies of a photograph differ, and photographs of one person.

python benchmarks/serving_quality.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from xfr_plugin.explanation.quality import evenness, measure, misalignment
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.faces.photo import PhotoSource, load_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument(
        "--placed", type=int, default=200, help="crops and photographs whose faces are placed"
    )
    options = parser.parse_args()
    faces = options.data / "faces"
    lines = (faces / "peopleDevTrain.txt").read_text(encoding="utf-8").splitlines()[1:]
    people = [line.split()[0] for line in lines]
    files = [file for person in people for file in sorted((faces / "lfw112" / person).glob("*.jpg"))]
    photos = [load_photo(file) for file in files[: options.images]]
    found = np.array([(*measure(photo), evenness(photo)) for photo in photos])
    print(f"{len(found)} images")
    for name, values in zip(("brightness", "contrast", "sharpness", "evenness"), found.T, strict=True):
        low, middle = np.quantile(values, [0.005, 0.5])
        print(f"{name:10} 0.5 % quantile {low:7.2f}   median {middle:7.2f}")
    every = max(1, len(files) // options.placed)
    photographs = sorted((faces / "lfw250").rglob("*.jpg"))[: options.placed]
    for name, chosen in (("crops", files[::every][: options.placed]), ("photographs", photographs)):
        distances = [misalignment(fit_aligned(load_photo(file), (112, 112))) for file in chosen]
        known = np.array([value for value in distances if value is not None])
        spread = " ".join(f"{value:.2f}" for value in np.quantile(known, [0, 0.01, 0.5, 0.99, 1]))
        print(
            f"misalignment of {name}: {spread} (least, 1 %, median, 99 %, most); {len(known)} of {len(chosen)} found"
        )
    pairs = [
        difference(one, other)
        for person in people
        for one, other in combinations(sorted((faces / "lfw112" / person).glob("*.jpg"))[:8], 2)
    ]
    least = " ".join(f"{value:.2f}" for value in sorted(pairs)[:3])
    print(f"least differences of {len(pairs)} pairs of photographs of one person: {least}")
    copied = [difference(file, copy) for file in photographs[:60] for copy in copies_of(file)]
    print(f"differences of {len(copied)} copies: {min(copied):.2f} … {max(copied):.2f}")


def difference(one: PhotoSource, other: PhotoSource) -> float:
    """Of two aligned faces, in grey levels, as `quality.copy_cautions` takes it."""
    first, second = (prepare_face(photo, (112, 112)).image.astype(np.int16) for photo in (one, other))
    return float(np.abs(first - second).mean())


def copies_of(file: Path) -> Iterator[bytes]:
    """A photograph saved anew as JPEG, and at other sizes."""
    photo = Image.open(file).convert("RGB")
    for quality, scale in ((95, 1.0), (75, 1.0), (50, 1.0), (75, 0.7), (75, 1.5)):
        size = (round(scale * photo.width), round(scale * photo.height))
        buffer = io.BytesIO()
        photo.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
        yield buffer.getvalue()


if __name__ == "__main__":
    main()
