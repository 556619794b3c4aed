"""Maps that are finer than regions: do they judge better than a value for each region?

    python benchmarks/fine_maps.py --judge DIR --split dev        # tables by the judges, in DIR/results.md
    python benchmarks/fine_maps.py --pictures DIR                 # twenty pairs of the dev half, flat beside fine

Round windows, a grid of them that overlap on the face, are left out one by one like regions; where a window was
stands what would be there if every region was taken from one of the composites, which take turns. Compared are

- `flat`: `leave_one_out`, a value for each region;
- `within`: within a region the map follows the mean loss a pixel of the windows there; each region keeps its sum;
- `fine`: the same of what windows lose beyond what the regions' losses let expect, shrunk to 0.3;
- `windows`: the windows' losses alone; what is left of the margin lies as regions are expected to.

The pictures are of seven genuine and six impostor pairs, and of seven genuine ones with a thing over the probe. Needs
`XFR_DATA`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from donors import chosen_pairs
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from xfr_plugin.attr import LeaveOneOut
from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr.intervention.level import Expected, expected_of, levelled, region_shares
from xfr_plugin.attr.intervention.removal import Removal
from xfr_plugin.evaluation import PlantedPlan, evaluate
from xfr_plugin.evaluation.occluders.frame import landmarks_of
from xfr_plugin.evaluation.occluders.kinds import occlude
from xfr_plugin.explanation.figures.explanation import display_map, full_colour_scale, overlay
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.regions import OUTSIDE
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.folding import fast_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.exchange import region_changes
from xfr_plugin.swaps.masks import FeatheredMasks
from xfr_plugin.swaps.regions import FINE_REGIONS, FaceRegions, face_regions, rasterize
from xfr_plugin.training.faces_data import read_faces

DONORS, STEP, RADIUS, ON_FACE, SHRUNK = 4, 8, 9, 0.25, 0.3
GENUINE, IMPOSTOR, ROWS = 7, 6, 5
OVER = (
    "sunglasses",
    "surgical mask",
    "eye patch",
    "cap",
    "bar on the forehead",
    "sticker",
    "shadow over one side",
)
SIDE, GAP, HEAD = 224, 8, 22


@dataclass
class Lost:
    """What a face's embedding loses: with each region, K×R×D, and with each window, J×D."""

    own: FaceRegions
    unit: Tensor
    regions: Tensor
    weights: Tensor
    windows: Tensor


class Form(LeaveOneOut):
    """A form of the map, from what all forms share."""

    known: ClassVar[dict[bytes, Lost]] = {}
    _fast: Recognizer | None = None

    def attribute(
        self, inputs: Any, target: None = None, additional_forward_args: Any = None, **_: Any
    ) -> Any:
        """Maps of probes against embeddings of their references."""
        partners = functional.normalize(torch.atleast_2d(additional_forward_args), dim=1)
        drawn = [
            self._map(self._lost(image), partner.double())
            for image, partner in zip(inputs, partners.expand(len(inputs), -1), strict=True)
        ]
        return torch.stack([grey.float().expand(3, -1, -1) / 3 for grey in drawn])

    def draw(self, lost: Lost, partner: Tensor, evidence: Tensor, score: float, expected: Expected) -> Tensor:
        raise NotImplementedError

    def _map(self, lost: Lost, partner: Tensor) -> Tensor:
        score = float(lost.unit.double() @ partner)
        expected = expected_of(region_shares(self.forward_func, "leave_one_out"), lost.own)
        values = lost.regions.double() @ partner
        evidence = levelled(values, score, self.threshold, expected, "threshold").mean(dim=0)
        return self.draw(lost, partner, evidence, score, expected)

    @torch.no_grad()
    def _lost(self, image: Tensor) -> Lost:
        key = image.detach().numpy().tobytes()
        if key not in self.known:
            if len(self.known) > 30:
                self.known.clear()
            self._fast = self._fast or fast_recognizer(self.forward_func, 10_000)
            self.known[key] = measured(self._fast, image.detach())
        return self.known[key]


def measured(recognizer: Recognizer, image: Tensor) -> Lost:
    """Leave out every region and every window of a face."""
    (own,) = face_regions(image[None], True, FINE_REGIONS)
    removal = Removal("population", DONORS, "regions", image[None])
    alone = removal.changes(image, own, None, False)
    unit, present = recognizer(image[None])[0], torch.from_numpy(own.present)
    regions = torch.zeros(DONORS, len(own.names), len(unit))
    regions[:, present] = unit - embedded(recognizer, image + alone.flatten(0, 1)).unflatten(
        0, alone.shape[:2]
    )
    emptied = image + removal.changes(image, own, None, True).sum(dim=1)
    masks = FeatheredMasks.of(windows_on(own))
    put = emptied[torch.arange(len(masks.weights)) % DONORS]
    changes = region_changes(image[None], put[None], masks)[0]
    return Lost(own, unit, regions, masks.weights.double(), unit - embedded(recognizer, image + changes))


def embedded(recognizer: Recognizer, images: Tensor) -> Tensor:
    return torch.cat([recognizer(some.clamp(0, 1)) for some in images.split(16)])


def windows_on(own: FaceRegions) -> Tensor:
    """Windows of which a quarter or more lies on the face, J×H×W."""
    height, width = own.labels.size
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    every = torch.stack(
        [
            (rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2
            for y in range(STEP // 2, height, STEP)
            for x in range(STEP // 2, width, STEP)
        ]
    )
    face = torch.from_numpy(own.masks[of_face(own)].any(axis=0))
    return every[(every & face).sum(dim=(1, 2)) >= ON_FACE * every.sum(dim=(1, 2))]


def of_face(own: FaceRegions) -> Any:
    return own.present & np.array([name not in OUTSIDE for name in own.names])


def within(lost: Lost, evidence: Tensor, density: Tensor) -> Tensor:
    """The flat map, and within each region of the face what a density has beyond its mean there."""
    cores = torch.from_numpy(lost.own.weights)
    areas = torch.from_numpy(lost.own.masks.sum(axis=(1, 2)) * of_face(lost.own)).double()
    beyond = density - (cores * density).sum(dim=(1, 2), keepdim=True)
    return rasterize(lost.own, evidence) + torch.einsum("r,rhw,rhw->hw", areas, cores, beyond)


def spread(lost: Lost, values: Tensor) -> Tensor:
    """Mean over the windows that cover a pixel of their values a pixel."""
    weights = lost.weights
    total = torch.einsum("j,jhw->hw", values / weights.sum(dim=(1, 2)), weights)
    return total / weights.sum(dim=0).clamp_min(0.5)


class Flat(Form):
    """`leave_one_out`."""

    def draw(self, lost: Lost, partner: Tensor, evidence: Tensor, score: float, expected: Expected) -> Tensor:
        return rasterize(lost.own, evidence)


class Within(Form):
    """Windows say how evidence lies within regions."""

    def draw(self, lost: Lost, partner: Tensor, evidence: Tensor, score: float, expected: Expected) -> Tensor:
        return within(lost, evidence, spread(lost, lost.windows.double() @ partner))


class Fine(Form):
    """What windows say beyond regions does."""

    def draw(self, lost: Lost, partner: Tensor, evidence: Tensor, score: float, expected: Expected) -> Tensor:
        masks = torch.from_numpy(lost.own.masks).double()
        values = (lost.regions.double() @ partner).mean(dim=0)
        known = torch.einsum("r,rhw->hw", values / masks.sum(dim=(1, 2)), masks)
        beyond = lost.windows.double() @ partner - (lost.weights * known).sum(dim=(1, 2))
        return within(lost, evidence, SHRUNK * spread(lost, beyond))


class Windows(Form):
    """Windows alone."""

    def draw(self, lost: Lost, partner: Tensor, evidence: Tensor, score: float, expected: Expected) -> Tensor:
        each = lost.weights / lost.weights.sum(dim=(1, 2), keepdim=True)
        own = torch.einsum("j,jhw->hw", lost.windows.double() @ partner, each)
        return own + (score - self.threshold - own.sum()) * rasterize(lost.own, expected.shares.double())


def main() -> None:
    """Judge, or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--split", default="dev", choices=("dev", "test"))
    parser.add_argument("--pairs", type=int, default=16, help="natural ones; half of them are genuine")
    parser.add_argument("--plantings", type=int, default=6, help="of single regions, a game")
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    if options.judge:
        judged(recognizer, options)
    if options.pictures:
        drawn(recognizer, options.pictures)


def judged(recognizer: Recognizer, options: argparse.Namespace) -> None:
    """Judge all forms on the same pairs."""
    forms = {"flat": Flat, "within": Within, "fine": Fine, "windows": Windows}
    for name, form in forms.items():
        about = {"title": name, "paper": "ours", "year": 2026, "needs": "scores", "cost": "about 180 forward"}
        attribution_method(name=name, relative_cost=90, caveat="tried", batchable=True, **about)(form)
    faces = data_root() / "faces"
    results = evaluate(
        faces / "lfw112",
        faces / "pairsDevTest.txt",
        options.judge,
        methods=list(forms),
        protocols=["planted", "paired", "occluders"],
        recognizer=recognizer,
        plan=PlantedPlan(count=options.plantings, strengths=(), controls=False),
        limit=options.pairs,
        split=options.split,
        chance=False,
        keep_maps=False,
    )
    results.save(options.judge)


def drawn(recognizer: Recognizer, folder: Path) -> None:
    """Sheets of pairs, each with flat and fine maps of both faces."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(recognizer, *case) for case in cases(recognizer)]
    for sheet, start in enumerate(range(0, len(rows), ROWS)):
        stacked = Image.fromarray(np.concatenate([np.asarray(one) for one in rows[start : start + ROWS]]))
        stacked.save(folder / f"fine_maps_{sheet + 1}.png")


def cases(recognizer: Recognizer) -> list[tuple[str, Tensor, Tensor]]:
    """What each pair is, and its faces 1×3×H×W."""
    pairs = chosen_pairs("dev", GENUINE + len(OVER))
    listed = [("genuine", files, None) for files in pairs["genuine"][:GENUINE]]
    listed += [("impostor", files, None) for files in pairs["impostor"][:IMPOSTOR]]
    listed += [(kind, files, kind) for kind, files in zip(OVER, pairs["genuine"][GENUINE:], strict=True)]
    found = []
    for name, files, kind in listed:
        faces = read_faces(data_root() / "faces" / "lfw112", {"all": list(files)}, recognizer.input_size)
        probe, reference = faces.batch(torch.arange(2)).split(1)
        found.append((name, covered(probe, kind) if kind else probe, reference))
    return found


def covered(probe: Tensor, kind: str) -> Tensor:
    """The probe with an occluder."""
    landmarks = landmarks_of(find_regions(probe)[0])
    image = occlude(probe[0].permute(1, 2, 0).numpy(), landmarks, kind, np.random.default_rng(0)).image
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def row(recognizer: Recognizer, name: str, probe: Tensor, reference: Tensor) -> Image.Image:
    """One pair: probe, flat, fine; reference, flat, fine. All maps have one scale."""
    units = recognizer(torch.cat((probe, reference)))
    cells, maps = [], []
    for face, partner in ((probe, units[1]), (reference, units[0])):
        for form in (Flat(recognizer), Fine(recognizer)):
            saliency = form.attribute(face, additional_forward_args=partner)[0].sum(dim=0)
            maps.append(display_map(saliency.numpy().astype(np.float32)))
    scale = full_colour_scale(maps)
    for face, own in ((probe, maps[:2]), (reference, maps[2:])):
        image = (face[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        cells += [image / 255, *(overlay(image, values, scale) for values in own)]
    page = Image.new("RGB", (6 * (SIDE + GAP), HEAD + SIDE + GAP), "white")
    score = float(units[0] @ units[1])
    ImageDraw.Draw(page).text(
        (4, 4), f"{name}: score {score:.2f}, threshold {recognizer.threshold:.2f}", "black"
    )
    for place, cell in enumerate(cells):
        image = Image.fromarray((cell * 255).round().astype(np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
        page.paste(image, (place * (SIDE + GAP), HEAD))
    return page


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
