"""Distilling a recognizer on synthetic images, publishing it, and loading what was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.training_data import write_faces

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer, RecognizerCard, build_network, load_recognizer, save_recognizer
from xfr_plugin.recognition.networks import CompactFaceNet
from xfr_plugin.training.config import make_config
from xfr_plugin.training.engine import Outcome
from xfr_plugin.training.inherit import inherit_weights, mobile_of, take_over, teacher_front
from xfr_plugin.training.pool import PoolConfig
from xfr_plugin.training.publish import calibration_faces, publish_recognizer
from xfr_plugin.training.recognizer import (
    DistillationTask,
    RecognizerConfig,
    pair_scores,
    train_recognizer,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RecognizerConfig:
    root = tmp_path_factory.mktemp("distillation")
    torch.manual_seed(3)
    card = RecognizerCard(name="t", architecture="mobilefacenet", mean=(0.4, 0.5, 0.6))
    save_recognizer(Recognizer(build_network("mobilefacenet")), root / "teacher.safetensors", card)
    values = {
        "run": root / "run",
        "faces": write_faces(root),
        "teacher": str(root / "teacher.safetensors"),
        "threads": 1,
        "batch_size": 8,
        "epochs": 2,
        "epoch_steps": 3,
        "front_epochs": 1,
        "held_out": 0.3,
        "progress": False,
        "pool": PoolConfig(mixes=1),
    }
    return make_config(RecognizerConfig, values, "test")


@pytest.fixture(scope="module")
def outcome(config: RecognizerConfig) -> Outcome:
    return train_recognizer(config)


def test_both_stages_are_logged(outcome: Outcome, config: RecognizerConfig) -> None:
    assert [record["step"] for record in outcome.records] == [3, 6]
    assert set(outcome.best) >= {"val/cosine", "val/eer", "train/cosine", "train/relation", "train/total"}
    front = json.loads((config.run / "front" / "log.jsonl").read_text())
    assert front["val/map"] > 0


def test_the_student_inherits_the_teachers_second_half() -> None:
    teacher = Recognizer(build_network("mobilefacenet"))
    student = CompactFaceNet()
    inherit_weights(student, teacher, student.front).eval()
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = student.features(teacher_front(teacher.network)(images))
        own = student.flatten(student.bn(student.conv3(student.gdconv(student.conv2(x)))))
        torch.testing.assert_close(own, teacher.network(images), atol=1e-4, rtol=1e-3)


def test_only_a_mobilefacenet_can_lend_its_second_half() -> None:
    student = CompactFaceNet()
    with pytest.raises(InputError, match="cannot lend its second half: set front_epochs = 0"):
        inherit_weights(student, Recognizer(build_network("compact")), student.front)


@pytest.fixture(scope="module")
def with_maps(config: RecognizerConfig) -> tuple[RecognizerConfig, Outcome]:
    """A transformer that learns the teacher's last map, and keeps the layers of a trained front."""
    root = config.run.parent
    torch.manual_seed(4)
    card = RecognizerCard(name="s", architecture="compact")
    save_recognizer(Recognizer(build_network("compact")), root / "start.safetensors", card)
    changes = {"run": root / "maps", "architecture": "compact_transformer", "front_epochs": 0, "map": 1.0}
    asked = config.model_copy(update={**changes, "start": str(root / "start.safetensors"), "epochs": 1})
    return asked, train_recognizer(asked)


def test_a_front_that_was_trained_is_kept(with_maps: tuple[RecognizerConfig, Outcome]) -> None:
    asked, outcome = with_maps
    lent, kept = load_recognizer(str(asked.start)).network.front, outcome.network.front
    for name, value in lent.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value)
    assert set(outcome.best) >= {"train/map", "val/cosine", "val/eer"}


def test_the_pool_holds_the_teachers_maps_and_what_it_makes_of_them(
    with_maps: tuple[RecognizerConfig, Outcome],
) -> None:
    task = DistillationTask(with_maps[0])
    teacher = task.teacher
    images = task.pool.images[:3].float() / 255
    torch.testing.assert_close(task.pool.targets[:3], teacher.embed(images), atol=1e-4, rtol=1e-3)
    maps = teacher_front(mobile_of(teacher), replaced=None)(teacher.preprocess(images))
    torch.testing.assert_close(task.pool.maps[:3].float(), maps, atol=1e-2, rtol=1e-2)
    assert task.build_network().head(maps).shape == (3, 128)


def test_a_front_of_other_layers_cannot_be_taken_over() -> None:
    with pytest.raises(InputError, match="has no layers like those of the student's front"):
        take_over(build_network("compact_transformer"), Recognizer(build_network("mobilefacenet")))


def test_only_a_front_that_ends_in_the_map_learns_it(config: RecognizerConfig) -> None:
    asked = config.model_copy(update={"run": config.run.parent / "refused", "front_epochs": 0, "map": 1.0})
    with pytest.raises(InputError, match="compact has no front that ends in its teacher's last map"):
        train_recognizer(asked)


def test_a_published_student_is_read_back_with_its_calibration(
    outcome: Outcome, config: RecognizerConfig, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    card = publish_recognizer(config, path, "student")
    recognizer = load_recognizer(path)
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    own = Recognizer(outcome.network, mean=(0.4, 0.5, 0.6)).embed(images)
    assert recognizer.name == "student"
    assert float((recognizer.embed(images) * own).sum(dim=1).min()) > 0.999
    assert recognizer.threshold == card.calibration.threshold
    assert recognizer.threshold_at(1e-3) >= recognizer.threshold_at(1e-2)
    assert path.stat().st_size < 0.6 * sum(4 * p.numel() for p in outcome.network.parameters())


def test_thresholds_are_set_on_people_of_neither_training_nor_report(
    outcome: Outcome, config: RecognizerConfig
) -> None:
    people = {file.split("/")[0] for file in calibration_faces(config).files}
    trained = {f"Train_{i:02d}" for i in range(20)} - {p for p in people if p.startswith("Train")}
    assert {p for p in people if p.startswith("Test")} == {f"Test_{i:02d}" for i in range(8, 40)}
    assert len(trained) > 5
    assert not trained & people


def test_all_pairs_are_scored_once() -> None:
    embeddings = torch.eye(4)
    embeddings[1] = embeddings[0]
    genuine, impostor = pair_scores(embeddings, [7, 7, 8, 9])
    assert genuine.tolist() == [1.0]
    assert impostor.tolist() == [0.0] * 5


def test_unknown_keys_are_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"techer: .*known keys are .*teacher"):
        make_config(RecognizerConfig, {"run": tmp_path, "techer": "x"}, "test")
    with pytest.raises(InputError, match=r"pool.mixes"):
        make_config(RecognizerConfig, {"run": tmp_path, "pool": {"mixes": -1}}, "test")
