"""Can a small network name the planted region in one pass, from features that the recognizer computes anyway?

    python benchmarks/amortised.py --count 1500

The amortised form of counterfactual evidence, as an experiment: nothing of it ships. Activations of two layers are
averaged over each region of both faces; a small network compares them, region by region, and says which region was
planted, or none. It is taught by plantings among LFW's training people, controls and untouched pairs among them, and
judged on other training people, so that the numbers are no report: they say whether the idea is worth pursuing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.attr._interventions import REGIONS, FaceRegions, face_regions
from xfr_plugin.evaluation import MOVED, Planting, build_pairs, plan_plantings
from xfr_plugin.evaluation.pairs import FaceFolder
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.training.counterfactual import LEAST_EFFECT, with_regions
from xfr_plugin.training.faces_data import find_faces

LAYERS = ("network.front", "network.features.1")
NONE = len(REGIONS)


@dataclass(frozen=True)
class Pairs:
    """Features N×2×R×C of planted pairs, and what was planted: label N, effect N, game N, present N×R."""

    features: Tensor
    label: Tensor
    effect: NDArray[np.float64]
    similar: Tensor
    present: Tensor


class Head(nn.Module):
    """Compares a region's features of both faces: N×2×R×C, and which are present → logits N×(R + 1)×2 games."""

    def __init__(self, channels: int, mean: Tensor, spread: Tensor, width: int = 48) -> None:
        super().__init__()
        count = len(REGIONS)
        self.mean, self.spread = mean, spread
        self.own = nn.Parameter(torch.randn(count, channels, width) * 0.5 / channels**0.5)
        self.common = nn.Linear(channels, width)
        self.drop = nn.Dropout(0.3)
        self.compare = nn.Sequential(
            nn.Linear(3 * width + count, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2)
        )
        self.none = nn.Parameter(torch.zeros(2))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        x = self.drop((features - self.mean) / self.spread)
        a, b = (self.common(x) + torch.einsum("nsrc,rck->nsrk", x, self.own)).unbind(dim=1)
        which = torch.eye(len(REGIONS)).expand(len(x), -1, -1)
        logits = self.compare(torch.cat(((a - b).abs(), a * b, (a - b).square(), which), dim=-1))
        none = self.none.expand(len(x), 1, 2)
        return torch.cat((logits.masked_fill(~present[..., None], -30), none), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1500, help="plantings of each game to learn from")
    parser.add_argument("--faces", type=Path, default=data_root() / "faces" / "lfw112")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recognizer = load_recognizer("xfr_compact128")
    folder = FaceFolder(options.faces, recognizer.input_size)
    people = with_regions(find_faces(folder.folder), folder.regions)
    names = sorted(people, key=person_hash)
    parts = (names[len(names) // 6 :], names[: len(names) // 6])
    learned, judged = (
        collect(recognizer, folder, {name: people[name] for name in part}, count, options.seed)
        for part, count in zip(parts, (options.count, options.count // 6), strict=True)
    )
    print(f"{len(learned.label)} pairs to learn from, {len(judged.label)} of other people to judge by")
    logits = torch.stack([predict(train(learned, seed), judged) for seed in range(3)]).mean(dim=0)
    for game in ("dissimilar", "similar"):
        print(f"{game}, moved > {MOVED:g}: {judge(logits, judged, game == 'similar')}")


def person_hash(name: str) -> int:
    """An order of people that has nothing to do with their names."""
    return int(np.random.default_rng(list(name.encode())).integers(2**32))


def collect(
    recognizer: Recognizer, folder: FaceFolder, people: dict[str, list[str]], count: int, seed: int
) -> Pairs:
    """Plant with both blendings, and controls; a third as many stay untouched."""
    draw = {"regions": REGIONS, "regions_of": folder.regions, "matched": True}
    plantings = plan_plantings(people, count, seed=seed, **draw)
    plantings += plan_plantings(people, max(1, count // 8), seed=seed + 1, blending="poisson", **draw)
    plantings += plan_plantings(people, max(1, count // 6), seed=seed + 2, control=True, **draw)
    untouched = [planting.model_copy(update={"strength": 1e-6}) for planting in plantings[::3]]
    chunks = [
        features_of(recognizer, folder, chunk)
        for chunk in (
            (plantings + untouched)[i : i + 32] for i in range(0, len(plantings) + len(untouched), 32)
        )
    ]
    return Pairs(
        torch.cat([chunk.features for chunk in chunks]),
        torch.cat([chunk.label for chunk in chunks]),
        np.concatenate([chunk.effect for chunk in chunks]),
        torch.cat([chunk.similar for chunk in chunks]),
        torch.cat([chunk.present for chunk in chunks]),
    )


def features_of(recognizer: Recognizer, folder: FaceFolder, plantings: Sequence[Planting]) -> Pairs:
    """Plant, look at both faces, and pool what two layers say of each region."""
    pairs = build_pairs(recognizer, folder.folder, plantings, folder.regions)
    effect = np.abs(pairs.planted - pairs.clean)
    images = torch.cat((pairs.probes, pairs.references)).float() / 255
    regions = face_regions(images, found=True)
    pooled = pool(recognizer, images, regions).unflatten(0, (2, len(plantings))).transpose(0, 1)
    label = [
        REGIONS.index(p.region) if not p.control and moved > LEAST_EFFECT else NONE
        for p, moved in zip(plantings, effect, strict=True)
    ]
    present = torch.from_numpy(np.stack([r.present for r in regions[: len(plantings)]]))
    similar = torch.tensor([p.game == "similar" for p in plantings])
    return Pairs(pooled, torch.tensor(label), effect, similar, present)


@torch.no_grad()
def pool(recognizer: Recognizer, images: Tensor, regions: Sequence[FaceRegions]) -> Tensor:
    """Mean activations N×R×C in each region, of both layers."""
    seen: list[Tensor] = []
    hooks = [
        recognizer.get_submodule(name).register_forward_hook(lambda _m, _i, output: seen.append(output))
        for name in LAYERS
    ]
    try:
        recognizer.embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    masks = torch.stack([torch.from_numpy(r.masks).float() for r in regions])
    result = []
    for values in seen:
        weights = functional.adaptive_avg_pool2d(masks, values.shape[-1])
        weights = weights / weights.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        result.append(torch.einsum("ncij,nrij->nrc", values, weights))
    return torch.cat(result, dim=2)


def train(pairs: Pairs, seed: int, epochs: int = 20) -> Head:
    torch.manual_seed(seed)
    axes = (0, 1)
    mean, spread = pairs.features.mean(axes), pairs.features.std(axes) + 1e-3
    head = Head(pairs.features.shape[-1], mean, spread)
    optimiser = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=0.05)
    steps = epochs * -(-len(pairs.label) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for some in torch.randperm(len(pairs.label)).split(64):
            logits = head(pairs.features[some], pairs.present[some])
            own = torch.where(pairs.similar[some, None], logits[..., 1], logits[..., 0])
            loss = functional.cross_entropy(own, pairs.label[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head.eval()


@torch.no_grad()
def predict(head: Head, pairs: Pairs) -> Tensor:
    logits: Tensor = head(pairs.features, pairs.present)
    return logits


def judge(logits: Tensor, pairs: Pairs, similar: bool) -> str:
    """How often the planted region gets the highest logit of the face's regions, and beats another."""
    kept = (pairs.similar == similar) & (pairs.label < NONE - 1) & torch.from_numpy(pairs.effect > MOVED)
    values, label = logits[kept][:, : NONE - 1, int(similar)], pairs.label[kept]
    truth = values.gather(1, label[:, None])
    beaten = (values < truth).float().sum(dim=1) / (NONE - 2)
    top = (values.argmax(dim=1) == label).float()
    return f"top-1 {top.mean():.3f}, beats {beaten.mean():.3f} of the other regions, {len(label)} plantings"


if __name__ == "__main__":
    main()
