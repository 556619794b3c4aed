"""Measure the chain from photograph to decision against the given alignment, side by side.

    python benchmarks/photo_chain.py                      # mobilefacenet_ms1m
    python benchmarks/photo_chain.py --recognizer NAME    # another one

LFW's official test people only. `lfw250/` holds one photograph a person, so a pair is that photograph against
an aligned crop (`lfw112/`, given alignment): of the same person (at most three others; genuine) or of five
other people (impostor). The photograph's face is aligned in three ways: by the shipped detector and aligner;
by the given landmarks with our transform; and as the given crop. The crop of the other side never changes.
Photographs without a face found count as non-matches of every pair.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xfr_plugin.errors import FaceWarning, NoFaceError
from xfr_plugin.faces.alignment import align
from xfr_plugin.faces.lfw import read_landmarks, read_people
from xfr_plugin.faces.photo import load_photo
from xfr_plugin.faces.preparation import prepare_face
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.metrics import area_under_roc, equal_error_rate, error_rates
from xfr_plugin.recognition.zoo import data_root

GENUINE, IMPOSTOR = 3, 5
NOTHING = -1.0

Pair = tuple[str, str]


def make_pairs(root: Path, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Genuine and impostor pairs (photograph, crop) of test people."""
    rng = np.random.default_rng(seed)
    people = sorted(read_people(root / "peopleDevTest.txt"))
    crops = {p: sorted(f"{p}/{c.name}" for c in (root / "lfw112" / p).glob("*.jpg")) for p in people}
    photos = {p: sorted(f"{p}/{c.name}" for c in (root / "lfw250" / p).glob("*.jpg")) for p in people}
    genuine, impostor = [], []
    for person, files in photos.items():
        others = [q for q in people if q != person and crops[q]]
        for file in files:
            genuine += [(file, crop) for crop in crops[person] if crop != file][:GENUINE]
            chosen = rng.choice(len(others), IMPOSTOR, replace=False)
            impostor += [(file, crops[others[i]][int(rng.integers(len(crops[others[i]])))]) for i in chosen]
    return genuine, impostor


def embed(recognizer: Recognizer, faces: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
    """Embeddings by file."""
    if not faces:
        return {}
    images = torch.from_numpy(np.stack(list(faces.values()))).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found = torch.cat([recognizer(chunk) for chunk in torch.split(images, 32)])
    return dict(zip(faces, found.numpy(), strict=True))


def scores(
    pairs: list[Pair], probes: dict[str, NDArray[np.float32]], references: dict[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Cosines; −1 where the photograph showed no face."""
    return np.array([float(probes[p] @ references[r]) if p in probes else NOTHING for p, r in pairs])


def by_our_chain(root: Path, files: list[str], size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    """The largest face that the shipped detector finds, aligned."""
    faces = {file: our_face(root / "lfw250" / file, size) for file in files}
    return {file: face for file, face in faces.items() if face is not None}


def our_face(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The largest face of a photograph, aligned; None if there is none."""
    try:
        with warnings.catch_warnings():
            # tiny and several faces are part of what is measured
            warnings.simplefilter("ignore", FaceWarning)
            return prepare_face(path, size, alignment="detect").image
    except NoFaceError:
        return None


def summary(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64], threshold: float
) -> dict[str, float]:
    """Figures of one alignment, at its own EER and at a threshold common to all."""
    fmr, fnmr = error_rates(genuine, impostor, threshold)
    figures = {
        "EER %": 100 * equal_error_rate(genuine, impostor)[0],
        "AUC %": 100 * area_under_roc(genuine, impostor),
        "accuracy %": 100 - 50 * (fmr + fnmr),
        "FMR %": 100 * fmr,
        "FNMR %": 100 * fnmr,
        "mean genuine cosine": float(genuine[genuine > NOTHING].mean()),
        "mean impostor cosine": float(impostor[impostor > NOTHING].mean()),
    }
    return {name: round(float(value), 4 if "cosine" in name else 2) for name, value in figures.items()}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recognizer", default="mobilefacenet_ms1m")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    root, recognizer = data_root() / "faces", load_recognizer(args.recognizer)
    size = recognizer.input_size
    genuine, impostor = make_pairs(root)
    files = sorted({photo for photo, _ in genuine + impostor})
    landmarks = read_landmarks(root / "labels.csv")
    ways: dict[str, Callable[[], dict[str, NDArray[np.uint8]]]] = {
        "our detector and aligner": lambda: by_our_chain(root, files, size),
        "given landmarks, our transform": lambda: {
            f: align(load_photo(root / "lfw250" / f), landmarks[f], size) for f in files
        },
        "given crop": lambda: read_crops(root, files),
    }
    references = embed(recognizer, read_crops(root, sorted({crop for _, crop in genuine + impostor})))
    probes = {name: embed(recognizer, make()) for name, make in ways.items()}
    ours, given = probes["our detector and aligner"], probes["given crop"]
    same = np.array([float(ours[f] @ given[f]) for f in files if f in ours])
    report: dict[str, object] = {
        "recognizer": args.recognizer,
        "photographs": len(files),
        "without a face found": len(files) - len(ours),
        "genuine pairs": len(genuine),
        "impostor pairs": len(impostor),
        "cosine of one photograph's two alignments (ours, given crop)": {
            "mean": round(float(same.mean()), 4),
            "5 % quantile": round(float(np.quantile(same, 0.05)), 4),
            "lowest": round(float(same.min()), 4),
            "below 0.5": [f for f in files if f in ours and float(ours[f] @ given[f]) < 0.5],
        },
    }
    cosines = {
        name: (scores(genuine, found, references), scores(impostor, found, references))
        for name, found in probes.items()
    }
    threshold = equal_error_rate(*cosines["given crop"])[1]
    report["common threshold (EER of the given crops)"] = round(threshold, 4)
    report |= {name: summary(*pair, threshold) for name, pair in cosines.items()}
    print(json.dumps(report, indent=1, ensure_ascii=False))


def read_crops(root: Path, files: list[str]) -> dict[str, NDArray[np.uint8]]:
    """The given aligned crops."""
    return {file: np.asarray(Image.open(root / "lfw112" / file).convert("RGB")) for file in files}


if __name__ == "__main__":
    main()
