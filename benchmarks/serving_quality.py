"""Brightness, contrast and sharpness of aligned LFW faces: from which values on a photograph is unusual.

python benchmarks/serving_quality.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from xfr_plugin.explanation.quality import measure
from xfr_plugin.faces.photo import load_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4000)
    options = parser.parse_args()
    faces = options.data / "faces"
    lines = (faces / "peopleDevTrain.txt").read_text(encoding="utf-8").splitlines()[1:]
    people = [line.split()[0] for line in lines]
    files = [file for person in people for file in sorted((faces / "lfw112" / person).glob("*.jpg"))]
    found = np.array([measure(load_photo(file)) for file in files[: options.images]])
    print(f"{len(found)} images")
    for name, values in zip(("brightness", "contrast", "sharpness"), found.T, strict=True):
        low, middle = np.quantile(values, [0.005, 0.5])
        print(f"{name:10} 0.5 % quantile {low:6.1f}   median {middle:6.1f}")


if __name__ == "__main__":
    main()
