"""Which form of the reconstruction route points at planted evidence? One run, one table, what did not work included.

    python benchmarks/reconstruction_study.py --recognizer xfr_compact128 --people report --out out/study.md

Needs the real faces (`XFR_DATA`). Pairs are planted among the people of `peopleDevTest.txt`, on whom nothing was
trained. By a hash of their names the people fall into two halves: `select`, on which forms and constants were chosen,
and `report`, on which nothing was. Maps are blurred (σ = 5 pixels of 112) and scored inside the face against the
mesh region of the planted face.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import Xssab
from xfr_plugin.attr.reconstruction.saliency import ReconstructionSaliency
from xfr_plugin.evaluation import (
    MIN_SCORE_CHANGE,
    PlantedPairs,
    PlantedScore,
    PlantedSummary,
    average_maps,
    build_pairs,
    centre_prior,
    plan_plantings,
    random_maps,
    score_maps,
    summarise,
    write_plantings,
)
from xfr_plugin.faces.lfw import image_path, read_mesh_regions, read_people
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction import Decoder, find_decoder, load_decoder
from xfr_plugin.swaps.exchange import RegionMasks, exchange_regions

Maps = NDArray[np.float32]
Form = Callable[[PlantedPairs], Maps]


def main() -> None:
    options = parse_options(__doc__)
    recognizer = load_recognizer(options.recognizer)
    decoder = load_decoder(options.decoder, recognizer) if options.decoder else find_decoder(recognizer)
    pairs, controls = plant(recognizer, options)
    rows: list[PlantedScore] = []
    control_rows: list[PlantedScore] = []
    for name, form in forms(recognizer, decoder, options).items():
        if not any(part in name for part in options.only.split(",")):
            continue
        began = time.perf_counter()
        maps = form(pairs)
        rows += score_maps(name, maps, pairs)
        control_rows += score_maps(name, form(controls), controls)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if options.scores:
            options.scores.write_text("\n".join(row.model_dump_json() for row in rows), encoding="utf-8")
    text = report(options, recognizer, pairs, rows, control_rows)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


def parse_options(description: str | None, methods: str | None = None) -> argparse.Namespace:
    """Read the command line; `methods` is the default of an option that is there only if it is given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if methods:
        parser.add_argument("--methods", default=methods, help="names, joined by commas")
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--decoder", help="file or name; the shipped one, if left out")
    parser.add_argument("--people", choices=("select", "report"), default="report")
    parser.add_argument("--count", type=int, default=350, help="plantings a game")
    parser.add_argument("--controls", type=int, default=105, help="control plantings a game")
    parser.add_argument("--blending", default="feather")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="leave out forms of more than a second a pair")
    parser.add_argument("--only", default="", help="forms whose names contain one of these, joined by commas")
    parser.add_argument("--out", type=Path, help="Markdown table")
    parser.add_argument("--scores", type=Path, help="every score, a JSON line each")
    parser.add_argument("--manifest", type=Path, help="write the plantings")
    return parser.parse_args()


def plant(recognizer: Recognizer, options: argparse.Namespace) -> tuple[PlantedPairs, PlantedPairs]:
    """Planted pairs, and controls: same seam, no evidence."""
    root = data_root() / "faces"
    people = held_out_people(root, options.people)
    regions_of = read_mesh_regions(root, recognizer.input_size)
    sets = []
    for control, count in ((False, options.count), (True, options.controls)):
        plantings = plan_plantings(
            people,
            count,
            seed=options.seed,
            control=control,
            blending=options.blending,
            regions_of=regions_of,
        )
        if options.manifest and not control:
            write_plantings(plantings, options.manifest)
        sets.append(build_pairs(recognizer, root / "lfw112", plantings, regions_of))
    return sets[0], sets[1]


def held_out_people(root: Path, half: str) -> dict[str, list[str]]:
    """Aligned faces of each person of a half, `select` or `report`, of those on whom nothing was trained."""
    wanted = 0 if half == "select" else 1
    return {
        name: [f for i in range(count) if (root / "lfw112" / (f := image_path(name, i + 1))).is_file()]
        for name, count in read_people(root / "peopleDevTest.txt").items()
        if hashlib.sha256(name.encode()).digest()[0] % 2 == wanted
    }


def forms(recognizer: Recognizer, decoder: Decoder, options: argparse.Namespace) -> dict[str, Form]:
    """Name → maps of the probes."""

    def saliency(**settings: object) -> Form:
        return attributed(
            recognizer,
            ReconstructionSaliency(recognizer, decoder=decoder, **settings).attribute,
        )

    default = saliency()
    result: dict[str, Form] = {
        "floor: random": random_maps,
        "floor: centre prior": centre_prior,
        "floor: average map of the default": lambda pairs: average_maps(default(pairs), pairs),
        "xSSAB": attributed(recognizer, Xssab(recognizer).attribute),
        "paper: atlas, product": saliency(variant="paper"),
        "paper: atlas, distance": saliency(variant="paper", distance=1.0),
        "paper: atlas, product, centred": saliency(variant="paper", centred=True),
        "paper: atlas, distance, centred": saliency(variant="paper", distance=1.0, centred=True),
        "difference of the two reconstructions": seen(recognizer, decoder, difference),
        "counterfactual halfway to the partner": seen(recognizer, decoder, halfway),
        "directions of the decoder's Jacobian, product": seen(recognizer, decoder, Jacobian(decoder, 0.0)),
        "directions of the decoder's Jacobian, distance": seen(recognizer, decoder, Jacobian(decoder, 1.0)),
        "regional: product": saliency(distance=0.0),
        "regional: distance .3 (the default)": default,
        "regional: distance .3, standardised": saliency(standardised=True),
        "regional: distance": saliency(distance=1.0),
        "regional: distance .3, typical spread": saliency(spread="typical"),
        "regional: distance .3, maps of the face": saliency(source="face"),
        "regions exchanged between reconstructions": seen(recognizer, decoder, Exchanged(recognizer, False)),
        "regions of the probe exchanged for the partner's reconstruction": seen(
            recognizer, decoder, Exchanged(recognizer, True)
        ),
    }
    if not options.quick:
        result |= {
            "paper: face, zero ablation, product": saliency(variant="paper", source="face"),
            "paper: face, partner ablation, distance": saliency(
                variant="paper", source="face", ablation="partner", distance=1.0
            ),
            "paper: face, towards the partner (signed)": seen(recognizer, decoder, towards),
        }
    return result


def attributed(recognizer: Recognizer, attribute: Callable[..., Tensor]) -> Form:
    """Probe maps of a pair attribution, against the references' embeddings."""

    def form(pairs: PlantedPairs) -> Maps:
        maps = []
        for part in pairs.chunks(8):
            probes, references = pairs.probes[part].float() / 255, pairs.references[part].float() / 255
            partners = recognizer.embed(references)
            maps.append(attribute(probes, additional_forward_args=partners).detach().sum(dim=1))
        return torch.cat(maps).numpy()

    return form


Single = Callable[[Decoder, Tensor, Tensor, Tensor], Tensor]
"""From decoder, probe 3×H×W, and unit embeddings of probe and partner to a signed map h×w."""


def seen(recognizer: Recognizer, decoder: Decoder, single: Single) -> Form:
    """Maps of a form that is written for one pair."""

    @torch.no_grad()
    def form(pairs: PlantedPairs) -> Maps:
        maps = []
        for probe, reference in zip(pairs.probes, pairs.references, strict=True):
            images = torch.stack((probe, reference)).float() / 255
            own, partner = recognizer.embed(images)
            grey = single(decoder, images[0], own, partner)
            maps.append(
                functional.interpolate(grey[None, None], recognizer.input_size, mode="bilinear")[0, 0]
            )
        return torch.stack(maps).numpy()

    return form


def difference(decoder: Decoder, _probe: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Where the reconstructions differ argues against, where they agree for."""
    mine, theirs = decoder(torch.stack((own, partner)))
    return -(mine - theirs).abs().mean(dim=0)


def halfway(decoder: Decoder, _probe: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Where the reconstruction changes on half of the way to the partner."""
    middle = functional.normalize(own + partner, dim=0)
    mine, theirs = decoder(torch.stack((own, middle)))
    return -(mine - theirs).abs().mean(dim=0)


def towards(decoder: Decoder, _probe: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Does a channel, set to the partner's value, move the reconstruction towards the partner's, or away?"""
    mine, theirs = decoder(torch.stack((own, partner)))
    copies = own.repeat(len(own), 1)
    copies.diagonal().copy_(partner)
    changed = torch.cat([decoder(chunk) for chunk in copies.split(64)])
    gained = (mine - theirs).abs() - (changed - theirs).abs()
    return -gained.mean(dim=1).sum(dim=0)


class Jacobian:
    """Evidence of pixels in whitened directions of the decoder: P_p = S^-½ J_pᵀJ_p S^-½ with Σ_p P_p = I.

    J is the decoder's Jacobian, averaged (as JᵀJ) over embeddings drawn around the mean one; no exchange is measured.
    """

    def __init__(self, decoder: Decoder, distance: float, samples: int = 48) -> None:
        generator = torch.Generator().manual_seed(0)
        dim = decoder.card.embedding_dim
        noise = torch.randn(samples, dim, generator=generator) / dim**0.5
        height, width = decoder.card.output_size
        grid = (height // 4, width // 4)
        blocks = torch.zeros(grid[0] * grid[1], dim, dim)
        for point in functional.normalize(decoder.mean_embedding + noise, dim=1):
            columns = torch.func.vmap(
                lambda v, p=point: torch.func.jvp(decoder.network, (p[None],), (v[None],))[1][0]
            )(torch.eye(dim))
            pieces = functional.unfold(columns, kernel_size=4, stride=4)
            blocks += torch.einsum("dqp,eqp->pde", pieces, pieces)
        values, vectors = torch.linalg.eigh(blocks.sum(dim=0))
        root = (vectors * (values + 1e-4 * values.max()).rsqrt()) @ vectors.T
        self.forms = root @ blocks @ root
        self.grid, self.weight = grid, distance / 2

    def __call__(self, decoder: Decoder, _probe: Tensor, own: Tensor, partner: Tensor) -> Tensor:
        def form(a: Tensor, b: Tensor) -> Tensor:
            return torch.einsum("d,pde,e->p", a, self.forms, b)

        share = self.forms.diagonal(dim1=1, dim2=2).mean(dim=1)
        values = form(own, partner) - self.weight * (form(own, own) + form(partner, partner) - 2 * share)
        # per share: how much a place says for how much it can say
        return (values / share).view(self.grid)


class Exchanged:
    """Score gained by giving a face the partner's reconstructed regions, one at a time (eight forward passes)."""

    def __init__(self, recognizer: Recognizer, in_photo: bool) -> None:
        self.recognizer, self.in_photo = recognizer, in_photo
        self.masks = RegionMasks(recognizer.input_size)

    def __call__(self, decoder: Decoder, probe: Tensor, own: Tensor, partner: Tensor) -> Tensor:
        mine, theirs = decoder.faces(torch.stack((own, partner)))
        face = probe if self.in_photo else mine
        blends = exchange_regions(face[None], theirs[None], self.masks)[0]
        scores = self.recognizer.embed(torch.cat((face[None], blends))) @ partner
        gains = scores[1:] - scores[0]
        areas = self.masks.weights.mean(dim=(1, 2, 3))
        return -torch.einsum("r,rhw->hw", gains / areas.sqrt(), self.masks.weights[:, 0])


def report(
    options: argparse.Namespace,
    recognizer: Recognizer,
    pairs: PlantedPairs,
    rows: list[PlantedScore],
    controls: list[PlantedScore],
) -> str:
    """Markdown: what was run, and the table."""
    moved = np.abs(pairs.planted - pairs.clean)
    settings = {"recognizer": recognizer.name, "people": options.people, "blending": options.blending}
    lines = [
        f"{json.dumps(settings)}: {options.count} plantings a game, seed {options.seed};"
        f" {np.mean(moved > MIN_SCORE_CHANGE):.0%} move the score by more than {MIN_SCORE_CHANGE};"
        f" {options.controls} controls a game.",
        "",
        "| form | dissimilar: AUC | top-1 | moved > .1: AUC | top-1 | similar: AUC | top-1 | moved > .1: AUC | top-1 "
        "| controls: AUC, dissimilar / similar |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    everything, strong = summarise(rows), summarise(rows, lambda row: row.moved > MIN_SCORE_CHANGE)
    seams = summarise(controls)
    for name in dict.fromkeys(row.method for row in rows):
        cells = []
        for game in ("dissimilar", "similar"):
            for table in (everything, strong):
                found = pick(table, name, game)
                cells += [interval(found.auc), interval(found.top1)]
        seam = " / ".join(f"{pick(seams, name, game).auc.mean:.2f}" for game in ("dissimilar", "similar"))
        lines.append(f"| {name} | {' | '.join(cells)} | {seam} |")
    return "\n".join(lines) + "\n"


def pick(table: list[PlantedSummary], method: str, game: str) -> PlantedSummary:
    return next(row for row in table if (row.method, row.game) == (method, game))


def interval(value: object) -> str:
    return f"{value.mean:.3f} ({value.low:.3f}–{value.high:.3f})"


if __name__ == "__main__":
    main()
