"""The fast form is taught by what leaving regions out does: its bank, its lessons, resumption, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.training_data import write_faces, write_narrow_recognizer
from typer.testing import CliRunner

from xfr_plugin.attr import Amortised, LeaveOneOut, load_evidence, region_effects
from xfr_plugin.attr.amortised.network import EvidenceNetwork
from xfr_plugin.cli.train import app
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.features import layers_by_size
from xfr_plugin.swaps.donors import synthetic_faces
from xfr_plugin.training.covers import covered
from xfr_plugin.training.effects_bank import BankPlan, FacesBank, Strangers, build_bank
from xfr_plugin.training.engine import step_generator
from xfr_plugin.training.evidence import EvidenceConfig, HeldOut, fitted
from xfr_plugin.training.faces_data import FaceSet, find_faces, read_faces

SIZE = (64, 48)
PLAN = BankPlan(faces=40, covered=0.5, donors=2, seed=3)


@pytest.fixture(scope="module")
def recognizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_recognizer(tmp_path_factory.mktemp("recognizer"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evidence")
    write_faces(root).rename(root / "faces")
    return root


@pytest.fixture(scope="module")
def photos(root: Path) -> FaceSet:
    return read_faces(root / "faces", find_faces(root / "faces"), SIZE)


@pytest.fixture(scope="module")
def bank(photos: FaceSet, recognizer_file: Path, root: Path) -> FacesBank:
    return built(photos, recognizer_file, root / "bank")


def built(photos: FaceSet, recognizer_file: Path, folder: Path, plan: BankPlan = PLAN) -> FacesBank:
    strangers = Strangers(photos, 12, 0)
    return build_bank(load_recognizer(recognizer_file), photos, strangers, plan, folder, progress=False)


def config(root: Path, recognizer_file: Path, **changes: object) -> EvidenceConfig:
    settings: dict[str, object] = {
        "run": root / "run",
        "recognizer": str(recognizer_file),
        "faces": root / "faces",
        "threads": 1,
        "held_out": 0.4,
        "bank_faces": 60,
        "held_out_faces": 20,
        "held_out_donors": 2,
        "strangers": 8,
        "width": 40,
        "progress": False,
    }
    return EvidenceConfig.model_validate(settings | changes)


def test_random_shapes_cover_a_part_of_a_face() -> None:
    face = synthetic_faces(1, (112, 112), 3)[0]
    shares = []
    for seed in range(40):
        found = covered(face, step_generator(0, seed))
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert torch.equal(found, covered(face, step_generator(0, seed)))
        shares.append(float(((found - face).abs().amax(dim=0) > 0.02).float().mean()))
    assert 0.05 < sum(shares) / len(shares) < 0.5
    assert max(shares) < 0.95
    assert len(set(shares)) > 30


def test_a_bank_holds_what_leaving_out_says(bank: FacesBank, photos: FaceSet, recognizer_file: Path) -> None:
    """Of some donors, and these are other people; half of the faces are changed by shapes."""
    recognizer = load_recognizer(recognizer_file)
    assert bank.effects.shape[:3] == (40, 2, 14)
    assert 8 < int(bank.covered.sum()) < 32
    images = bank.images.float() / 255
    plain = (bank.images == photos.images[bank.photo]).flatten(1).all(dim=1)
    assert torch.equal(plain, ~bank.covered)
    torch.testing.assert_close(bank.whole, recognizer.embed(images), atol=1e-5, rtol=0)
    strangers = photos.batch(torch.arange(len(photos)))
    for number in (0, 39):
        of_each = torch.stack(
            [
                region_effects(LeaveOneOut(recognizer, 0.0, population=one[None]), images[[number]])[
                    0
                ].effects
                for one in strangers
            ]
        )
        for own in bank.effects[number].float():
            missed = (of_each - own).abs().amax(dim=(1, 2))
            donor = int(missed.argmin())
            assert float(missed[donor]) < 1e-3  # kept in 16 bits
            assert photos.people[donor] != photos.people[bank.photo[number]]


def test_an_interrupted_bank_goes_on_as_if_it_had_not_been(
    bank: FacesBank, photos: FaceSet, recognizer_file: Path, root: Path
) -> None:
    shards = sorted((root / "bank").iterdir())
    assert len(shards) == 2
    kept = shards[1].read_bytes()
    shards[1].unlink()
    before = shards[0].stat().st_mtime_ns
    again = built(photos, recognizer_file, root / "bank")
    assert torch.equal(again.effects, bank.effects)
    assert shards[1].read_bytes() == kept
    assert shards[0].stat().st_mtime_ns == before
    smaller = built(photos, recognizer_file, root / "bank", PLAN.model_copy(update={"faces": 20}))
    assert torch.equal(smaller.effects, bank.effects[:20]), "a bank can grow"
    with pytest.raises(InputError, match="another seed"):
        built(photos, recognizer_file, root / "bank", PLAN.model_copy(update={"seed": 4}))


@pytest.fixture(scope="module")
def known(bank: FacesBank, photos: FaceSet, recognizer_file: Path) -> HeldOut:
    recognizer = load_recognizer(recognizer_file)
    layers = tuple(layers_by_size(recognizer.network, torch.zeros(1, 3, *SIZE)))
    return HeldOut.of(recognizer, bank, photos, layers)


def test_natural_pairs_are_of_other_photographs_and_of_other_people(
    known: HeldOut, bank: FacesBank, photos: FaceSet, recognizer_file: Path
) -> None:
    """Genuine partners are the other one of two photographs; a face is no partner of its own person's."""
    units = load_recognizer(recognizer_file).embed(photos.batch(bank.photo ^ 1))
    torch.testing.assert_close(known.mates, units, atol=1e-5, rtol=0)
    network = EvidenceNetwork((1,), known.mates.shape[1], 4)
    network.forward = lambda features: known.effects.mean(dim=1)  # type: ignore[method-assign]  # what is exact
    said, exact = known.values(network)["impostor"]
    torch.testing.assert_close(said, exact.mean(dim=1), equal_nan=True)
    alone = said.isnan().all(dim=1).view(-1, len(bank))
    for step, row in enumerate(alone, start=1):
        assert torch.equal(row, known.people == known.people.roll(step))


def test_it_learns_what_leaving_out_does(known: HeldOut) -> None:
    """Predictions come near to what leaving regions out did, nearer than the mean of each region."""
    exact = known.effects.mean(dim=1)
    channels = (known.features.rows.shape[2] - 5,)
    network, figures = fitted(known.features, exact, known, channels, 64)
    with torch.no_grad():
        found = network(known.features)
    missed = (found - exact).square().sum() / (exact - exact.mean(dim=0)).square().sum()
    assert float(missed) < 0.7
    assert figures["genuine R2"] > 0.5
    assert figures["impostor specific"] > 0.6
    assert not found[~known.features.present].any()
    again, _ = fitted(known.features, exact, known, channels, 64)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    errors = known.errors(network)
    assert errors
    assert max(errors.values()) < float(exact.abs().max())


def test_command_line_trains_a_network_that_explains(root: Path, recognizer_file: Path) -> None:
    """And does the same again from the bank that is there."""
    document = config(root, recognizer_file).model_dump(mode="json", exclude={"run"})
    path = root / "c.json"
    path.write_text(json.dumps(document))
    published = root / "e.safetensors"
    options = ["--config", str(path), "--run", str(root / "cli"), "--publish", str(published)]
    done = CliRunner().invoke(app, ["evidence", *options])
    assert done.exit_code == 0, done.output
    assert "genuine specific" in done.output
    recognizer = load_recognizer(recognizer_file)
    model = load_evidence(published, recognizer)
    assert model.card.errors
    pair = torch.rand(2, 2, 3, *SIZE, generator=torch.Generator().manual_seed(0)).unbind()
    maps, delta = Amortised(recognizer, 0.3, network=model).attribute(
        (pair[0], pair[1]), return_convergence_delta=True
    )
    assert maps[0].shape == pair[0].shape
    assert float(delta.abs().max()) < 1e-6
    first = published.read_bytes()
    assert CliRunner().invoke(app, ["evidence", *options]).exit_code == 0
    assert published.read_bytes() == first
    with pytest.raises(InputError, match="trained for recognizer 'narrow'"):
        load_evidence(published, load_recognizer("xfr_compact128"))
