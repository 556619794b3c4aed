"""A few composed photographs in LFW's layout, with the landmarks of their faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

LANDMARKS = np.array([[203.0, 100.5], [245.8, 103.0], [223.5, 126.5], [203.0, 139.7], [243.3, 141.2]])
COLUMNS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
PEOPLE = 16


def write_photos(root: Path) -> None:
    """Photographs of 160×160 pixels in LFW's layout: one face, enlarged and shifted, on pebbles."""
    rng = np.random.default_rng(0)
    astronaut = Image.fromarray(skimage.data.astronaut())
    pebbles = Image.fromarray(skimage.data.gravel()).convert("RGB")
    names = [f"Person_{i:02d}" for i in range(PEOPLE)]
    header = ",".join(["file", *(f"{c}_{axis}" for c in COLUMNS for axis in "xy")])
    lines = [header]
    for name in names:
        corner, side = rng.integers(0, 350, 2).tolist(), int(rng.integers(95, 130))
        photo = pebbles.crop((*corner, corner[0] + 160, corner[1] + 160))
        place = rng.integers(10, 150 - side, 2).tolist()
        photo.paste(astronaut.crop((160, 50, 290, 180)).resize((side, side)), tuple(place))
        points = (LANDMARKS - [160, 50]) * side / 130 + place
        (root / "lfw250" / name).mkdir(parents=True)
        photo.save(root / "lfw250" / name / f"{name}_0001.jpg", quality=92)
        lines.append(",".join([f"{name}/{name}_0001.jpg", *(f"{v:.2f}" for v in points.ravel())]))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    people = [str(PEOPLE), *(f"{name}\t1" for name in names)]
    (root / "peopleDevTrain.txt").write_text("\n".join(people) + "\n")
