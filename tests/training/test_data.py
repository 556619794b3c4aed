"""Training data: finding and splitting faces, manifests, the pool of a distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_data import TRAIN, write_faces

from xfr_plugin.errors import InputError, PhotoFormatError
from xfr_plugin.recognition import Recognizer, build_network
from xfr_plugin.training.faces_data import FaceSet, find_faces, read_faces, split_people
from xfr_plugin.training.manifest import Manifest, build_manifest
from xfr_plugin.training.pool import PoolConfig, build_pool, mix_faces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def teacher() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(build_network("compact"))


def test_only_training_people_are_found_beside_lfws_protocol_files(folder: Path) -> None:
    faces = find_faces(folder)
    assert sorted(faces) == TRAIN
    assert faces["Train_03"] == ["Train_03/Train_03_0001.jpg", "Train_03/Train_03_0002.jpg"]


def test_any_other_folder_is_taken_whole(tmp_path: Path, folder: Path) -> None:
    image = (folder / "Test_00" / "Test_00_0001.jpg").read_bytes()
    (tmp_path / "anna").mkdir()
    for name in ("anna/1.jpg", "anna/2.jpg", "bert.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(image)
    assert find_faces(tmp_path) == {"anna": ["anna/1.jpg", "anna/2.jpg"], "bert": ["bert.jpg"]}


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of faces"):
        find_faces(tmp_path / "none")
    with pytest.raises(InputError, match="no images"):
        find_faces(tmp_path)


def test_people_are_split_by_name_alone() -> None:
    faces = {f"p{i}": [f"p{i}/{j}.jpg" for j in range(20)] for i in range(200)}
    train, held_out = split_people(faces, 0.2, seed=0)
    assert not train.keys() & held_out.keys()
    assert len(train) + len(held_out) == 200
    assert 20 < len(held_out) < 60
    assert all(len(files) == 12 for files in held_out.values())
    fewer = {name: files for name, files in faces.items() if name < "p5"}
    assert set(split_people(fewer, 0.2, seed=0)[1]) == set(held_out) & set(fewer)
    assert set(split_people(faces, 0.2, seed=1)[1]) != set(held_out)


def test_faces_are_read_at_the_size_wanted(folder: Path) -> None:
    faces = read_faces(folder, {"a": find_faces(folder)["Train_00"]}, (160, 120))
    assert faces.images.shape == (2, 3, 160, 120)
    assert faces.people.tolist() == [0, 0]
    assert float(faces.batch(torch.tensor([1])).max()) <= 1


def test_damaged_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    with pytest.raises(PhotoFormatError, match=r"a\.jpg is damaged"):
        read_faces(tmp_path, {"a": ["a.jpg"]})


def test_manifests_change_with_the_data(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = build_manifest(tmp_path, ["a"])
    first.write(tmp_path / "manifest.json")
    assert Manifest.model_validate_json((tmp_path / "manifest.json").read_text()) == first
    (tmp_path / "a").write_text("2")
    assert build_manifest(tmp_path, ["a"]).digest != first.digest
    with pytest.raises(InputError, match=r"1 of 2 files are missing .* b"):
        build_manifest(tmp_path, ["a", "b"])


def test_mixes_stay_between_their_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.zeros(40, 3, 8, 8), torch.ones(40, 3, 8, 8)
    mixed = mix_faces(first, second, generator)
    assert float(mixed.min()) >= 0
    assert float(mixed.max()) <= 1
    even = (mixed.flatten(1).std(dim=1) < 1e-6).float().mean()
    assert 0.2 < float(even) < 0.6


def test_the_pool_holds_the_teachers_embeddings_of_exactly_its_images(
    folder: Path, teacher: Recognizer, tmp_path: Path
) -> None:
    few = {name: files for name, files in find_faces(folder).items() if name < "Train_04"}
    faces = read_faces(folder, few)
    pool = build_pool(faces, teacher, PoolConfig(mixes=2), 0, tmp_path)
    count = len(faces)
    assert len(pool) == 4 * count
    assert torch.equal(pool.images[:count], faces.images)
    assert torch.equal(pool.images[count : 2 * count], faces.images.flip(3))
    assert not torch.equal(pool.images[2 * count : 3 * count], pool.images[3 * count :])
    torch.testing.assert_close(pool.targets, teacher.embed(pool.images.float() / 255), atol=1e-4, rtol=0)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = build_pool(faces, teacher, PoolConfig(mixes=2), 0, tmp_path)
    assert torch.equal(again.targets, pool.targets)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_a_face_set_knows_its_length() -> None:
    faces = FaceSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), np.array([0, 1]), ["a", "b"])
    assert len(faces) == 2
