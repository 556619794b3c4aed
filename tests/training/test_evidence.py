"""Training amortised evidence: planting as the one-face code does it, lessons that are true, resumption, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_data import write_faces, write_narrow_recognizer
from torch import Tensor
from typer.testing import CliRunner

from xfr_plugin.attr import Amortised, load_evidence
from xfr_plugin.attr.amortised.network import Answers
from xfr_plugin.cli.train import app
from xfr_plugin.faces import template_regions
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.swaps.blending import Blending
from xfr_plugin.swaps.donors import synthetic_faces
from xfr_plugin.swaps.regions import EXCHANGED_REGIONS, one_hot, region_index, turn_of
from xfr_plugin.training.engine import step_generator, train
from xfr_plugin.training.evidence import EvidenceConfig, EvidenceTask
from xfr_plugin.training.log import read_log
from xfr_plugin.training.outline_noise import small_moves, warped, wobbled

REGIONS = tuple(EXCHANGED_REGIONS)
KINDS: tuple[Blending, ...] = ("feather", "poisson")


@pytest.fixture(scope="module")
def recognizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_recognizer(tmp_path_factory.mktemp("recognizer"))


def config(root: Path, recognizer_file: Path, **changes: object) -> EvidenceConfig:
    settings: dict[str, object] = {
        "run": root / "run",
        "recognizer": str(recognizer_file),
        "faces": root / "faces",
        "threads": 1,
        "batch_size": 12,
        "epoch_steps": 2,
        "epochs": 2,
        "held_out": 0.4,
        "validation_pairs": 12,
        "width": 8,
        "least_effect": 0.0,
        "progress": False,
    }
    return EvidenceConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evidence")
    write_faces(root).rename(root / "faces")
    return root


@pytest.fixture(scope="module")
def task(root: Path, recognizer_file: Path) -> EvidenceTask:
    made = EvidenceTask(config(root, recognizer_file))
    made.to(torch.device("cpu"))
    return made


def test_regions_of_pixels_and_how_a_face_is_turned() -> None:
    regions = template_regions((64, 48))
    index = region_index([regions])
    masks = one_hot(index)[0].bool().numpy()
    for name, mask in zip(REGIONS, masks, strict=True):
        assert (mask == regions.mask(*EXCHANGED_REGIONS[name])).all()
    assert abs(turn_of(regions)) < 0.1


def test_outlines_are_bent_and_no_further_than_asked() -> None:
    index = region_index([template_regions((112, 112))] * 3)
    pixels = torch.tensor([0.0, 1.5, 6.0])
    bent = wobbled(index, pixels, step_generator(0, 4))
    assert torch.equal(bent[0], index[0])
    apart = (bent != index).float().mean(dim=(1, 2))
    assert 0.005 < float(apart[1]) < float(apart[2]) < 0.5
    assert bent.dtype == index.dtype


def test_faces_and_their_regions_move_together() -> None:
    faces = synthetic_faces(3, (112, 112), 3)
    moves = small_moves(torch.tensor([False, True, True]), step_generator(0, 4))
    moved = warped(faces, moves)
    torch.testing.assert_close(moved[0], faces[0])
    assert float((moved[1:] - faces[1:]).abs().amax()) > 0.05
    # a white disc ends where its mask does
    y, x = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    disc = (((x - 70) ** 2 + (y - 40) ** 2) < 400).float().expand(3, 1, 112, 112)
    grey, mask = warped(disc, moves), warped(disc, moves, "nearest")
    assert float(((grey > 0.5) != (mask > 0.5)).float().mean()) < 0.01
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    shift = (mask[1:, 0].argmax(dim=1).argmax(dim=1) - mask[0, 0].argmax(dim=0).argmax()).abs()
    assert int(shift.max()) < 12


def test_both_hypotheses_count_alike(task: EvidenceTask) -> None:
    """Of a network that knows nothing, the loss is that of guessing, whatever was planted how often."""
    lesson = task._lesson(task.training_photos, 24, step_generator(0, 1), 0.5)
    present = lesson.present
    even = torch.zeros(len(present), 9).masked_fill(
        torch.cat((~present, torch.zeros(len(present), 1, dtype=torch.bool)), dim=1), -torch.inf
    )
    zeros = torch.zeros(len(present), 8)
    loss = float(task._hypothesis(Answers(even, even, zeros, zeros), lesson))
    assert 0 < loss <= np.log(17) + 1e-6
    sure = even.clone()
    sure[torch.arange(len(present)), torch.where(lesson.planted, lesson.region, 8)] = 20.0
    none = even.clone()
    none[:, 8] = 20.0
    right = Answers(
        torch.where((lesson.genuine & lesson.planted)[:, None], sure, none),
        torch.where((~lesson.genuine & lesson.planted)[:, None], sure, none),
        zeros,
        zeros,
    )
    assert float(task._hypothesis(right, lesson)) < 0.05 * loss


def test_a_lesson_says_what_the_recognizer_says(task: EvidenceTask) -> None:
    """Effects and changes are differences of scores; who is genuine, and what was planted, is what was done."""
    lesson = task._lesson(task.training_photos, 24, step_generator(0, 1), 0.5)
    assert lesson.planted.any()
    assert lesson.genuine.any()
    assert not lesson.genuine.all()
    assert bool((lesson.effect[~lesson.planted] == 0).all())
    assert bool(lesson.gain.isnan().any() or lesson.gain.isfinite().all())
    units = lesson.probes.embeddings
    torch.testing.assert_close(units.norm(dim=1), torch.ones(24))
    both = (lesson.control < 8) & lesson.planted
    assert not bool((lesson.control == lesson.region)[both].any()), "a region is planted once"


def test_other_people_are_strangers_and_mates_are_other_photographs(task: EvidenceTask) -> None:
    photos = task.training_photos
    draw = task._chosen(photos, 24, step_generator(0, 2))
    same = photos.person[draw.probe] == photos.person[draw.reference]
    assert torch.equal(same, draw.genuine)
    assert not bool((draw.probe == draw.reference).any())
    donors = photos.person[draw.donor]
    assert bool((donors != photos.person[draw.probe])[draw.plants & draw.genuine].all())
    mates = draw.plants & ~draw.genuine
    assert bool((donors == photos.person[draw.reference])[mates].all())
    assert bool((draw.donor != draw.reference)[mates].all())


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    task: EvidenceTask, root: Path, recognizer_file: Path
) -> None:
    def weights(run: str, *epochs: int | None) -> dict[str, Tensor]:
        for stop in epochs:
            settings = config(root, recognizer_file, run=root / run, stop_after=stop)
            outcome = train(EvidenceTask(settings), settings)
        return outcome.network.state_dict()

    whole, parts = weights("whole", None), weights("parts", 1, None)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    records = read_log(root / "whole" / "log.jsonl")
    assert {"val/plain dissimilar top-1", "val/distracted similar beats"} <= records[-1].keys()


def test_command_line_trains_a_network_that_explains(root: Path, recognizer_file: Path) -> None:
    document = config(root, recognizer_file, epochs=1).model_dump(mode="json", exclude={"run"})
    path = root / "c.json"
    path.write_text(json.dumps(document))
    published = root / "e.safetensors"
    options = ["--config", str(path), "--run", str(root / "cli"), "--publish", str(published)]
    done = CliRunner().invoke(app, ["evidence", *options])
    assert done.exit_code == 0, done.output
    recognizer = load_recognizer(recognizer_file)
    model = load_evidence(published, recognizer)
    assert model.card.differs > 0
    pair = torch.rand(2, 2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).unbind()
    maps, delta = Amortised(recognizer, 0.3, network=model).attribute(
        (pair[0], pair[1]), return_convergence_delta=True
    )
    assert maps[0].shape == pair[0].shape
    assert float(delta.abs().max()) < 1e-5
    start = str(root / "cli/best.safetensors")
    again = ["--run", str(root / "more"), "--config", str(path), "--start", start, "--epochs", "1"]
    assert CliRunner().invoke(app, ["evidence", *again]).exit_code == 0
