"""Fitting counterfactual evidence: known weights are found again, files are safe, and nothing is collected twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xfr_plugin.attr.counterfactual.model import READINGS, CounterfactualModel, parse_model, shipped_model
from xfr_plugin.attr.counterfactual.readings import PAIR_READINGS
from xfr_plugin.errors import InputError, WeightsError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.swaps.regions import REGIONS
from xfr_plugin.training.counterfactual import (
    Examples,
    fit_model,
    read_examples,
    save_examples,
    train_counterfactual,
)

INFORMATIVE = PAIR_READINGS.index("removal")


def examples(count: int = 400, seed: int = 0) -> Examples:
    """Noise, but for one reading: high in the planted region of the similar game, low in that of the other."""
    rng = np.random.default_rng(seed)
    region = rng.integers(-1, len(REGIONS), count)
    similar = np.arange(count) % 2 == 0
    readings = rng.normal(size=(count, len(REGIONS), len(PAIR_READINGS)))
    planted = np.flatnonzero(region >= 0)
    readings[planted, region[planted], INFORMATIVE] += np.where(similar[planted], 4.0, -4.0)
    effect = np.where(region >= 0, 0.2, 0.0)
    return Examples(readings, np.ones((count, len(REGIONS)), dtype=bool), region, similar, effect)


def test_what_is_informative_gets_the_weight_and_the_planted_region_the_evidence() -> None:
    model = fit_model(examples())
    for game, sign in (("similar", 1), ("dissimilar", -1)):
        weights = sign * np.array(model.hypotheses["pair"][game].weights)
        others = np.delete(weights, INFORMATIVE, axis=1)
        assert weights[:, INFORMATIVE].min() > 2 * np.abs(others).max()
    fresh = examples(seed=1)
    areas = torch.ones(len(REGIONS), dtype=torch.float64)
    evidence = model.evidence("pair", torch.from_numpy(fresh.readings), areas, 0.0).numpy()
    signed = np.where(fresh.similar, 1, -1)[:, None] * evidence
    planted = fresh.region >= 0
    assert (signed.argmax(axis=1) == fresh.region)[planted].mean() > 0.9
    assert signed[planted].max(axis=1).mean() > 1.5 * signed[~planted].max(axis=1).mean()


def test_the_same_examples_give_the_same_model() -> None:
    assert fit_model(examples()) == fit_model(examples())


def test_an_absent_region_gets_no_evidence() -> None:
    readings = torch.zeros(1, len(REGIONS), len(PAIR_READINGS), dtype=torch.float64)
    areas = torch.tensor([40, 30, 0, 50, 60, 70, 20, 10], dtype=torch.float64)
    for form, margin in (("pair", 0.2), ("pair", -0.2), ("alone", 0.1)):
        read = readings[..., : len(READINGS[form])]
        evidence = shipped_model().evidence(form, read, areas, margin)
        assert evidence[0, 2] == 0
        assert evidence.isfinite().all()
        assert float(evidence.sum()) == pytest.approx(margin)


def test_regions_and_untouched_pairs_are_needed() -> None:
    every = examples()
    with pytest.raises(InputError, match="nose"):
        fit_model(every.only(every.region != REGIONS.index("nose")))
    with pytest.raises(InputError, match="collect more"):
        fit_model(every.only(every.region >= 0))


def test_examples_survive_the_disk_and_nothing_else_is_read(tmp_path: Path) -> None:
    every = examples(20)
    save_examples(every, tmp_path / "a.npz")
    again = read_examples(tmp_path / "a.npz")
    for name in ("readings", "present", "region", "similar", "effect"):
        np.testing.assert_array_equal(getattr(again, name), getattr(every, name))
    (tmp_path / "b.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "c.npz", readings=np.array([object()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", **{**vars(every), "readings": every.readings[:, :, :3]})
    for name in ("b", "c", "d", "missing"):
        with pytest.raises(InputError, match=name):
            read_examples(tmp_path / f"{name}.npz")


def test_examples_that_are_there_are_not_collected_again(recognizer: Recognizer, tmp_path: Path) -> None:
    """The folder of faces does not even exist."""
    save_examples(examples(), tmp_path / f"{recognizer.name}.npz")
    out = tmp_path / "model.json"
    model = train_counterfactual(recognizer, tmp_path / "nowhere", tmp_path, publish=out)
    assert model.training == {f"pairs of {recognizer.name}": 400}
    assert parse_model(out.read_text(encoding="utf-8"), "model.json") == model


def test_the_shipped_model_is_whole_and_damaged_ones_are_refused() -> None:
    text = shipped_model().model_dump_json()
    assert parse_model(text, "x") == shipped_model()
    document = json.loads(text)
    document["hypotheses"]["pair"]["similar"]["bias"] = [0.0]
    lacking = json.loads(text)
    del lacking["hypotheses"]["alone"]
    for damaged in ("{", "[]", json.dumps(document), json.dumps(lacking), text.replace('"nose"', '"snout"')):
        with pytest.raises(WeightsError, match="no model"):
            parse_model(damaged, "model.json")
    assert isinstance(shipped_model(), CounterfactualModel)


def test_files_that_call_hypotheses_stories_are_read() -> None:
    """As earlier versions wrote them."""
    text = shipped_model().model_dump_json().replace('"hypotheses"', '"stories"')
    assert parse_model(text, "model.json") == shipped_model()
