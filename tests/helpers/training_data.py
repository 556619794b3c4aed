"""A synthetic data set in LFW's layout: "people" are coloured patterns, so that trainings have something to learn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from xfr_plugin.recognition import Recognizer, RecognizerCard, build_network, save_recognizer

TRAIN = [f"Train_{i:02d}" for i in range(20)]
TEST = [f"Test_{i:02d}" for i in range(40)]


def write_faces(root: Path, size: tuple[int, int] = (112, 112)) -> Path:
    """Two images a person below `root/lfw112`, and protocol files; returns the folder of faces."""
    rng = np.random.default_rng(0)
    for name in [*TRAIN, *TEST]:
        pattern = rng.uniform(0, 255, (4, 4, 3))
        for number in (1, 2):
            noisy = (pattern + rng.normal(0, 12, pattern.shape)).clip(0, 255).astype(np.uint8)
            path = root / "lfw112" / name / f"{name}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=95)
    for file, people in (("peopleDevTrain.txt", TRAIN), ("peopleDevTest.txt", TEST)):
        lines = [str(len(people)), *(f"{name}\t2" for name in people)]
        (root / file).write_text("\n".join(lines) + "\n")
    genuine = [f"{name}\t1\t2" for name in TEST[:4]]
    impostor = [f"{a}\t1\t{b}\t2" for a, b in pairwise(TEST[3:8])]
    (root / "pairsDevTest.txt").write_text("\n".join(["4", *genuine, *impostor]) + "\n")
    return root / "lfw112"


def write_narrow_recognizer(folder: Path) -> Path:
    """A recognizer whose faces are not square, 64×48, as a file; it has never been trained."""
    path = folder / "r.safetensors"
    torch.manual_seed(0)
    card = RecognizerCard(name="narrow", architecture="faceid", input_size=(64, 48))
    save_recognizer(Recognizer(build_network("faceid"), input_size=(64, 48)), path, card)
    return path
