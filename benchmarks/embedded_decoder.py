"""Measure a decoder on people never trained on: identity, verification, likeness, speed.

    python benchmarks/embedded_decoder.py --json out/decoder.json

Needs the real faces (`XFR_DATA`). The people are those of `pairsDevTest.txt`. A second recognizer that the decoder
was not trained with judges too, because a decoder could please its own recognizer by patterns that no other sees.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import roc_auc_score
from torch import Tensor

from xfr_plugin.channels import decoded_changes
from xfr_plugin.faces.lfw import LfwPair, read_pairs, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer, metrics
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction import Decoder, list_decoders, load_decoder
from xfr_plugin.reconstruction.network import to_input_size
from xfr_plugin.training.faces_data import FaceSet, read_faces
from xfr_plugin.training.publish import present_pairs


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = parse_options()
    torch.set_num_threads(2)
    recognizer = load_recognizer(options.recognizer)
    decoder = load_decoder(options.decoder, recognizer)
    folder = data_root() / "faces"
    pairs = present_pairs(folder / "lfw112", read_pairs(folder / "pairsDevTest.txt"))
    faces = load_faces(folder, pairs, recognizer.input_size)
    originals = faces.images.float() / 255
    embeddings = recognizer.embed(originals)
    with torch.no_grad():
        rebuilt = torch.cat([decoder.faces(some) for some in embeddings.split(64)])
    report: dict[str, Any] = {
        "decoder": decoder.card.name,
        "file bytes": list_decoders().get(options.decoder, Path(options.decoder)).stat().st_size,
        "parameters": sum(p.numel() for p in decoder.network.parameters()),
        "faces": len(faces),
        "identity cosine": summary((recognizer.embed(rebuilt) * embeddings).sum(dim=1)),
        "verification, original against reconstruction": verification(
            recognizer, originals, rebuilt, faces, pairs
        ),
        "likeness, reconstruction": likeness(rebuilt, originals),
        "likeness, mean face": likeness(mean_faces(decoder, len(faces)), originals),
        "128 ablated decodings, seconds": ablation_seconds(decoder, embeddings[0]),
    }
    if options.judge:
        judge = load_recognizer(options.judge)
        cosines = (judge.embed(originals) * judge.embed(rebuilt)).sum(dim=1)
        report[f"same image cosine under {judge.name}"] = summary(cosines)
        report[f"verification under {judge.name}"] = verification(judge, originals, rebuilt, faces, pairs)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--decoder", default="xfr_compact128_decoder", help="name or file")
    parser.add_argument("--judge", default="mobilefacenet_ms1m", help="second recognizer; empty for none")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load_faces(folder: Path, pairs: list[LfwPair], size: tuple[int, int]) -> FaceSet:
    """Every image of the pairs once; none of a person trained on."""
    files = sorted({file for pair in pairs for file in (pair.probe, pair.reference)})
    assert not {file.split("/")[0] for file in files} & set(read_people(folder / "peopleDevTrain.txt"))
    return read_faces(folder / "lfw112", {file: [file] for file in files}, size)


def summary(values: Tensor) -> dict[str, float]:
    """Mean, and the tenth and ninetieth percentile."""
    low, high = np.percentile(values.numpy(), [10, 90])
    return {"mean": float(values.mean()), "10th percentile": float(low), "90th percentile": float(high)}


def verification(
    recognizer: Recognizer, originals: Tensor, rebuilt: Tensor, faces: FaceSet, pairs: list[LfwPair]
) -> dict[str, float]:
    """DevTest pairs: the probe's original against the reference's reconstruction; and originals alone."""
    place = {file: i for i, file in enumerate(faces.files)}
    probes, references = [place[p.probe] for p in pairs], [place[p.reference] for p in pairs]
    same = np.array([pair.same for pair in pairs])
    own, again = recognizer.embed(originals), recognizer.embed(rebuilt)
    result = {}
    for name, other in (("originals", own), ("reconstructions", again)):
        scores = (own[probes] * other[references]).sum(dim=1).double().numpy()
        best = metrics.best_threshold(scores, same)
        result[f"{name}, accuracy at their best threshold"] = float(np.mean((scores >= best) == same))
        result[f"{name}, AUC"] = float(roc_auc_score(same, scores))
        if recognizer.calibration:
            accepted = scores >= recognizer.calibration.eer.threshold
            result[f"{name}, accuracy at the calibrated threshold"] = float(np.mean(accepted == same))
    return result


def likeness(images: Tensor, faces: Tensor) -> dict[str, float]:
    """Mean PSNR (dB) and mean SSIM (Wang et al., 2004) of images N×3×H×W in [0, 1]."""
    pairs = list(zip(faces.numpy(), images.numpy(), strict=True))
    ssim = [structural_similarity(*pair, data_range=1.0, channel_axis=0) for pair in pairs]
    psnr = [peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs]
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim))}


def mean_faces(decoder: Decoder, count: int) -> Tensor:
    """The mean training face, repeated: what a decoder that learned nothing would show."""
    return to_input_size(decoder.mean_face[None], decoder.card.input_size).expand(count, -1, -1, -1)


def ablation_seconds(decoder: Decoder, embedding: Tensor) -> float:
    """Median time of decoding one embedding with each of its channels ablated."""
    times, every = [], torch.arange(len(embedding))[None]
    for _ in range(7):
        began = time.perf_counter()
        decoded_changes(decoder, embedding[None], every)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    main()
