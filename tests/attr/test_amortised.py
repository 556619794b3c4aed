"""The fast form: its rule is that of leaving one region out, its files, what it refuses, and what ships."""

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
    LeaveOneOut,
    find_evidence,
    load_evidence,
    region_effects,
)
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.attr.amortised.model import evidence_file, save_evidence
from xfr_plugin.attr.amortised.network import RegionFeatures, region_features
from xfr_plugin.base import weights
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.features import FaceFeatures, layers_by_size, with_kept_maps
from xfr_plugin.swaps.regions import FINE_REGIONS, face_regions
from xfr_plugin.training.faces_data import read_faces

Images = tuple[Tensor, Tensor]


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


def test_from_exact_effects_it_says_what_leaving_out_says(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it can be wrong about are the effects of single faces: pairs, levels and maps follow from them."""
    exact = LeaveOneOut(face_recognizer, donors=2)
    effects = torch.stack([face.effects for face in region_effects(exact, torch.cat(pair))])
    monkeypatch.setattr(model, "effects", lambda _: effects)
    found = Amortised(face_recognizer, network=model).attribute(pair)
    torch.testing.assert_close(found, exact.attribute(pair), atol=1e-9, rtol=1e-6)


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
            own = answer.regions
            assert not answer.evidence[~torch.from_numpy(own.present)].any()
            for mask, evidence in zip(
                own.masks[own.present], answer.evidence[own.present].tolist(), strict=True
            ):
                assert float(values[torch.from_numpy(mask)].sum()) == pytest.approx(evidence, abs=1e-12)


def test_effects_of_a_face_serve_any_partner(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    """A face is looked at once; a gallery is one product. What was said before is said again."""
    attribution = Amortised(face_recognizer, network=model, level="none")
    gallery = face_recognizer.embed(pair[1])
    (probe, _) = attribution.effects(pair[0])
    values = probe.values(gallery)
    for row, stored in zip(values, gallery, strict=True):
        (answer,) = attribution.regional(pair[0][:1], additional_forward_args=stored)[0]
        torch.testing.assert_close(answer.evidence, row)
    torch.testing.assert_close(attribution.effects(pair[0])[0].effects, probe.effects, atol=0, rtol=0)


def test_features_of_a_region_are_means_over_it(pair: Images) -> None:
    images = pair[0]
    regions = face_regions(images, True, FINE_REGIONS)
    units = torch.rand(len(images), 7, dtype=torch.float64)
    known = region_features(FaceFeatures((images,), units), regions)
    for face, own, rows in zip(images, regions, known.rows, strict=True):
        for mask, row in zip(own.masks, rows, strict=True):
            inside = face[:, torch.from_numpy(mask)]
            torch.testing.assert_close(row[:3], inside.mean(dim=1))
            y, x = (torch.from_numpy(places).double() for places in np.nonzero(mask))
            torch.testing.assert_close(row[3], torch.tensor(mask.mean()))
            for place, mean, length in ((y, row[4], SIZE[0]), (x, row[6], SIZE[1])):
                torch.testing.assert_close(mean, (2 * place / (length - 1) - 1).mean())


def test_a_region_that_does_not_show_has_no_effect(model: EvidenceModel, pair: Images) -> None:
    known = RegionFeatures(
        torch.rand(1, 14, 16, dtype=torch.float64),
        torch.rand(1, 7, dtype=torch.float64),
        torch.arange(14)[None] != 3,
    )
    effects = model.effects(known)[0]
    assert not effects[3].any()
    assert bool(effects.any(dim=1)[known.present[0]].all())
    other = RegionFeatures(known.rows.clone(), known.embeddings, known.present)
    other.rows[:, 3] += 1
    torch.testing.assert_close(model.effects(other)[0], effects)


def test_errors_are_those_that_were_measured(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    one = Prepared(pair[0][:1]), Prepared(pair[1][:1])
    plain = Amortised(face_recognizer, network=model, level="none")
    errors = plain.explain_prepared(*one, errors=True).errors
    assert errors is not None
    for own in errors[0]:
        assert list(own.values()) == pytest.approx([0.01] * len(own))
        assert len(own) > 8
    levelled = Amortised(face_recognizer, network=model).explain_prepared(*one, errors=True).errors
    assert levelled is not None
    assert all(0 < error < 0.02 for own in levelled[0] for error in own.values())
    by_template = Amortised(face_recognizer, network=model, regions="template")
    assert by_template.explain_prepared(*one, errors=True).errors is None


def test_it_explains_by_modules_it_knows(
    face_recognizer: Recognizer, model: EvidenceModel, pair: Images
) -> None:
    with pytest.raises(InputError, match="torch module"):
        Amortised(lambda images: images.flatten(1), 0.3, network=model)
    with pytest.raises(InputError, match="torch module"):
        Amortised.from_scores(lambda a, b: (a * b).sum(dim=(1, 2, 3)), 0.3, network=model)
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
    assert with_kept_maps(face_recognizer, [])[0] is face_recognizer  # there is nothing to keep
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
        (lambda state, card: (state, {"evidence": card}), "of an old kind, taught by planted regions"),
        (lambda state, card: (state, {"region_effects": {**card, "width": -1}}), "damaged card"),
        (lambda state, card: (state, {"region_effects": {**card, "width": 12}}), "does not fit"),
        (
            lambda state, card: ({**state, "means": state["means"] * math.nan}, {"region_effects": card}),
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
    weights.write_weights(bad, *damage(state, metadata["region_effects"]))
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
def test_shipped_networks_say_what_leaving_out_says(name: str, faces_root: Path) -> None:
    """Of people that it was not trained on; docs/models/evidence.md has the figures of many more."""
    recognizer = load_recognizer(name)
    pairs = [pair for pair in read_pairs(faces_root / "pairsDevTest.txt") if pair.same][:6]
    files = {"all": [file for pair in pairs for file in (pair.probe, pair.reference)]}
    images = read_faces(faces_root / "lfw112", files, recognizer.input_size).batch(torch.arange(12))
    sides = images[::2], images[1::2]
    found, exact = (
        torch.stack(
            [answer.evidence for side in cls(recognizer, level="none").regional(sides) for answer in side]
        )
        for cls in (Amortised, LeaveOneOut)
    )
    assert float(torch.corrcoef(torch.stack((found.flatten(), exact.flatten())))[0, 1]) > 0.7
