"""Recognizers of the user's on the command line: functions, model files, cards that were measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.evaluation_faces import pair_list, small_recognizer, write_faces
from typer.testing import CliRunner

from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import list_recognizers, load_recognizer, zoo_card
from xfr_plugin.recognition.published import contract_of_file, published_cards

MODULE = """
import torch
from xfr_plugin.recognition import Recognizer

def black_box():
    return Recognizer.from_callable(
        lambda faces: torch.nn.functional.adaptive_avg_pool2d(faces - 0.5, 3).flatten(1).numpy(),
        input_size=(24, 20), threshold=0.2, name="pooled",
    )

def nothing():
    return 3

def broken():
    return {}["weights"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_recognizer_of_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("own_recognizer_of_tests", None)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    write_faces(tmp_path / "faces", photos=4)
    lines = [f"{pair.probe},{pair.reference},{int(pair.genuine)}" for pair in pair_list(40).pairs]
    (tmp_path / "pairs.csv").write_text("\n".join(["probe,reference,genuine", *lines]) + "\n")
    return tmp_path / "faces"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_a_function_of_the_user_decides_and_explains(module: Path, faces: Path) -> None:
    name = "own_recognizer_of_tests:black_box"
    a, b = (str(faces / "p00" / f"{number}.png") for number in (0, 1))
    given = ("-r", name, "--alignment", "aligned")
    decision = json.loads(CliRunner().invoke(app, ["verify", a, b, *given, "--json"]).stdout)
    assert decision["recognizer"] == "pooled"
    run("explain", a, b, *given, "--method", "mery_avg", "--out", str(module / "out"))
    assert (module / "out").is_dir()
    with pytest.raises(InputError, match="neither a Recognizer nor a network"):
        load_recognizer("own_recognizer_of_tests:nothing")
    with pytest.raises(InputError, match="own_recognizer_of_tests:FUNCTION"):
        load_recognizer("own_recognizer_of_tests.py")
    with pytest.raises(InputError, match="module:function"):
        load_recognizer("own_recognizer_of_tests")
    with pytest.raises(InputError, match=r"broken makes no recognizer: KeyError"):
        load_recognizer("own_recognizer_of_tests:broken")
    with pytest.raises(InputError, match="cannot be imported"):
        load_recognizer("own_recognizer_of_tests:no_such")
    with pytest.raises(InputError, match="cannot be imported"):
        load_recognizer("no_such_module_of_tests:make")


def test_a_measured_card_is_a_recognizer(module: Path, faces: Path) -> None:
    card = module / "cards" / "own.json"
    run(
        "calibrate",
        "-r",
        "own_recognizer_of_tests:black_box",
        "--faces",
        str(faces),
        "--pairs",
        str(module / "pairs.csv"),
        "--out",
        str(card),
        "--dataset",
        "toy faces",
        "--shares",
        "2",
        "--shapley",
        "1",
    )
    found = load_recognizer(card)
    assert found.calibration is not None
    assert (found.calibration.dataset, found.calibration.genuine_pairs) == ("toy faces", 20)
    assert found.calibration.nominal_fmr == (0.1,)  # 20 impostor pairs show no lower rate
    strength = found.calibration.strength(1e3)
    assert strength is None or (
        strength.at_bound and 0 <= strength.log10_lr < 1.4
    )  # 20 pairs show no ratio above 20
    assert found.threshold == found.calibration.threshold
    assert set(found.region_shares) == {"leave_one_out", "shapley"}
    assert all(sum(shares.values()) > 0 for shares in found.region_shares.values())
    listed = " ".join(run("recognizers", str(card)).split())
    assert "own.json" in listed
    assert "shapley" in listed
    changed = json.loads(card.read_text()) | {"fingerprint": "0" * 64}
    card.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="another recognizer"):
        load_recognizer(card)
    (module / "x.json").write_text("{}")
    with pytest.raises(InputError, match="no card"):
        load_recognizer(module / "x.json")


def test_a_card_finds_the_file_beside_it(module: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    (module / "models").mkdir()
    small_recognizer().to_onnx(module / "models" / "small.onnx")
    run(
        "calibrate",
        "-r",
        "models/small.onnx",
        "--faces",
        "faces",
        "--pairs",
        "pairs.csv",
        "--out",
        "models/small.json",
        "--shares",
        "0",
    )
    monkeypatch.chdir(module.parent)
    assert load_recognizer(module / "models" / "small.json").name == "small"


def test_what_ships_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each recognizer contract, calibration, and the models that are found for it."""
    monkeypatch.setenv("COLUMNS", "250")
    parts = run("recognizers").split("files of others")[0].split("\u251c")
    rows = {name: next(part for part in parts if f" {name} " in part) for name in list_recognizers()}
    for name, row in rows.items():
        card = zoo_card(name)
        assert card.calibration is not None
        assert f"threshold {card.calibration.threshold:.3f}" in row
        assert "112×112 RGB" in row or name == "faceid_plain"
        assert ("region shares" in row) == bool(card.region_shares)
    assert "ships: decoder, evidence network" in rows["xfr_compact128"]
    assert "ships: decoder, evidence network" in rows["mobilefacenet_ms1m"]
    assert "decoder" not in rows["xfr_transformer"]


def test_published_contracts_are_found_by_name_and_listed() -> None:
    assert contract_of_file(Path("models/w600k_r50.onnx")) is not None
    adaface = contract_of_file(Path("adaface_ir50_ms1mv2.ckpt"))
    assert adaface is not None
    assert adaface.channel_order == "BGR"
    assert contract_of_file(Path("my_own.onnx")) is None
    shown = " ".join(run("recognizers").split())
    assert "mobilefacenet_ms1m" in shown
    assert "SFace (OpenCV)" in shown
    assert len(published_cards()) >= 11
    assert len({pattern for card in published_cards() for pattern in card.files}) == sum(
        len(card.files) for card in published_cards()
    )
