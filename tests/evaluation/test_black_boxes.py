"""Methods are judged on recognizers that give no gradient, and on such as give scores only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.evaluation_faces import judge, small_recognizer, write_faces
from torch import Tensor, nn

from xfr_plugin.evaluation import PlantedPlan, evaluate
from xfr_plugin.evaluation.protocols.natural import Natural
from xfr_plugin.recognition import Recognizer, load_recognizer

SOME = ("deletion", "infidelity", "patch_replacement", "stability")


def embeddings_only() -> Recognizer:
    inner = small_recognizer()
    return Recognizer.from_callable(
        lambda faces: inner.embed(faces).numpy(), input_size=(24, 20), threshold=0.2
    )


def scores_only() -> Recognizer:
    inner = small_recognizer()

    def score(probes: Tensor, references: Tensor) -> Tensor:
        return torch.cosine_similarity(inner.embed(probes), inner.embed(references))

    made = Recognizer.from_scores(score, input_size=(24, 20), threshold=0.2)
    made.tested = True  # an untrained network takes all faces of nobody for one person, which is a warning
    return made


@pytest.mark.parametrize("make", [embeddings_only, scores_only])
def test_numbers_are_those_of_the_network(make: object, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", photos=3)
    assert callable(make)
    results = [
        judge(
            tmp_path / "faces",
            tmp_path / name,
            recognizer=recognizer,
            methods=("mery_avg", "xssab"),
            protocols=SOME,
            limit=2,
            chance=False,
        )
        for name, recognizer in (("black", make()), ("torch", small_recognizer()))
    ]
    black, torch_own = (
        {
            (r.pair, r.protocol, r.variant, r.metric, r.at): r.value
            for r in found.records
            if r.method == "mery_avg" and r.protocol not in ("cost", "agreement")
        }
        for found in results
    )
    assert black.keys() == torch_own.keys()
    assert len(black) > 50
    for key, value in black.items():
        assert value == pytest.approx(torch_own[key], abs=1e-2, nan_ok=True), key
    assert not [r for r in results[0].records if r.method == "xssab" and r.protocol != "cost"]


def scores_of_scale(unit: float) -> Recognizer:
    """Likeness in units of its own, and with a zero of its own."""
    inner = small_recognizer()

    def score(probes: Tensor, references: Tensor) -> Tensor:
        cosines = torch.cosine_similarity(inner.embed(probes), inner.embed(references))
        return unit * (cosines - 1)

    made = Recognizer.from_scores(score, input_size=(24, 20), threshold=-0.8 * unit)
    made.tested = True  # as above
    return made


def test_bounds_of_changes_have_the_scale_of_the_scores(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", photos=3)
    found = []
    for unit in (0.02, 50.0):
        results = judge(
            tmp_path / "faces",
            tmp_path / f"out {unit:g}",
            recognizer=scores_of_scale(unit),
            methods=("mery_avg",),
            protocols=("planted", "paired", "occluders"),
            options={"mery_avg": {"strategy": "removal"}},
            limit=4,
            plan=PlantedPlan(count=4, pairs=False, strengths=()),
            chance=False,
        )
        moved = {
            pair: round(float(str(facts["moved"])), 3)
            for pair, facts in results.facts.items()
            if "moved" in facts
        }
        judged = sorted(
            (r.pair, r.protocol, r.variant) for r in results.records if r.metric in ("chance", "moves")
        )
        found.append((moved, judged, {r.value for r in results.records if r.metric == "moves"}))
    assert found[0] == found[1]
    assert found[0][2] == {0, 1}, "some occluders move the score, others do not"


def leaves_torch() -> Recognizer:
    """A network of torch in which something computes that can be neither copied nor traced."""
    inner = small_recognizer()

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.session, self.scale = threading.Lock(), nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            with self.session:
                return torch.from_numpy(inner.network(images.detach()).detach().numpy())

    return Recognizer(Held(), input_size=(24, 20), threshold=0.2)


@pytest.mark.parametrize("make", [embeddings_only, scores_only, leaves_torch])
def test_every_protocol_judges_or_says_why_not(make: Callable[[], Recognizer], tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", photos=3)
    results = judge(
        tmp_path / "faces",
        tmp_path / "out",
        recognizer=make(),
        methods=("mery_avg",),
        protocols="all",  # without photographs as they were taken, as there are none here
        limit=1,
        plan=PlantedPlan(count=1, pairs=False, strengths=()),
        chance=False,
    )
    errors = {failure.protocol: failure.error for failure in results.failures}
    assert "no parameters to randomise" in errors.pop("randomisation")
    assert errors == {}
    judged = {record.protocol for record in results.records}
    assert judged >= {"deletion", "insertion", "planted"}


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_black_box_is_judged_by_every_judge(
    xfr_data: Path, faces_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    results = evaluate(
        faces_root,
        faces_root / "pairsDevTest.txt",
        tmp_path,
        methods=("leave_one_out", "xssab"),
        protocols=(
            "planted",
            "paired",
            "occluders",
            "photographs",
            "worn",
            Natural(strangers=2),
            "deletion",
            "insertion",
        ),
        recognizer=load_recognizer(xfr_data / "weights/openvino/face-reidentification-retail-0095.xml"),
        threshold=0.35,
        split="dev",
        limit=2,
        plan=PlantedPlan(count=1, pairs=False, strengths=()),
        chance=False,
    )
    judged = {record.protocol for record in results.records if record.method == "leave_one_out"}
    assert judged >= {
        "planted",
        "paired",
        "occluders",
        "photographs",
        "worn",
        "natural",
        "deletion",
        "insertion",
    }
    refused = {failure.method for failure in results.failures}
    assert refused == {"xssab"}  # which needs a gradient, and says so
    (row,) = [r for r in results.summary() if r[:5] == ("natural", "genuine", "strangers", "density", None)
              and r.method == "leave_one_out"]  # fmt: skip
    assert row.mean > 0
