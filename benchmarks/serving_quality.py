"""Brightness, contrast, sharpness and evenness of aligned LFW faces: from which values on a photograph is unusual.

And how far faces lie from where alignment puts them, in aligned crops and in photographs taken for crops.

python benchmarks/serving_quality.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from xfr_plugin.explanation.quality import evenness, measure, misalignment
from xfr_plugin.faces.alignment import fit_aligned
from xfr_plugin.faces.photo import load_photo


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


if __name__ == "__main__":
    main()
