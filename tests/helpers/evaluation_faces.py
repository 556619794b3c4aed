"""Small synthetic faces in folders, a recognizer for them, and a run that is killed, as a module that runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from helpers.small_net import SmallNet
from xfr_plugin.attr.registry import Method
from xfr_plugin.evaluation import (
    EvaluationPair,
    Measurement,
    MethodProtocol,
    PairEntry,
    PairList,
    PairMaps,
    PlantedPlan,
    Results,
    Setting,
    evaluate,
)
from xfr_plugin.recognition import Recognizer

PEOPLE = tuple(f"p{i:02d}" for i in range(8))
PROTOCOLS = ("planted", "deletion")
METHODS = ("xssab", "input_x_gradient")


class Deadly(MethodProtocol):
    """A protocol that one method dies of, with its process."""

    name = "test_deadly"
    title = "Deadly"
    higher_is_better: ClassVar[dict[str, bool]] = {"alive": True}

    def judge(
        self, pair: EvaluationPair, maps: PairMaps, method: Method, setting: Setting
    ) -> Iterable[Measurement]:
        if method.name == "xssab":
            os.kill(os.getpid(), signal.SIGKILL)
        yield Measurement("", "alive", 1)


def small_recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(SmallNet(), input_size=(24, 20), threshold=0.2, name="small")


def write_faces(folder: Path, photos: int = 3) -> None:
    """Smooth noise: each person's own, and a little of each photo's."""
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        own = gaussian_filter(rng.standard_normal((24, 20, 3)), (3, 3, 0))
        (folder / person).mkdir(parents=True)
        for number in range(photos):
            mixed = own + 0.4 * gaussian_filter(rng.standard_normal((24, 20, 3)), (2, 2, 0))
            pixels = (128 + 400 * mixed).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / person / f"{number}.png")


def pair_list(count: int = 24) -> PairList:
    rng, pairs = np.random.default_rng(1), {}
    while len(pairs) < count:
        first, second = (PEOPLE[i] for i in rng.choice(len(PEOPLE), 2, replace=False))
        genuine = len(pairs) % 2 == 0
        other = first if genuine else second
        a, b = rng.choice(3, 2, replace=False)
        entry = PairEntry(probe=f"{first}/{a}.png", reference=f"{other}/{b}.png", genuine=genuine)
        pairs[entry.name] = entry
    return PairList(pairs=tuple(pairs.values()), people=PEOPLE)


def judge(faces: Path, out: Path, **options: object) -> Results:
    settings: dict[str, object] = {
        "methods": METHODS,
        "protocols": PROTOCOLS,
        "recognizer": small_recognizer(),
        "plan": PlantedPlan(count=14),
    }
    return evaluate(faces, pair_list(), out, **(settings | options))


def judge_until_killed(faces: Path, out: Path) -> None:
    """Judge, and end as by `kill -9` once deletion has judged a method on five pairs."""
    watched = out / "records" / "deletion" / f"{METHODS[0]}.jsonl"

    def step(_: object) -> None:
        if watched.exists() and watched.read_bytes().count(b"\n") >= 5:
            os.kill(os.getpid(), signal.SIGKILL)

    judge(faces, out, progress=step)


if __name__ == "__main__":
    judge_until_killed(Path(sys.argv[1]), Path(sys.argv[2]))
