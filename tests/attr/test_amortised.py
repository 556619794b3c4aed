"""Amortised evidence: its rule against loops, its files, what it refuses; and the shipped networks point right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.region_loops import SIZE, faces
from helpers.tiny_evidence import toy_evidence
from torch import Tensor, nn

from xfr_plugin.attr import (
    Amortised,
    EvidenceModel,
    find_evidence,
    load_evidence,
)
from xfr_plugin.attr.amortised.model import evidence_file, save_evidence
from xfr_plugin.attr.amortised.network import Answers
from xfr_plugin.base import weights
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.evaluation import PlantedPlan, build_pairs, score_maps
from xfr_plugin.evaluation.protocols.planted_evidence.scores import maps_of
from xfr_plugin.faces.folder import FaceFolder
from xfr_plugin.faces.lfw import read_people
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.features import extract, layers_by_size, with_kept_maps

Images = tuple[Tensor, Tensor]
COUNT = 8


class FaceNet(nn.Module):
    """Faces N×3×56×48 to embeddings N×7, with maps of 28 and 14 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.second = nn.Conv2d(5, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 7)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(images - 0.5))))
        embedding: Tensor = self.fc(x.square().mean(dim=(2, 3)))
        return embedding


@pytest.fixture(scope="module")
def face_recognizer() -> Recognizer:
    torch.manual_seed(6)
    return Recognizer(FaceNet(), input_size=SIZE, threshold=0.3, name="toy faces").double()


@pytest.fixture(scope="module")
def model(face_recognizer: Recognizer) -> EvidenceModel:
    return toy_evidence(face_recognizer, torch.rand(1, 3, *SIZE))


@pytest.fixture(scope="module")
def pair() -> Images:
    return faces()


def looped(model: EvidenceModel, answers: Answers, areas: list[float], margin: float) -> list[float]:
    """The rule of `evidence_model`, a region at a time, of one face."""
    present = [r for r in range(COUNT) if areas[r] > 0]
    total = sum(areas)
    hypotheses = {
        "differs": [float(answers.differs[0, r] - answers.differs[0, COUNT]) for r in range(COUNT)],
        "alike": [float(answers.alike[0, r] - answers.alike[0, COUNT]) for r in range(COUNT)],
    }
    mass = 1 + sum(math.exp(logits[r]) for logits in hypotheses.values() for r in present)
    likely = {name: [math.exp(logits[r]) / mass for r in range(COUNT)] for name, logits in hypotheses.items()}
    stands_out = [0.0] * COUNT
    for r in present:
        alike, differs = likely["alike"][r], likely["differs"][r]
        effect = alike * model.card.alike - differs * model.card.differs
        stands_out[r] = len(present) * areas[r] / total * effect
    rest = margin - sum(stands_out)
    share = max(0.0, (1 / mass - 0.3) / 0.7)
    changes, against = (answers.loss, likely["differs"]) if rest > 0 else (answers.gain, likely["alike"])
    expected = [
        max(0.0, float(changes[0, r])) * (1 - against[r] / max(against)) + 1e-3 * areas[r] / total
        if r in present
        else 0.0
        for r in range(COUNT)
    ]
    return [
        stands_out[r] + rest * ((1 - share) * areas[r] / total + share * expected[r] / sum(expected))
        for r in range(COUNT)
    ]


@pytest.mark.parametrize("margin", [0.4, -0.4])
@pytest.mark.parametrize("none", [-2.0, 3.0])
def test_the_rule_is_the_one_that_is_written_down(model: EvidenceModel, margin: float, none: float) -> None:
    generator = torch.Generator().manual_seed(3)
    differs, alike = torch.randn(2, 1, COUNT + 1, generator=generator, dtype=torch.float64)
    differs[:, -1] = alike[:, -1] = none
    gain, loss = 0.1 * torch.randn(2, 1, COUNT, generator=generator, dtype=torch.float64)
    areas = [40.0, 30.0, 0.0, 50.0, 60.0, 70.0, 20.0, 90.0]
    differs[0, 2] = alike[0, 2] = -torch.inf
    answers = Answers(differs, alike, gain, loss)
    found = model.evidence(
        answers, torch.tensor([areas], dtype=torch.float64), torch.tensor([margin], dtype=torch.float64)
    )
    assert found[0].tolist() == pytest.approx(looped(model, answers, areas, margin), abs=1e-12)
    assert float(found.sum()) == pytest.approx(margin)
    assert found[0, 2] == 0


def test_maps_sum_to_the_margin_and_are_drawn_from_the_regions(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    attribution = Amortised(face_recognizer, network=model)
    maps, delta = attribution.attribute(pair, return_convergence_delta=True)
    assert float(delta.abs().max()) < 1e-12
    units = [face_recognizer.embed(side) for side in pair]
    margins = (units[0] * units[1]).sum(dim=1) - 0.3
    for side, answers in zip(maps, attribution.regional(pair), strict=True):
        torch.testing.assert_close(side.sum(dim=(1, 2, 3)), margins)
        for values, answer in zip(side.sum(dim=1), answers, strict=True):
            for mask, evidence in zip(answer.regions.masks, answer.evidence, strict=True):
                assert float(values[torch.from_numpy(mask)].sum()) == pytest.approx(
                    float(evidence), abs=1e-12
                )


def test_answers_are_the_mean_of_the_faces_and_their_mirror_images(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    attribution = Amortised(face_recognizer, network=model)
    (answer, _), _ = attribution.regional(pair)
    mask = torch.from_numpy(np.stack([r.regions.masks for r in (answer, attribution.regional(pair)[1][0])]))
    predicted = []
    for turn in (lambda x: x, lambda x: x.flip(-1)):
        one = tuple(turn(side[:1]) for side in pair)
        features = extract(face_recognizer, torch.cat(one), model.layers)
        masks = turn(mask).double()
        present = torch.ones(1, COUNT, dtype=torch.bool)
        with torch.no_grad():
            predicted.append(model.network(features[:1], features[1:], (masks[:1], masks[1:]), present))
    torch.testing.assert_close(
        answer.answers.differs, (predicted[0].differs + predicted[1].differs).double() / 2
    )
    torch.testing.assert_close(answer.answers.gain, (predicted[0].gain + predicted[1].gain).double() / 2)


def test_errors_are_the_spread_under_changes_that_mean_nothing(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    attribution = Amortised(face_recognizer, network=model)
    one = (pair[0][:1], pair[1][:1])
    maps, errors = attribution.attribute_with_errors(one)
    torch.testing.assert_close(maps, attribution.attribute(one))
    assert errors is not None
    (probe,), (reference,) = attribution.regional(one)
    for answer, found in zip((probe, reference), errors, strict=True):
        shown = {name for name, area in answer.regions.labels.areas().items() if area}
        assert found.keys() == shown
        assert all(0 < error < 1 for error in found.values())
    by_template = Amortised(face_recognizer, network=model, regions="template")
    assert by_template.attribute_with_errors(one)[1] is None


def test_it_explains_pairs_of_images_by_modules_it_knows(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    with pytest.raises(InputError, match="compares two images"):
        Amortised(face_recognizer, network=model).attribute(
            pair[0], additional_forward_args=face_recognizer.embed(pair[1])
        )
    with pytest.raises(InputError, match="torch module"):
        Amortised(lambda images: images.flatten(1), 0.3, network=model)
    with pytest.raises(InputError, match="no evidence network ships"):
        Amortised(face_recognizer)
    with pytest.raises(InputError, match="pass network"):
        Amortised(FaceNet(), 0.3)
    with pytest.raises(InputError, match="regions must be"):
        Amortised(face_recognizer, network=model, regions="own")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InputError, match="no module 'first'"):
        Amortised(nn.Flatten(), 0.3, network=model).attribute(pair)


def test_feature_maps_are_read_without_hooks_on_the_network(
    face_recognizer: Recognizer, pair: Images
) -> None:
    """So that two threads can read one recognizer, and nothing is left behind by an error."""
    hooked = []
    handle = face_recognizer.network.first.register_forward_hook(
        lambda module, _inputs, _output: hooked.append(
            [len(inner._forward_hooks) for inner in face_recognizer.modules()]
        )
    )
    reader, kept = with_kept_maps(face_recognizer, ["first", "second"])
    units = reader(pair[0])
    handle.remove()
    assert sum(hooked[0]) == 1, "the user's own hook runs, and is the only one"
    assert kept["second"].shape[:2] == (len(pair[0]), 6)
    torch.testing.assert_close(units, face_recognizer(pair[0]))
    with torch.no_grad():  # weights are shared, not copied
        face_recognizer.network.first.bias.add_(1)
        torch.testing.assert_close(reader(pair[0]), face_recognizer(pair[0]))
        face_recognizer.network.first.bias.sub_(1)


def test_a_network_without_maps_is_named(pair: Images) -> None:
    with pytest.raises(InputError, match="no feature maps"):
        layers_by_size(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 4)).double(), pair[0])


def test_files_come_back_as_they_were(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images, tmp_path: Path
) -> None:
    path = tmp_path / "e.safetensors"
    save_evidence(model, path)
    again = load_evidence(path, face_recognizer)
    assert again.card == model.card
    expected = Amortised(face_recognizer, network=model).attribute(pair)
    found = Amortised(face_recognizer, network=path).attribute(pair)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=5e-2)  # 16 bits
    other = load_recognizer("xfr_compact128")
    with pytest.raises(InputError, match="trained for recognizer 'toy faces'"):
        load_evidence(path, other)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state, card: (state, {}), "holds no evidence network"),
        (lambda state, card: (state, {"evidence": {**card, "width": -1}}), "damaged card"),
        (lambda state, card: (state, {"evidence": {**card, "width": 12}}), "does not fit"),
        (
            lambda state, card: ({**state, "names": state["names"] * math.nan}, {"evidence": card}),
            "not finite",
        ),
    ],
)
def test_other_files_are_refused(
    model: EvidenceModel,
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor], dict[str, object]], tuple[dict[str, Tensor], dict[str, object]]],
    message: str,
) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_evidence(model, good)
    state, metadata = weights.read_weights(good)
    weights.write_weights(bad, *damage(state, metadata["evidence"]))
    with pytest.raises(WeightsError, match=message):
        load_evidence(bad)


def test_its_network_is_found_for_the_recognizer_it_was_trained_for() -> None:
    shipped = load_recognizer("xfr_compact128")
    assert find_evidence(shipped).card.recognizer == "xfr_compact128"
    with torch.no_grad():
        next(shipped.parameters()).mul_(1.01)  # of the same name, but another
    assert evidence_file(shipped) is None


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["xfr_compact128", pytest.param("mobilefacenet_ms1m", marks=pytest.mark.slow)]
)
def test_shipped_networks_point_at_planted_regions(name: str, faces_root: Path) -> None:
    """Of people that it was not trained on; docs/results.md has the figures of many more."""
    recognizer = load_recognizer(name)
    folder = FaceFolder(faces_root / "lfw112", recognizer.input_size)
    people = folder.photos_of(read_people(faces_root / "peopleDevTest.txt"), "dev")
    plan = PlantedPlan(count=28, pairs=False, strengths=(), controls=False, seed=5)
    plantings = plan.draw(people, folder.regions)
    pairs = build_pairs(recognizer, folder.folder, plantings, folder.regions)
    maps = maps_of(Amortised(recognizer).attribute, pairs, recognizer)
    for scores in (
        score_maps("amortised", maps[0], pairs, "probe"),
        score_maps("amortised", maps[1], pairs, "reference"),
    ):
        moved = [score for score in scores if score.moved > 0.1]
        assert len(moved) >= 12
        # it was taught when the eyes were their lids and the sockets belonged to the cheeks
        assert np.mean([score.auc for score in moved]) > 0.75
        assert np.mean([score.hit for score in moved]) > 0.6
