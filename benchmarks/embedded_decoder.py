"""Measure a decoder on people never trained on: identity, verification, likeness, speed; draw a contact sheet.

    python benchmarks/embedded_decoder.py --json out/decoder.json --sheet out/decoder.png --atlas out/atlas.png

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
from matplotlib.figure import Figure
from torch import Tensor

from xfr_plugin.channels import decoded_changes
from xfr_plugin.faces.lfw import LfwPair, read_pairs, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer, metrics
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction import Decoder, list_decoders, load_decoder
from xfr_plugin.reconstruction.measures import identity_cosines, likeness, reconstruct
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
    rebuilt = reconstruct(decoder, embeddings)
    report: dict[str, Any] = {
        "decoder": decoder.card.name,
        "file bytes": list_decoders().get(options.decoder, Path(options.decoder)).stat().st_size,
        "parameters": sum(p.numel() for p in decoder.network.parameters()),
        "faces": len(faces),
        "identity cosine": summary(identity_cosines(recognizer, decoder, embeddings)),
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
    write(options, report, decoder, originals, rebuilt)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--decoder", default="xfr_compact128_decoder", help="name or file")
    parser.add_argument("--judge", default="mobilefacenet_ms1m", help="second recognizer; empty for none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="contact sheet")
    parser.add_argument("--atlas", type=Path, help="picture of the channel atlas")
    return parser.parse_args()


def write(
    options: argparse.Namespace, report: dict[str, Any], decoder: Decoder, originals: Tensor, rebuilt: Tensor
) -> None:
    """Write the files that were asked for."""
    for path in (options.json, options.sheet, options.atlas):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.sheet:
        chosen = torch.linspace(0, len(originals) - 1, 24).long()
        contact_sheet(originals[chosen], rebuilt[chosen]).savefig(options.sheet, dpi=100)
    if options.atlas:
        atlas_sheet(decoder).savefig(options.atlas, dpi=100)


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
        result[f"{name}, AUC"] = metrics.area_under_roc(scores[same], scores[~same])
        if recognizer.calibration:
            accepted = scores >= recognizer.calibration.eer.threshold
            result[f"{name}, accuracy at the calibrated threshold"] = float(np.mean(accepted == same))
    return result


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


def contact_sheet(originals: Tensor, rebuilt: Tensor) -> Figure:
    """Originals above their reconstructions, twelve in a row."""
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    panels = figure.subplots(4, 12)
    for index, (original, image) in enumerate(zip(originals, rebuilt, strict=True)):
        row, column = 2 * (index // 12), index % 12
        for panel, picture in ((panels[row, column], original), (panels[row + 1, column], image)):
            panel.imshow(picture.permute(1, 2, 0).numpy())
            panel.set_axis_off()
    return figure


def atlas_sheet(decoder: Decoder) -> Figure:
    """Mean face, the sum of all channels, and the 30 channels whose maps are the least spread out."""
    spread = -(decoder.atlas * decoder.atlas.clamp_min(1e-12).log()).sum(dim=(1, 2))
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplots(4, 8).ravel()
    panels[0].imshow(decoder.mean_face.permute(1, 2, 0).numpy())
    panels[1].imshow(decoder.atlas.mean(dim=0).numpy(), cmap="magma")
    for panel, channel in zip(panels[2:], spread.argsort().tolist(), strict=False):
        panel.imshow(decoder.atlas[channel].numpy(), cmap="magma")
        panel.set_title(f"channel {channel}", fontsize=7)
    for panel in panels:
        panel.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
