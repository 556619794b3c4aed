"""Measure the embedded recognizer: accuracy, calibration, size, speed against its teacher.

    python benchmarks/embedded_recognizer.py --json out/recognizer.json

Needs the real faces (`XFR_DATA`). Accuracy is measured on `pairsDevTest.txt`, whose people were never trained on,
and on View 2, of whose people many were: the latter is for comparison with published figures only.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from xfr_plugin.faces.lfw import read_pairs, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer, metrics
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.publish import pair_cosines, present_pairs


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = parse_options()
    torch.set_num_threads(2)
    student, teacher = load_recognizer(options.recognizer), load_recognizer(options.teacher)
    faces = data_root() / "faces"
    scores, same = dev_test(student, faces)
    report: dict[str, Any] = {
        "recognizer": student.name,
        "sha256": student.provenance.sha256,
        "parameters": sum(p.numel() for p in student.network.parameters()),
        "DevTest": verification(scores, same, student.calibration.eer.threshold),
        "DevTest, teacher": verification(*dev_test(teacher, faces), None),
        "calibration": student.calibration.model_dump(mode="json") if student.calibration else None,
        "DevTest calibrated": calibrated(student, scores, same),
    }
    if options.view2:
        report["View 2"] = view2(student, faces)
    if options.speed:
        report["milliseconds an image"] = speed(student, teacher)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--teacher", default="mobilefacenet_ms1m")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-view2", dest="view2", action="store_false")
    parser.add_argument("--no-speed", dest="speed", action="store_false")
    return parser.parse_args()


def dev_test(recognizer: Recognizer, faces: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the pairs of people never trained on (of which both images exist)."""
    pairs = present_pairs(faces / "lfw112", read_pairs(faces / "pairsDevTest.txt"))
    people = {file.split("/")[0] for pair in pairs for file in (pair.probe, pair.reference)}
    assert not people & set(read_people(faces / "peopleDevTrain.txt"))
    scores = pair_cosines(recognizer, faces / "lfw112", pairs).double().numpy()
    return scores, np.array([pair.same for pair in pairs])


def verification(scores: np.ndarray, same: np.ndarray, threshold: float | None) -> dict[str, float]:
    """Accuracy at the calibrated threshold and at the best of these very pairs, AUC, EER."""
    genuine, impostor = scores[same], scores[~same]
    best = metrics.best_threshold(scores, same)
    result = {
        "pairs": float(len(scores)),
        "AUC": float(roc_auc_score(same, scores)),
        "EER": metrics.equal_error_rate(genuine, impostor)[0],
        "accuracy at the best threshold of these pairs": float(np.mean((scores >= best) == same)),
    }
    if threshold is not None:
        result["accuracy at the calibrated threshold"] = float(np.mean((scores >= threshold) == same))
    return result


def calibrated(recognizer: Recognizer, scores: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """Error rates and Cllr of the stored calibration on pairs that it was not made on."""
    calibration = recognizer.calibration
    assert calibration is not None
    llr = calibration.llr_slope * scores + calibration.llr_intercept
    result = {"Cllr": metrics.cllr(llr[same], llr[~same])}
    points = {f"nominal {rate:g}": calibration.threshold_at(rate) for rate in calibration.nominal_fmr}
    for name, threshold in {"EER threshold": calibration.eer.threshold, **points}.items():
        fmr, fnmr = metrics.error_rates(scores[same], scores[~same], threshold)
        result |= {f"FMR at {name}": fmr, f"FNMR at {name}": fnmr}
    return result


def view2(recognizer: Recognizer, faces: Path) -> dict[str, float]:
    """LFW's ten-fold protocol. Its people overlap with those trained on."""
    pairs = present_pairs(faces / "lfw112", read_pairs(faces / "pairs.txt"))
    scores = pair_cosines(recognizer, faces / "lfw112", pairs).double().numpy()
    same, folds = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    accuracy = metrics.kfold_accuracy(scores, same, folds)
    trained = set(read_people(faces / "peopleDevTrain.txt"))
    unseen = np.array([not {p.probe.split("/")[0], p.reference.split("/")[0]} & trained for p in pairs])
    apart = metrics.kfold_accuracy(scores[unseen], same[unseen], folds[unseen])
    return {
        "pairs": float(len(pairs)),
        "accuracy": accuracy.mean,
        "deviation over folds": accuracy.std,
        "accuracy on pairs without people trained on": apart.mean,
        "such pairs": float(unseen.sum()),
    }


def speed(student: Recognizer, teacher: Recognizer) -> dict[str, float]:
    """Median forward times, measured in turns so that other load on the machine hits both alike."""
    result = {}
    for batch, rounds in ((1, 40), (32, 8)):
        images = torch.rand(batch, 3, 112, 112)
        times = {"student": [], "teacher": []}
        for _ in range(rounds):
            for name, recognizer in (("student", student), ("teacher", teacher)):
                times[name].append(milliseconds(recognizer, images))
        medians = {name: float(np.median(values[2:])) / batch for name, values in times.items()}
        result |= {f"{name}, batch {batch}": value for name, value in medians.items()}
        result[f"times as fast, batch {batch}"] = medians["teacher"] / medians["student"]
    return result


@torch.inference_mode()
def milliseconds(network: nn.Module, images: torch.Tensor) -> float:
    """Duration of one forward pass."""
    began = time.perf_counter()
    network(images)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
