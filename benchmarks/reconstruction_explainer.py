"""Measure how far the channel atlas holds over people, and draw the pictures of docs/reconstruction.md.

    python benchmarks/reconstruction_explainer.py --json out/explainer.json --pictures docs/pictures

The figures over people need the real faces (`XFR_DATA`): one face each of people neither recognizer nor decoder was
trained on. The pictures are the atlas, the matrix of channels and regions, and the astronaut of scikit-image (NASA,
public domain).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from skimage import data

from xfr_plugin.attr import ReconstructionExplainer
from xfr_plugin.channels import ChannelRegions, channel_regions, decoded_changes, dwelling, normalised_maps
from xfr_plugin.explanation.figures.channels import (
    FaceChannels,
    atlas_figure,
    face_figure,
    region_figure,
)
from xfr_plugin.faces import prepare_face
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.faces_data import embed_faces, read_faces


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = load_recognizer("xfr_compact128")
    explainer = ReconstructionExplainer(recognizer)
    image = prepare_face(data.astronaut(), recognizer.input_size).image
    face = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).float()
    report: dict[str, Any] = {}
    matrix = channel_regions(explainer.decoder)
    folder = data_root() / "faces"
    if folder.is_dir():
        names = sorted(read_people(folder / "peopleDevTest.txt"))[: options.people]
        faces = read_faces(folder / "lfw112", {name: [f"{name}/{name}_0001.jpg"] for name in names})
        embeddings = embed_faces(recognizer, faces)
        matrix = channel_regions(explainer.decoder, embeddings)
        report = over_people(explainer, embeddings, matrix)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.pictures:
        write_pictures(options.pictures, explainer, image, face, matrix)


def over_people(
    explainer: ReconstructionExplainer, embeddings: torch.Tensor, matrix: ChannelRegions
) -> dict[str, Any]:
    """How alike channels, people and the two forms are, and which channels stand out in which region."""
    decoder = explainer.decoder
    assert matrix.people is not None
    atlas = decoder.atlas.flatten(1)
    every = torch.arange(len(atlas))[None]
    own, agree = [], []
    for unit in embeddings[:10]:
        pair = [
            normalised_maps(decoded_changes(decoder, unit[None], every, response=form)[0]).flatten(1)
            for form in ("ablation", "gradient")
        ]
        own.append(half_distance(pair[0], atlas))
        agree.append(half_distance(pair[0], pair[1]))
    halves = [half.mean(axis=0) for half in np.array_split(matrix.people, 2)]
    ranks = [spearmanr(halves[0][:, r], halves[1][:, r])[0] for r in range(len(matrix.regions))]
    shares = dwelling(decoder, embeddings[1:], embeddings[:1], source="atlas").shares
    weights = embeddings.double().square().numpy()
    own_shares = np.einsum("nk,nkr->nr", weights, matrix.people)
    return {
        "people": len(embeddings),
        "mass to move, channel of the atlas to the average channel": half_distance(atlas, atlas.mean(dim=0)),
        "mass to move, a person's map to the atlas' map of the same channel": float(np.mean(own)),
        "mass to move, ablation to gradient, same person and channel": float(np.mean(agree)),
        "rank correlation of channels between halves of the people, by region": dict(
            zip(matrix.regions, np.round(ranks, 3).tolist(), strict=True)
        ),
        "regions": {
            region: {
                "area": round(float(matrix.areas[place]), 3),
                "average share": round(float(matrix.average[place]), 3),
                "channels whose interval of the lift lies above 1": sum(
                    entry.distinct for entry in matrix.top(region, len(atlas))
                ),
                "top": [
                    [entry.channel, round(entry.lift, 2), *np.round(entry.interval or (), 2).tolist()]
                    for entry in matrix.top(region, 3)
                ],
                "dwelling, mean": round(float(own_shares[:, place].mean()), 4),
                "dwelling, deviation over people": round(float(own_shares[:, place].std(ddof=1)), 4),
                "dwelling by the atlas, deviation over people": round(float(shares[:, place].std(ddof=1)), 4),
            }
            for place, region in enumerate(matrix.regions)
        },
    }


def half_distance(maps: torch.Tensor, others: torch.Tensor) -> float:
    """Part of a map's mass that must be moved to turn it into the other, 0…1, averaged over channels."""
    return float((maps - others).abs().sum(dim=1).mean() / 2)


def write_pictures(
    folder: Path,
    explainer: ReconstructionExplainer,
    image: np.ndarray,
    face: torch.Tensor,
    matrix: ChannelRegions,
) -> None:
    """Draw the pages' pictures, as small JPEG and PNG files."""
    strongest = explainer.strongest_channels(face)
    astronaut = FaceChannels(
        image=image,
        channels=strongest.channels[0].numpy(),
        values=strongest.values[0].double().numpy(),
        maps=explainer.all_channels(face)[0].double().numpy(),
        dwelling=explainer.dwelling(face),
        reconstruction=explainer.reconstruct(face)[0].permute(1, 2, 0).double().numpy(),
        title="Strongest channels of xfr_compact128",
    )
    folder.mkdir(parents=True, exist_ok=True)
    save(face_figure(astronaut), folder / "reconstruction_astronaut.jpg", 75)
    save(atlas_figure(explainer.decoder), folder / "channel_atlas.jpg", 75)
    save(region_figure(matrix), folder / "channel_regions.png", 75)


def save(figure: Figure, path: Path, dpi: int) -> None:
    if path.suffix == ".jpg":
        figure.savefig(path, dpi=dpi, pil_kwargs={"quality": 70, "optimize": True})
        return
    figure.savefig(path, dpi=dpi)
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
