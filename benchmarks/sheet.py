"""Three sheets of ten pairs each, to be gone through by eye: the faces, the maps of a method, and its words.

People of `pairsDevTest.txt` of whom nothing was trained or chosen (the half `test`): pairs as they come, errors of
the recognizer, planted evidence, occluders, a blurred face, turned faces.

    python benchmarks/sheet.py --out docs/pictures [--recognizer NAME] [--method NAME]

Writes `sheet_1.jpg` to `sheet_3.jpg`, and prints decision and evidence of every pair. With `--single DIR` also the
picture of each pair as users see it.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from people import held_out_people
from PIL import Image, ImageFilter

from xfr_plugin import Explanation, explain, load_recognizer
from xfr_plugin.evaluation.occluders.frame import landmarks_of
from xfr_plugin.evaluation.occluders.kinds import occlude
from xfr_plugin.explanation.figures.canvas import Canvas
from xfr_plugin.explanation.figures.explanation import display_map, explained_face, full_colour_scale
from xfr_plugin.explanation.words import headline
from xfr_plugin.faces.lfw import read_mesh_regions, read_pairs
from xfr_plugin.faces.regions import RegionsOf
from xfr_plugin.recognition import Recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.swaps.planting import MIN_SCORE_CHANGE, plan_plantings, plant
from xfr_plugin.swaps.regions import turn_of

Photo = NDArray[np.uint8]
OCCLUDERS = ("sunglasses", "surgical mask", "cap", "eye patch", "beard")
FACE, TEXT, COLUMNS = 140, 106, 2


@dataclass(frozen=True)
class Case:
    """A pair, and in words what it is."""

    title: str
    photos: tuple[Photo, Photo]


class Faces:
    """Aligned faces of the people, with their regions and embeddings."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.root = data_root() / "faces"
        self.recognizer = recognizer
        self.people = held_out_people(self.root, "test")
        self.regions: RegionsOf = read_mesh_regions(self.root)
        self.files = [file for files in self.people.values() for file in files]
        self.owners = np.array([name for name, files in self.people.items() for _ in files])
        self.units = torch.cat(
            [self.embed([self.read(f) for f in self.files[i : i + 64]]) for i in self._steps()]
        )

    def _steps(self) -> range:
        return range(0, len(self.files), 64)

    def read(self, file: str) -> Photo:
        return np.asarray(Image.open(self.root / "lfw112" / file).convert("RGB"))

    def embed(self, photos: list[Photo]) -> torch.Tensor:
        return self.recognizer.embed(torch.from_numpy(np.stack(photos).transpose(0, 3, 1, 2)).float() / 255)

    def score(self, first: Photo, second: Photo) -> float:
        a, b = self.embed([first, second])
        return float(a @ b)


def natural(faces: Faces, rng: np.random.Generator) -> Iterator[Case]:
    """Pairs of the list as they come, one that is blurred, and those that are turned the most."""
    listed = [
        pair
        for pair in read_pairs(faces.root / "pairsDevTest.txt")
        if all(file.split("/")[0] in faces.people for file in pair[:2])
    ]
    genuine, impostor = ([p for p in listed if p.same == same] for same in (True, False))
    genuine, impostor = ([group[i] for i in rng.permutation(len(group))] for group in (genuine, impostor))
    for pair in genuine[:4]:
        yield Case("genuine", (faces.read(pair.probe), faces.read(pair.reference)))
    for pair in impostor[:4]:
        yield Case("impostor", (faces.read(pair.probe), faces.read(pair.reference)))
    for pair in genuine[4:6]:
        blurred = Image.fromarray(faces.read(pair.reference)).filter(ImageFilter.GaussianBlur(3))
        yield Case("genuine, reference blurred", (faces.read(pair.probe), np.asarray(blurred)))
    for same, group in (("genuine", genuine[6:]), ("impostor", impostor[4:])):
        pair = max(
            group, key=lambda p: abs(turn_of(faces.regions(p.probe)) - turn_of(faces.regions(p.reference)))
        )
        yield Case(f"{same}, turned apart", (faces.read(pair.probe), faces.read(pair.reference)))


def errors(faces: Faces, rng: np.random.Generator) -> Iterator[Case]:
    """False matches and false non-matches, drawn at random among all pairs of these people."""
    scores = (faces.units @ faces.units.T).numpy()
    same = faces.owners[:, None] == faces.owners[None]
    above = scores >= faces.recognizer.threshold
    for title, wrong in (("false match", above & ~same), ("false non-match", ~above & same)):
        drawn: set[str] = set()
        for i, j in rng.permutation(np.argwhere(np.triu(wrong, 1))):
            if (
                len(drawn) < 4 * (1 + (title == "false match"))
                and not {faces.owners[i], faces.owners[j]} & drawn
            ):
                drawn |= {faces.owners[i], faces.owners[j]}
                yield Case(title, (faces.read(faces.files[i]), faces.read(faces.files[j])))


def planted(faces: Faces, seed: int) -> Iterator[Case]:
    """Three pairs of one person with a stranger's region in the probe, two of strangers with the reference's own."""
    plantings = plan_plantings(faces.people, 40, seed=seed, regions_of=faces.regions, matched=True)
    left, seen = {"dissimilar": 3, "similar": 2}, set[str]()
    for p in plantings:
        probe, reference, donor = (faces.read(file) for file in (p.probe, p.reference, p.donor))
        regions = [faces.regions(file) for file in (p.probe, p.donor)]
        made = plant(probe / np.float32(255), donor / np.float32(255), p, *regions)
        photo = np.rint(made * 255).astype(np.uint8)
        before, after = faces.score(probe, reference), faces.score(photo, reference)
        if left[p.game] and p.region not in seen and abs(after - before) > MIN_SCORE_CHANGE:
            left[p.game] -= 1
            seen.add(p.region)
            whose = "a stranger's" if p.game == "dissimilar" else "the reference's own"
            title = f"planted in the probe: {whose} {p.region} ({before:.2f} to {after:.2f})"
            yield Case(title, (photo, reference))


def occluded(faces: Faces, rng: np.random.Generator) -> Iterator[Case]:
    """A pair of one person for each kind, with the thing drawn over the probe."""
    several = [files for files in faces.people.values() if len(files) > 1]
    for kind in OCCLUDERS:
        while True:
            probe, reference = several[rng.integers(len(several))][:2]
            photo, other = faces.read(probe), faces.read(reference)
            changed = occlude(photo / 255, landmarks_of(faces.regions(probe)), kind, rng)
            covered = np.rint(changed.image * 255).astype(np.uint8)
            before, after = faces.score(photo, other), faces.score(covered, other)
            if before - after > MIN_SCORE_CHANGE:
                yield Case(
                    f"genuine, {kind} drawn on the probe ({before:.2f} to {after:.2f})", (covered, other)
                )
                break


def draw(canvas: Canvas, place: tuple[int, int], number: int, case: Case, explanation: Explanation) -> None:
    """A pair: both faces, their maps, and the words below."""
    left, top = place
    canvas.text((left, top), f"{number}. {case.title}", 13, bold=True)
    sides = (explanation.probe, explanation.reference)
    scale = full_colour_scale([display_map(face.saliency) for face in sides])
    for column, face in enumerate(sides):
        x = left + 2 * column * (FACE + 4)
        plain = Image.fromarray(face.image).resize((FACE, FACE), Image.Resampling.BICUBIC)
        canvas.paste(plain, (x, top + 22))
        explained = explained_face(face, scale, 2 * FACE).image.resize((FACE, FACE), Image.Resampling.LANCZOS)
        canvas.paste(explained, (x + FACE + 4, top + 22))
    canvas.paragraph((left, top + FACE + 28), said(explanation), 4 * FACE + 12, 12)


def said(explanation: Explanation) -> str:
    """What is said of the pair, but for what is said of every pair."""
    match = "Match" if explanation.verification.match else "No match"
    always = (f"{explanation.method}: ", "probe and reference taken as already aligned")
    notes = [note for note in explanation.notes if not note.startswith(always)]
    return " ".join([f"{match}.", headline(explanation), *(f"Read with care: {note}." for note in notes)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--single", type=Path)
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    faces, rng = Faces(recognizer), np.random.default_rng(options.seed)
    cases = [*natural(faces, rng), *errors(faces, rng), *planted(faces, options.seed), *occluded(faces, rng)]
    cell = (4 * FACE + 36, FACE + TEXT)
    for sheet in range(0, len(cases), 10):
        canvas = Canvas(COLUMNS * cell[0], 5 * cell[1] + 10)
        for place, case in enumerate(cases[sheet : sheet + 10]):
            explanation = explain(
                *case.photos, recognizer=recognizer, method=options.method, alignment="aligned"
            )
            number = sheet + place + 1
            at = (place % COLUMNS * cell[0] + 10, place // COLUMNS * cell[1] + 8)
            draw(canvas, at, number, case, explanation)
            print(
                f"{number}. {case.title}",
                *textwrap.wrap(" ".join(explanation.words()[:8]), 110),
                sep="\n    ",
            )
            if options.single:
                explanation.save(options.single, f"{number:02}")
        options.out.mkdir(parents=True, exist_ok=True)
        canvas.image.save(options.out / f"sheet_{sheet // 10 + 1}.jpg", quality=38, optimize=True)


if __name__ == "__main__":
    main()
