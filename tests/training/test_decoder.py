"""Training a decoder for any recognizer, also one whose faces are not square."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.training_data import write_faces, write_narrow_recognizer
from typer.testing import CliRunner

from xfr_plugin.attr import ReconstructionExplainer, ReconstructionSaliency
from xfr_plugin.cli.train import app
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.reconstruction import load_decoder
from xfr_plugin.training.decoder import mixed_embeddings


@pytest.fixture(scope="module")
def recognizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_recognizer(tmp_path_factory.mktemp("recognizer"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recognizer_file: Path) -> Path:
    root = tmp_path_factory.mktemp("decoder")
    faces = write_faces(root)
    config = root / "c.json"
    config.write_text(
        '{"threads": 1, "batch_size": 8, "epoch_steps": 6, "held_out": 0.3, "widths": [8, 8, 8], "atlas_faces": 2, '
        '"exchanges": 40, "output_size": [32, 24], "progress": false, "learning_rate": 0.01}'
    )
    options = ["--config", str(config), "--run", str(root / "run"), "--faces", str(faces), "--epochs", "3"]
    done = CliRunner().invoke(app, ["decoder", *options, "--recognizer", str(recognizer_file)])
    assert done.exit_code == 0, done.output
    assert "identity_cosine" in done.output
    return root / "run"


def test_a_decoder_learns_and_leaves_log_curves_manifest_and_weights(run: Path) -> None:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert records[-1]["train/pixel"] < records[0]["train/pixel"]
    left = {path.name for path in run.iterdir()}
    assert left >= {"curves.png", "manifest.json", "config.json", "checkpoint.pt", "decoder.safetensors"}


def test_the_decoder_fits_its_recognizer(run: Path, recognizer_file: Path) -> None:
    recognizer = load_recognizer(recognizer_file)
    decoder = load_decoder(run / "decoder.safetensors", recognizer)
    assert decoder.card.embedding_dim == 512
    assert decoder.atlas.shape == (512, 32, 24)
    embeddings = recognizer.embed(torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0)))
    assert decoder.faces(embeddings).shape == (3, 3, 64, 48)


def test_both_reconstruction_classes_work_with_it(run: Path, recognizer_file: Path) -> None:
    """512 channels, and faces that are not square."""
    recognizer = load_recognizer(recognizer_file)
    file = run / "decoder.safetensors"
    probe, reference = torch.rand(2, 2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    margin = (recognizer.embed(probe) * recognizer.embed(reference)).sum(dim=1) - 0.3
    for options in ({}, {"variant": "paper"}, {"variant": "paper", "source": "face"}):
        saliency = ReconstructionSaliency(recognizer, 0.3, decoder=file, **options)
        for side in saliency.attribute((probe, reference)):
            torch.testing.assert_close(side.sum(dim=(1, 2, 3)), margin, atol=1e-4, rtol=0)
    maps = ReconstructionExplainer(recognizer, file).attribute(probe, target=[511, 0])
    assert maps.shape == probe.shape
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), torch.ones(2))


def test_regional_evidence_is_measured_anew_by_command(
    run: Path, recognizer_file: Path, tmp_path: Path
) -> None:
    faces = write_faces(tmp_path)
    options = ["--decoder", str(run / "decoder.safetensors"), "--recognizer", str(recognizer_file)]
    options += ["--faces", str(faces), "--exchanges", "24", "--out", str(tmp_path / "again.safetensors")]
    done = CliRunner().invoke(app, ["regions", *options])
    assert done.exit_code == 0, done.output
    before, after = (
        load_decoder(path) for path in (run / "decoder.safetensors", tmp_path / "again.safetensors")
    )
    assert before.regional is not None
    assert after.regional is not None
    assert not torch.equal(before.regional.shifts, after.regional.shifts)
    torch.testing.assert_close(before.atlas, after.atlas, rtol=1e-2, atol=1e-6)


def test_mixed_embeddings_are_normalised_and_follow_the_generator() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(5, 2, 4), dim=2)
    mixed = mixed_embeddings(embeddings, 7, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(7))
    assert torch.equal(mixed, mixed_embeddings(embeddings, 7, torch.Generator().manual_seed(0)))
