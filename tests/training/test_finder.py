"""Training of the face finder on a few composed photographs: pictures, labels, losses, writing, resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.labelled_photos import PEOPLE, write_photos
from torch import Tensor

from xfr_plugin.faces.finder import load_finder
from xfr_plugin.faces.finder_network import STRIDE, USUAL_EYES, FaceMap
from xfr_plugin.training.engine import train
from xfr_plugin.training.finder import FinderConfig, FinderTask, finding_loss, place_losses, train_finder
from xfr_plugin.training.finder_scenes import Layers, Scenes, draw_layers, draw_scenes, relit

SIDE = 96


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photos(folder)
    return folder


def make_config(root: Path, run: Path, **changes: object) -> FinderConfig:
    values = {"data": root, "run": run, "epochs": 2, "epoch_steps": 2, "batch_size": 4, "width": 4}
    return FinderConfig.model_validate(
        {**values, "held_out": 0.2, "progress": False, "threads": 1, **changes}
    )


@pytest.fixture(scope="module")
def task(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FinderTask:
    task = FinderTask(make_config(root, tmp_path_factory.mktemp("run")))
    task.network = task.build_network()
    task.to(torch.device("cpu"))
    return task


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two_layers(**changes: Tensor) -> Layers:
    """A face of 8 pixels between the eyes, turned by 0.3, at (40, 50) over a photograph on its head."""
    still = Layers(
        photos=torch.tensor([[0, 1]]),
        centres=torch.tensor([[[30.0, 30.0], [40.0, 50.0]]]),
        eyes=torch.tensor([[20.0, 8.0]]),
        angles=torch.tensor([[math.pi, 0.3]]),
        flips=torch.ones(1, 2),
        upright=torch.tensor([[False, True]]),
        windows=torch.tensor([-9.0, -9.0, 9.0, 9.0]).expand(1, 2, 4),
        covers=torch.zeros(1, 2),
        shades=torch.zeros(1, 2),
    )
    return replace(still, **changes)


def drawn(task: FinderTask, layers: Layers) -> Scenes:
    nothing = torch.full((1, 1, SIDE, SIDE), float("nan"))
    return draw_scenes(task.images, task.landmarks, layers, nothing, SIDE)


def test_a_face_is_labelled_where_it_is_drawn(task: FinderTask) -> None:
    scenes = drawn(task, two_layers())
    assert scenes.faces.tolist() == [[0, 12, 10]]  # 50 and 40 pixels in cells of four
    assert scenes.centres.tolist() == [[40.0, 50.0]]
    assert scenes.eyes.tolist() == [8.0]
    assert scenes.angles.tolist() == pytest.approx([0.3])
    assert scenes.heat.argmax() == 12 * scenes.heat.shape[2] + 10
    assert (scenes.heat == 1).sum() == 1


def test_a_face_is_drawn_where_its_landmarks_say(task: FinderTask) -> None:
    """Drawn at its own place, size and angle it is the photograph itself; mirrored, its mirror image."""
    points = task.landmarks[1]
    across = points[1] - points[0]
    own = two_layers(
        centres=points.mean(0).expand(1, 2, 2),
        eyes=across.norm().expand(1, 2),
        angles=torch.atan2(across[1], across[0]).expand(1, 2),
    )
    photo = task.images[1, 0, :SIDE, :SIDE].float() / 255
    assert torch.allclose(drawn(task, own).pictures[0, 0], photo, atol=0.01)
    mirrored = drawn(task, replace(own, flips=-torch.ones(1, 2))).pictures[0, 0]
    assert (mirrored - photo).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("changes", "is_ignored"),
    [
        ({"eyes": torch.tensor([[20.0, 15.0]])}, True),  # too large for this copy
        ({"upright": torch.tensor([[False, False]])}, False),
        ({"windows": torch.tensor([-0.5, -1.0, 0.5, 0.4]).expand(1, 2, 4)}, True),  # mostly cut away
    ],
)
def test_what_is_no_whole_face_is_not_taught(
    task: FinderTask, changes: dict[str, Tensor], is_ignored: bool
) -> None:
    scenes = drawn(task, two_layers(**changes))
    assert len(scenes.faces) == 0
    assert (scenes.heat < 0.01).all()
    assert bool(scenes.ignored[0, 12, 10]) == is_ignored


def test_what_lies_beside_an_upright_face_counts_as_nothing(task: FinderTask) -> None:
    scenes = drawn(task, two_layers(angles=torch.tensor([[math.pi, 0.0]])))
    row, column = 12, 10 + round(2.2 * 8 / STRIDE)  # a face there would have no label
    assert scenes.ignored[0, row, column]
    assert not scenes.ignored[0, row + 6, column]


def test_a_mask_covers_the_mouth_and_glasses_the_eyes(task: FinderTask) -> None:
    bare = drawn(task, two_layers()).pictures[0, 0]
    places = {1: (54, 39), 2: (47, 45)}
    for cover, (row, column) in places.items():
        covers = torch.tensor([[0, cover]])
        changed = (drawn(task, two_layers(covers=covers)).pictures[0, 0] - bare).abs() > 0.05
        assert changed[row - 1 : row + 2, column - 1 : column + 2].any()
        assert changed.float().mean() < 0.05


def test_layers_are_drawn_over_the_whole_range(generator: torch.Generator) -> None:
    layers = draw_layers(200, 4, PEOPLE, SIDE, 50.0, generator)
    assert not layers.upright[:, 0].any()
    turned = layers.angles.abs()
    assert (turned[layers.upright] <= math.radians(50) + 1e-6).all()
    assert (turned[~layers.upright] >= math.radians(100) - 1e-6).all()
    assert layers.photos.unique().tolist() == list(range(PEOPLE))


def test_relit_pictures_stay_in_range_and_repeat() -> None:
    pictures = torch.rand(12, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    first, again = (relit(pictures, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not torch.equal(first, pictures)


def test_a_map_that_says_what_is_there_costs_nothing(task: FinderTask) -> None:
    scenes = drawn(task, two_layers())
    logits = torch.where(scenes.heat == 1, 20.0, -20.0)
    offsets, turns = torch.zeros(2, *logits.shape, 2).movedim(4, 2).unbind(0)
    offsets[0, :, 12, 10] = torch.tensor([0.0, 2.0]) / USUAL_EYES
    turns[0, :, 12, 10] = torch.tensor([math.cos(0.3), math.sin(0.3)])
    right = FaceMap(logits, offsets, torch.full_like(logits, math.log(8 / USUAL_EYES)), turns)
    assert float(finding_loss(right, scenes)) < 1e-3
    assert [float(loss) for loss in place_losses(right, scenes).values()] == pytest.approx([0] * 3, abs=1e-5)
    assert float(finding_loss(right._replace(logits=-logits), scenes)) > 10


def test_a_short_training_learns_and_can_be_loaded(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.safetensors"
    config = make_config(
        root, tmp_path / "run", epochs=3, epoch_steps=20, batch_size=8, ema_decay=0.0, out=out
    )
    outcome = train_finder(config)
    losses = [record["train/total"] for record in outcome.records]
    assert losses[2] < 0.85 * losses[0]
    card = load_finder(out).card
    assert card["width"] == 4
    assert card["training"]["photographs"] + card["training"]["held-out photographs"] == PEOPLE


def test_an_interrupted_training_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    whole = train_finder(make_config(root, tmp_path / "whole"))

    def interrupt(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    config = make_config(root, tmp_path / "parts", checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train(FinderTask(config), config, interrupt)
    resumed = train_finder(config)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])
