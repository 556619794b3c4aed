"""Reproduce LFW View 2 for a recognizer, and calibrate its thresholds.

Protocol: the 6,000 official pairs (`pairs.txt`), aligned crops as they are, no mirror. Accuracy is LFW's ten-fold
protocol. Thresholds for low false match rates are calibrated on *all* pairs of different people among the images
of View 2 (millions), since 3,000 impostor pairs cannot show a rate of 0.01 %.

    python benchmarks/lfw_view2.py --recognizer mobilefacenet_ms1m [--write-card]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from sklearn.metrics import roc_auc_score

from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import LfwPair, read_pairs
from xfr_plugin.recognition import Calibration, Recognizer, calibrate, load_recognizer, metrics, zoo_card
from xfr_plugin.recognition.zoo import data_root

BATCH = 32
FMR = (1e-2, 1e-3, 1e-4, 1e-5)


def embed_images(recognizer: Recognizer, files: list[str], folder: Path) -> NDArray[np.float32]:
    rows = []
    for start in track(range(0, len(files), BATCH), "embedding"):
        faces = [
            fit_aligned(load_photo(folder / name), recognizer.input_size)
            for name in files[start : start + BATCH]
        ]
        images = torch.from_numpy(np.stack(faces).transpose(0, 3, 1, 2)).float() / 255
        rows.append(recognizer.embed(images).cpu().numpy())
    return np.concatenate(rows)


def all_pair_scores(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Genuine and impostor scores of all pairs of images, each pair once."""
    genuine, impostor = [], []
    for i in range(len(people) - 1):
        scores = embeddings[i + 1 :] @ embeddings[i]
        same = people[i + 1 :] == people[i]
        genuine.append(scores[same])
        impostor.append(scores[~same])
    return np.concatenate(genuine), np.concatenate(impostor)


def report(
    recognizer: Recognizer, pairs: list[LfwPair], folder: Path
) -> tuple[dict[str, float], Calibration]:
    files = sorted({name for pair in pairs for name in pair[:2]})
    index = {name: i for i, name in enumerate(files)}
    start = time.perf_counter()
    embeddings = embed_images(recognizer, files, folder)
    seconds = time.perf_counter() - start
    probe, reference = (embeddings[[index[pair[side]] for pair in pairs]] for side in (0, 1))
    scores = np.sum(probe * reference, axis=1)
    same, folds = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    accuracy = metrics.kfold_accuracy(scores, same, folds)
    eer, _ = metrics.equal_error_rate(scores[same], scores[~same])
    tar = (
        1 - metrics.error_rates(scores[same], scores[~same], metrics.threshold_at_fmr(scores[~same], 1e-3))[1]
    )
    figures = {
        "images": len(files),
        "ms_per_image": round(1e3 * seconds / len(files), 2),
        "accuracy_10fold": round(accuracy.mean, 6),
        "accuracy_10fold_std": round(accuracy.std, 6),
        "threshold_10fold": round(accuracy.threshold, 5),
        "eer": round(eer, 6),
        "auc": round(float(roc_auc_score(same, scores)), 6),
        "tar_at_fmr_0.001": round(tar, 6),
    }
    people = np.unique([name.split("/")[0] for name in files], return_inverse=True)[1]
    _, impostor = all_pair_scores(embeddings, people)
    return figures, calibrate(scores[same], impostor, "LFW View 2 (impostors: all pairs of its images)", FMR)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="mobilefacenet_ms1m")
    parser.add_argument("--faces", type=Path, default=data_root() / "faces")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--write-card", action="store_true", help="store calibration and figures in the zoo's card"
    )
    arguments = parser.parse_args()
    recognizer = load_recognizer(arguments.recognizer, device=arguments.device)
    pairs = read_pairs(arguments.faces / "pairs.txt")
    figures, calibration = report(recognizer, pairs, arguments.faces / "lfw112")
    print(json.dumps({"figures": figures, "calibration": calibration.model_dump()}, indent=1))
    if arguments.write_card:
        stored = {f"lfw_view2_{name}": value for name, value in figures.items() if name != "ms_per_image"}
        card = zoo_card(arguments.recognizer).model_copy(
            update={"figures": stored, "calibration": calibration}
        )
        folder = Path(__file__).parents[1] / "xfr_plugin" / "recognition" / "zoo_data"
        (folder / f"{card.name}.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
