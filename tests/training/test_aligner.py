"""Training of the aligner on a few composed photographs: data, augmentation, writing, resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.labelled_photos import PEOPLE, write_photos

from xfr_plugin.errors import InputError, PhotoFormatError
from xfr_plugin.faces.landmark_network import Located, to_crop
from xfr_plugin.faces.landmarks import load_aligner
from xfr_plugin.faces.lfw import read_landmarks
from xfr_plugin.faces.search import candidate_around
from xfr_plugin.training.aligner import (
    AlignerConfig,
    AlignerTask,
    disturbed,
    landmark_loss,
    moved,
    random_face_frames,
    random_non_faces,
    random_textures,
    score_loss,
    train_aligner,
)
from xfr_plugin.training.aligner_data import box_offset, find_candidates, read_photos
from xfr_plugin.training.engine import train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photos(folder)
    return folder


def make_config(root: Path, run: Path, **changes: object) -> AlignerConfig:
    values = {"data": root, "run": run, "epochs": 2, "batch_size": 6, "width": 4, "held_out": 0.2}
    return AlignerConfig.model_validate({**values, "progress": False, "threads": 1, **changes})


@pytest.fixture(scope="module")
def task(root: Path, tmp_path_factory: pytest.TempPathFactory) -> AlignerTask:
    task = AlignerTask(make_config(root, tmp_path_factory.mktemp("run")))
    task.network = task.build_network()
    task.to(torch.device("cpu"))
    return task


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_photographs_come_with_boxes_and_non_faces(task: AlignerTask, root: Path) -> None:
    photos = task.train_photos
    assert len(photos) + len(task.held_out_photos) == PEOPLE
    assert photos.images.shape[1:] == (1, 160, 160)
    apart = (photos.boxes - photos.usual_boxes)[:, :3].abs() / photos.usual_boxes[:, 2:3]
    assert float(apart.max()) < 0.25
    assert (photos.boxes != photos.usual_boxes).any(1).float().mean() > 0.9
    assert len(photos.false_boxes) > 0
    assert set(task.manifest.files) > {"labels.csv", "peopleDevTrain.txt"}
    assert read_landmarks(root / "labels.csv").keys() == {
        name.removeprefix("lfw250/") for name in task.manifest.files if name.startswith("lfw250/")
    }


def test_non_faces_are_never_the_face(task: AlignerTask, generator: torch.Generator) -> None:
    photos = task.train_photos
    boxes = random_non_faces(photos, 300, generator)
    faces = photos.boxes[boxes[:, 0].long()]
    apart = (boxes[:, 1:3] - faces[:, :2]).norm(dim=1) / faces[:, 2]
    scale = (boxes[:, 3] / faces[:, 2]).log().abs()
    assert ((apart > 0.59) | (scale > math.log(1.69))).all()


def test_random_frames_hold_the_face(task: AlignerTask, generator: torch.Generator) -> None:
    indices = torch.arange(len(task.train_photos)).repeat(30)
    frames = random_face_frames(task.train_photos, indices, 30.0, generator)
    points = to_crop(task.train_photos.landmarks[indices], frames)
    assert (points.abs().amax((1, 2)) < 1).float().mean() > 0.97
    flipped = frames[:, :, :2].det() < 0
    assert 0.3 < flipped.float().mean() < 0.7
    truth = to_crop(task._truth(indices, frames), frames)
    # mirrored or not, the subject's right eye lies on the left of its crop
    assert (truth[:, 0, 0] < truth[:, 1, 0]).all()


def test_frames_are_moved_a_little(generator: torch.Generator) -> None:
    frames = torch.eye(2, 3).expand(500, 2, 3)
    change = moved(frames, generator) - frames
    assert 0.01 < float(change.std()) < 0.1
    assert float(change.abs().max()) < 0.5


def test_disturbed_crops_stay_in_range_and_repeat(generator: torch.Generator) -> None:
    crops = torch.rand(20, 1, 64, 64, generator=generator)
    first = disturbed(crops, torch.Generator().manual_seed(1))
    again = disturbed(crops, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert first.shape == crops.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not torch.equal(first, crops)


def test_textures_differ_and_stay_in_range(generator: torch.Generator) -> None:
    textures = random_textures(6, (50, 40), generator)
    assert textures.shape == (6, 1, 50, 40)
    assert 0 <= float(textures.min()) < float(textures.max()) <= 1
    assert (textures.std((1, 2, 3)) > 0.01).all()


def test_the_landmark_loss_counts_in_eye_distances() -> None:
    truth = torch.tensor([[[0.0, 0], [20, 0], [10, 10], [3, 20], [17, 20]]])
    off = Located(truth + torch.tensor([2.0, 0]), torch.zeros(1))
    assert float(landmark_loss(Located(truth, torch.zeros(1)), truth)) == pytest.approx(0, abs=1e-6)
    assert float(landmark_loss(off, truth)) == pytest.approx(math.hypot(0.1, 0.02) - 0.02, rel=1e-4)


def test_the_score_loss_wants_faces_first() -> None:
    right = Located(torch.zeros(3, 5, 2), torch.tensor([8.0, 8.0, -8.0]))
    wrong = Located(torch.zeros(3, 5, 2), torch.tensor([-8.0, -8.0, 8.0]))
    assert float(score_loss(right, 2)) < 0.01 < 7 < float(score_loss(wrong, 2))


def test_a_short_training_learns_and_can_be_loaded(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    config = make_config(root, tmp_path / "run", epochs=3, epoch_steps=12, width=8, ema_decay=0.0, out=out)
    errors = [record["val/error"] for record in train_aligner(config).records]
    assert min(errors) < 0.7 * errors[0]
    card = load_aligner(out).card
    assert card["width"] == 8
    assert card["training"]["held-out figures"]["error"] == min(errors)
    assert card["training"]["photographs"] + card["training"]["held-out photographs"] == PEOPLE


def test_an_interrupted_training_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    whole = train_aligner(make_config(root, tmp_path / "whole"))

    def interrupt(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    config = make_config(root, tmp_path / "parts", checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train(AlignerTask(config), config, interrupt)
    resumed = train_aligner(config)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_damaged_and_unlabelled_photographs_are_named(tmp_path: Path) -> None:
    write_photos(tmp_path)
    labels = tmp_path / "labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(line for line in lines if "Person_03" not in line) + "\n")
    with pytest.raises(InputError, match=r"1 photographs have no landmarks, e\.g\. Person_03"):
        AlignerTask(make_config(tmp_path, tmp_path / "run"))
    labels.write_text("\n".join(lines) + "\n")
    (tmp_path / "lfw250" / "Person_03" / "Person_03_0001.jpg").write_bytes(b"\xff\xd8 no")
    with pytest.raises(PhotoFormatError, match=r"Person_03_0001\.jpg is damaged"):
        AlignerTask(make_config(tmp_path, tmp_path / "run"))


def test_the_usual_box_stands_for_what_the_finder_missed(root: Path, tmp_path: Path) -> None:
    landmarks = read_landmarks(root / "labels.csv")
    file = next(iter(landmarks))
    elsewhere = {file: landmarks[file] + [0, 90]}  # where no face is
    photos = read_photos(root / "lfw250", elsewhere, [file])
    assert torch.equal(photos.boxes, photos.usual_boxes)


def test_what_is_no_face_is_found_in_photographs_upside_down(root: Path, task: AlignerTask) -> None:
    photos = task.train_photos
    number, x, y, side, angle = photos.false_boxes[0].tolist()
    upside_down = photos.images[int(number), 0].numpy()[::-1, ::-1]
    found = [
        candidate
        for candidate in find_candidates(upside_down, 0.2)
        if candidate.box.width == pytest.approx(side, abs=1e-3)
    ]
    (candidate,) = found
    height, width = upside_down.shape
    assert candidate.box.x + side / 2 - 0.5 == pytest.approx(width - 1 - x, abs=1e-3)
    assert candidate.box.y + side / 2 - 0.5 == pytest.approx(height - 1 - y, abs=1e-3)
    assert candidate.angle + math.pi == pytest.approx(angle, abs=1e-5)


def test_boxes_are_measured_beside_the_one_that_fits_the_landmarks() -> None:
    landmarks = np.array([[40.0, 50], [60, 50], [50, 60], [42, 70], [58, 70]])
    usual = candidate_around(landmarks, 0.0)
    assert box_offset(usual, landmarks) == (0, 0, 0, 0)
    moved = replace(
        usual, box=replace(usual.box, x=usual.box.x + 10, y=usual.box.y - 2), angle=usual.angle + 0.1
    )
    assert box_offset(moved, landmarks) == pytest.approx((0.5, -0.1, 0, 0.1))
