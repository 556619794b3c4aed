"""The training loop: exact resume after a kill, early stopping, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.training.config import EngineConfig, load_config
from xfr_plugin.training.engine import Outcome, Task, learning_rate_at, train
from xfr_plugin.training.log import Record, curve_figure


class LineTask(Task):
    """Learn to invert a fixed linear map, with dropout and noise so that all random states matter."""

    metric = "error"
    maximise = False
    examples = 40

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(self.examples, 6, generator=generator)
        self.targets = self.inputs @ torch.randn(6, 6, generator=generator)

    def build_network(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 6)
        )

    def losses(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = 0.1 * torch.randn(len(indices), 6, generator=generator)
        error = (self.network(self.inputs[indices] + noise) - self.targets[indices]).square().mean()
        return {"total": error}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"error": float((network(self.inputs) - self.targets).square().mean())}


def make_config(run: Path, **changes: object) -> EngineConfig:
    values = {
        "run": run,
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 0.01,
        "progress": False,
        "threads": 1,
        **changes,
    }
    return EngineConfig.model_validate(values)


def curve(records: list[Record]) -> list[Record]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def train_until_killed(run: Path, step: int) -> None:
    """Train, checkpointing after every step, and die at `step` as by `kill -9`."""

    def die(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(LineTask(), make_config(run, checkpoint_minutes=1e-9), on_step=die)


def kill_trainings(runs: dict[int, Path]) -> None:
    """Run in a subprocess: a training for each step, in a child that is killed."""
    for step, run in runs.items():
        child = os.fork()
        if child == 0:
            train_until_killed(run, step)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of trainings that were killed, by the step at which they were."""
    runs = {step: tmp_path_factory.mktemp("killed") for step in (7, 10)}
    code = f"from pathlib import *; from test_engine import *; kill_trainings({runs!r})"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=True)
    return runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return train(LineTask(), make_config(tmp_path_factory.mktemp("whole")))


def logged(run: Path) -> list[Record]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [7, 10])
def test_a_killed_training_resumes_to_the_same_curve_and_weights(
    whole: Outcome, killed: dict[int, Path], step: int
) -> None:
    run = killed[step]
    assert len(logged(run)) == step // 5

    resumed = train(LineTask(), make_config(run))

    assert curve(resumed.records) == curve(whole.records)
    assert curve(logged(run)) == curve(whole.records)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(whole: Outcome, tmp_path: Path) -> None:
    again = train(LineTask(), make_config(tmp_path / "again"))
    other = train(LineTask(), make_config(tmp_path / "other", seed=1))
    assert curve(again.records) == curve(whole.records)
    assert curve(other.records) != curve(whole.records)


def test_curves_show_every_figure_of_the_log(whole: Outcome) -> None:
    panels = [axes for axes in curve_figure(whole.records).axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["train/total", "val/error"]
    for axes in panels:
        (line,) = axes.get_lines()
        assert list(line.get_ydata()) == [record[axes.get_title()] for record in whole.records]


def test_it_learns_and_keeps_the_best(whole: Outcome) -> None:
    errors = [record["val/error"] for record in whole.records]
    assert errors[-1] < errors[0]
    assert whole.best["val/error"] == min(errors)


def test_a_finished_run_is_returned_without_training_again(whole: Outcome, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first, steps = train(LineTask(), config), []
    second = train(LineTask(), config, on_step=steps.append)
    assert steps == []
    assert second.best == first.best


def test_patience_ends_a_training_that_does_not_improve(tmp_path: Path) -> None:
    class Flat(LineTask):
        def validate(self, network: nn.Module) -> dict[str, float]:
            return {"error": 1.0}

    outcome = train(Flat(), make_config(tmp_path, epochs=50, patience=2))
    assert outcome.stopped_early
    assert len(outcome.records) == 3


def test_a_training_that_was_cut_short_can_be_taken_up_again(whole: Outcome, tmp_path: Path) -> None:
    cut = train(LineTask(), make_config(tmp_path, stop_after=2))
    assert cut.stopped_early
    assert curve(cut.records) == curve(whole.records[:2])
    assert curve(train(LineTask(), make_config(tmp_path)).records) == curve(whole.records)


def test_the_learning_rate_rises_then_falls(tmp_path: Path) -> None:
    config = make_config(tmp_path, warmup=0.2, final_share=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[19] == pytest.approx(config.learning_rate)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 * config.learning_rate, rel=0.01)


def test_a_run_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    train(LineTask(), make_config(tmp_path, epochs=1))
    with pytest.raises(InputError, match=r"another learning_rate: choose another run folder"):
        train(LineTask(), make_config(tmp_path, epochs=1, learning_rate=0.5))


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    train(LineTask(), make_config(tmp_path, epochs=1))
    path = tmp_path / "checkpoint.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="delete it to start afresh"):
        train(LineTask(), make_config(tmp_path, epochs=1))


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fill a batch of 64"):
        train(LineTask(), make_config(tmp_path, batch_size=64))


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'tpu9' cannot be used here"):
        train(LineTask(), make_config(tmp_path, device="tpu9"))


def test_configurations_are_read_from_toml_and_json_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"run": "r", "epochs": 3}')
    config = load_config(EngineConfig, tmp_path / "c.json", {"seed": 7, "device": None})
    assert (config.epochs, config.seed, config.device) == (3, 7, "cpu")
    if sys.version_info >= (3, 11):
        (tmp_path / "c.toml").write_text('run = "r"\nepochs = 4\n')
        assert load_config(EngineConfig, tmp_path / "c.toml").epochs == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '{"run": "r", "epochz": 3}', r"c.json: epochz: .*known keys are run, seed"),
        ("c.json", '{"run": "r", "epochs": 0}', r"epochs: Input should be greater than 0"),
        ("c.json", "{}", r"c.json: run: Field required"),
        ("c.json", "[1]", r"must hold keys and values, not a list"),
        ("c.json", "{", r"is not valid JSON"),
        ("c.toml", "a = ", r"is not valid TOML"),
        ("c.yaml", "a: 1", r"configurations are .toml or .json files"),
    ],
)
def test_faulty_configurations_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_config(EngineConfig, tmp_path / name)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration file"):
        load_config(EngineConfig, tmp_path / "none.json")
