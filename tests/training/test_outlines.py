"""Training of the outline finder on a few drawn faces: data, shape model, augmentation, writing, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from xfr_plugin.errors import InputError
from xfr_plugin.faces.landmark_network import sample_crops
from xfr_plugin.faces.outline_network import mirror_order
from xfr_plugin.faces.outlines import load_outline_finder
from xfr_plugin.training.engine import step_generator, train
from xfr_plugin.training.manifest import Manifest, build_manifest
from xfr_plugin.training.outlines import (
    OutlinesConfig,
    OutlinesTask,
    face_frames,
    misplaced_frames,
    narrowed,
    planted,
    train_outlines,
    unmoved_frames,
)
from xfr_plugin.training.outlines_data import read_outlines, shape_model

PEOPLE = 24
# centre and half axes of each feature on the 112×112 crop; those of the left side are mirrored
FEATURES = {
    "face_oval": ((56.0, 68.0), (38.0, 46.0)),
    "nose": ((56.0, 66.0), (9.0, 16.0)),
    "right_eye": ((38.0, 52.0), (8.0, 4.0)),
    "left_eye": ((74.0, 52.0), (8.0, 4.0)),
    "right_brow": ((37.0, 41.0), (10.0, 3.0)),
    "left_brow": ((75.0, 41.0), (10.0, 3.0)),
    "mouth": ((56.0, 92.0), (15.0, 6.0)),
    "right_socket": ((38.0, 53.0), (13.0, 9.0)),
    "left_socket": ((74.0, 53.0), (13.0, 9.0)),
    "bridge": ((56.0, 55.0), (5.0, 7.0)),
    "philtrum": ((56.0, 85.0), (12.0, 4.0)),
}
SHADES = {"face_oval": 170, "nose": 200, "mouth": 90, "right_brow": 60, "left_brow": 60, "philtrum": 150}
SHADES |= {"right_socket": 140, "left_socket": 140, "bridge": 180}
CORNERS = 8
VERTICES = 2 * CORNERS * len(FEATURES)


def feature_vertices() -> dict[str, list[int]]:
    """Every second vertex of the mesh, in reverse, so that renumbering has something to do."""
    return {
        name: list(range(VERTICES - 1 - 2 * CORNERS * i, VERTICES - 1 - 2 * CORNERS * (i + 1), -2))
        for i, name in enumerate(FEATURES)
    }


def write_faces(root: Path) -> None:
    """Drawn faces in LFW's layout with their meshes: each moved, and with a nose to one side."""
    rng = np.random.default_rng(0)
    angles = np.arange(CORNERS) * 2 * np.pi / CORNERS
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    names, meshes = [f"Person_{i:02d}" for i in range(PEOPLE)], []
    for name in names:
        shift, turn, size = rng.normal(0, 2, 2), rng.normal(0, 5), rng.uniform(0.95, 1.05, 2)
        mesh = rng.uniform(0, 112, (VERTICES, 2))
        image = Image.new("L", (112, 112), int(rng.integers(20, 60)))
        for feature, (centre, axes) in sorted(FEATURES.items(), key=lambda item: -item[1][1][1]):
            moved = np.array(centre) + shift + ([turn, 0] if feature == "nose" else 0)
            outline = moved + circle * axes * size
            ImageDraw.Draw(image).polygon([tuple(p) for p in outline], fill=SHADES.get(feature, 230))
            mesh[feature_vertices()[feature]] = outline
        (root / "lfw112" / name).mkdir(parents=True)
        image.convert("RGB").save(root / "lfw112" / name / f"{name}_0001.jpg", quality=95)
        meshes.append((mesh + 32) * 1.5)
    files = np.array([f"{name}/{name}_0001.jpg" for name in names])
    stored = np.clip(np.round(meshes), 0, 255).astype(np.uint8)
    np.savez(root / "mesh468_aligned.npz", files=files, mesh_u8=stored)
    (root / "regions.json").write_text(json.dumps({"mesh_indices": feature_vertices()}))
    people = [str(PEOPLE), *(f"{name}\t1" for name in names)]
    (root / "peopleDevTrain.txt").write_text("\n".join(people) + "\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder)
    return folder


def make_config(root: Path, run: Path, **changes: object) -> OutlinesConfig:
    values = {"data": root, "run": run, "epochs": 2, "batch_size": 6, "width": 4, "components": 8}
    values |= {"held_out": 0.2, "ema_decay": 0.0, "progress": False, "threads": 1, "epoch_steps": 4}
    return OutlinesConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def task(root: Path, tmp_path_factory: pytest.TempPathFactory) -> OutlinesTask:
    task = OutlinesTask(make_config(root, tmp_path_factory.mktemp("run")))
    task.network = task.build_network()
    task.to(torch.device("cpu"))
    return task


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_vertices_are_renumbered_in_order_along_their_outlines(root: Path) -> None:
    outlines = read_outlines(root)
    assert outlines.count == CORNERS * len(FEATURES)
    stored = np.load(root / "mesh468_aligned.npz")["mesh_u8"][3] / 1.5 - 32
    points = outlines.points["Person_03/Person_03_0001.jpg"]
    for name, vertices in feature_vertices().items():
        np.testing.assert_allclose(points[outlines.features[name]], stored[vertices], atol=1e-4)


def test_people_are_split_and_listed(task: OutlinesTask, root: Path) -> None:
    assert len(task.train_faces) + len(task.held_out_faces) == PEOPLE
    assert len(task.held_out_faces) > 0
    assert task.train_faces.images.shape[1:] == (1, 112, 112)
    expected = build_manifest(root, task.manifest.files)
    assert task.manifest == expected
    assert set(task.manifest.files) > {"mesh468_aligned.npz", "regions.json", "peopleDevTrain.txt"}


def test_points_of_one_side_become_those_of_the_other(task: OutlinesTask) -> None:
    order, features = task.order.numpy(), task.features
    assert (order[order] == np.arange(len(order))).all()
    assert set(order[features["right_eye"]]) == set(features["left_eye"])
    assert set(order[features["mouth"]]) == set(features["mouth"])
    lopsided = 112 * torch.rand(5, 7, 2, generator=torch.Generator().manual_seed(3))
    with pytest.raises(InputError, match="do not mirror each other"):
        mirror_order(lopsided)


def test_the_shape_model_restores_shapes(task: OutlinesTask) -> None:
    shapes = task.train_faces.points
    mean, basis, coefficients = shape_model(shapes, 8)
    restored = mean + torch.einsum("bc,ckd->bkd", coefficients, basis)
    assert float((restored - shapes).square().mean().sqrt()) < 0.3 * float(
        (mean - shapes).square().mean().sqrt()
    )
    torch.testing.assert_close(coefficients.square().mean(0), torch.ones(8), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="too few for a shape model"):
        shape_model(shapes, 100)


def test_targets_follow_the_frames(task: OutlinesTask, generator: torch.Generator) -> None:
    points = task.train_faces.points
    torch.testing.assert_close(task._targets(points, unmoved_frames(len(points))), points, rtol=0, atol=1e-3)
    frames = face_frames(len(points), 5, 0.05, 0.03, generator)
    moved = task._targets(points, frames)
    flipped = frames[:, :, :2].det() < 0
    assert 0 < int(flipped.sum()) < len(points)
    eyes = [moved[:, task.features[name], 0].mean(1) for name in ("right_eye", "left_eye")]
    assert (eyes[0] < eyes[1]).all()
    # what is cut out lies where its target says: the right eye is bright, and no wider than 16 pixels
    crops = sample_crops(task.train_faces.images.float() / 255, frames, 112)
    for crop, target in zip(crops, moved, strict=True):
        x, y = (target[task.features["right_eye"]].mean(0)).round().int().tolist()
        assert float(crop[0, y, x]) > 0.8


def test_some_faces_get_regions_of_others(task: OutlinesTask) -> None:
    faces, indices = task.train_faces, torch.arange(len(task.train_faces))
    own = faces.images.float() / 255
    generator = torch.Generator().manual_seed(3)
    torch.testing.assert_close(planted(faces, indices, 0.0, generator), own)
    changed = planted(faces, indices, 1.0, generator)
    assert changed.shape == own.shape
    apart = ((changed - own).abs() > 0.02).float().mean(dim=(1, 2, 3))
    assert float((apart > 0).float().mean()) > 0.8
    assert 0.01 < float(apart.mean()) < 0.6


def test_misplaced_faces_are_far_off(generator: torch.Generator) -> None:
    frames = misplaced_frames(200, generator)
    turned = frames[:, 0, 0] < frames[:, :, :2].det().sqrt() * 0.51
    scale = (frames[:, :, :2].det().sqrt() / 56).log().abs() > 0.5
    shifted = (frames[:, :, 2] - 55.5).norm(dim=1) > 0.34 * 112
    assert (turned.int() + scale.int() + shifted.int() == 1).all()


def test_sides_are_cut_off(generator: torch.Generator) -> None:
    crops = narrowed(torch.ones(50, 1, 56, 56), 0.5, generator)
    kept = crops.mean((1, 2, 3))
    assert 0.2 < float((kept < 1).float().mean()) < 0.8
    assert float(kept.min()) > 0.65
    assert torch.equal(crops, crops.flip(3))


def test_a_short_training_learns_and_can_be_loaded(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    config = make_config(root, tmp_path / "run", epochs=2, epoch_steps=50, learning_rate=5e-3, out=out)
    outcome = train_outlines(config)
    best = outcome.best
    assert best["val/rms error"] < 0.75 * best["val/rms error of the mean shape"]
    card = load_outline_finder(out).card
    assert card["components"] == 8
    assert card["training"]["faces"] + card["training"]["held-out faces"] == PEOPLE
    assert (
        card["training"]["data"]
        == Manifest.model_validate_json((config.run / "manifest.json").read_text()).digest
    )
    assert card["training"]["held-out figures"]["rms error"] == best["val/rms error"]
    elsewhere = tmp_path / "elsewhere.safetensors"
    assert train_outlines(config.model_copy(update={"out": elsewhere})).best == best
    assert elsewhere.read_bytes() == out.read_bytes()


def test_an_interrupted_training_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    whole = train_outlines(make_config(root, tmp_path / "whole"))
    config = make_config(root, tmp_path / "parts", checkpoint_minutes=1e-9)

    def interrupt(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(OutlinesTask(config), config, interrupt)
    resumed = train_outlines(config)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_missing_meshes_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mesh468_aligned\.npz is missing"):
        OutlinesTask(make_config(tmp_path, tmp_path / "run"))
    shutil.copytree(root, tmp_path / "copy")
    stored = dict(np.load(tmp_path / "copy" / "mesh468_aligned.npz"))
    stored["files"] = np.array([f"other/{i}.jpg" for i in range(PEOPLE)])
    np.savez(tmp_path / "copy" / "mesh468_aligned.npz", **stored)
    with pytest.raises(InputError, match="has a mesh"):
        OutlinesTask(make_config(tmp_path / "copy", tmp_path / "run"))


def test_so_many_photographs_of_a_person_at_most(root: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    shutil.copytree(root, more)
    first = more / "lfw112" / "Person_03" / "Person_03_0001.jpg"
    shutil.copy(first, first.with_name("Person_03_0002.jpg"))
    stored = dict(np.load(more / "mesh468_aligned.npz"))
    again = "Person_03/Person_03_0002.jpg"
    np.savez(
        more / "mesh468_aligned.npz",
        files=np.append(stored["files"], again),
        mesh_u8=np.concatenate((stored["mesh_u8"], stored["mesh_u8"][3:4])),
    )
    sizes = []
    for photos in (None, 1):
        made = OutlinesTask(make_config(more, tmp_path / "run", photos=photos))
        sizes.append(len(made.train_faces) + len(made.held_out_faces))
    assert sizes == [PEOPLE + 1, PEOPLE]


def test_validation_reports_both_kinds_of_mistake(task: OutlinesTask) -> None:
    figures = task.validate(task.network.eval())
    task.network.train()
    assert set(figures) > {"faces refused", "non-faces accepted", "moved by plantings"}
    assert figures["rms error of the mean shape"] > 0
    again = (
        task.losses(torch.arange(6), step_generator(0, 1)),
        task.losses(torch.arange(6), step_generator(0, 1)),
    )
    assert again[0].keys() == again[1].keys() == {"total", "points", "score"}
