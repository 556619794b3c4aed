"""The explanation service: one call, right answers, and neighbours in a batch that do not touch each other."""

from __future__ import annotations

import base64
import io
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.counting import counted
from helpers.serving_faces import crops, photographs
from PIL import Image

from xfr_plugin.attr.registry import METHODS
from xfr_plugin.errors import InputError
from xfr_plugin.explanation.api import explain
from xfr_plugin.explanation.pipeline import Face, FacePair, decide_pair
from xfr_plugin.recognition import backends
from xfr_plugin.recognition.black_boxes import BlackBox
from xfr_plugin.service import (
    Answer,
    Deployment,
    ErrorBody,
    ExplanationService,
    Limits,
    SelfTestError,
    ServiceError,
    parse_request,
    read_deployment,
    reply_from_json,
    self_test,
)
from xfr_plugin.service.costs import CostBook
from xfr_plugin.service.explaining import Explainers

BATCHABLE = METHODS.names(lambda method: method.batchable)


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    return ExplanationService(Deployment(methods="all", reconstructions=True, embeddings=True))


def pair(a: int, b: int, **more: object) -> dict[str, object]:
    return {"id": f"{a}-{b}", "probe": crops()[a], "reference": crops()[b], **more}


def ask(service: ExplanationService, explained: bool = True, **document: object) -> Answer:
    return service.answer(parse_request(document), explain=explained)


def units(answer: Answer) -> dict[str, np.ndarray]:
    assert answer.embeddings is not None
    return {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in answer.embeddings.items()}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_decisions_by_another_runtime_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    made = {}
    for names in ((), (runtime,)):
        monkeypatch.setattr(backends, "runtimes", lambda names=names: names)
        made[names] = ExplanationService()
    torchs, others = made.values()
    assert torchs._models.embedder is torchs.recognizer
    assert isinstance(others._models.embedder.network, BlackBox)
    for a, b in ((0, 0), (0, 1), (2, 3), (4, 5), (6, 7)):
        (expected, found) = (ask(each, False, **pair(a, b)).decision for each in (torchs, others))
        assert found.score == pytest.approx(expected.score, abs=1e-5)
        # at the very threshold, either answer is right
        assert found.match == expected.match or abs(expected.margin) <= 1e-5


@pytest.mark.filterwarnings("ignore::xfr_plugin.errors.FaceWarning")
def test_answers_as_the_library_does(service: ExplanationService) -> None:
    """Photographs, detection and all: the same score, method and evidence as `xfr_plugin.explain`."""
    expected = explain(*photographs(), options={"donors": 2})
    answer = ask(service, probe=photographs()[0], reference=photographs()[1])
    assert answer.decision.score == pytest.approx(expected.verification.score, abs=1e-5)
    assert answer.explanation is not None
    assert answer.explanation.method == expected.method
    assert answer.explanation.options == expected.options
    assert answer.versions.evidence_sha256 is not None
    assert answer.explanation.probe is not None
    assert answer.explanation.probe.regions is not None
    found = [region.evidence for region in answer.explanation.probe.regions]
    assert found == pytest.approx([region.evidence for region in expected.probe.regions], abs=1e-4)
    assert sum(found) == pytest.approx(answer.decision.margin, abs=1e-4)
    errors = [region.error for region in answer.explanation.probe.regions]
    assert [e is None for e in errors] == [region.error is None for region in expected.probe.regions]
    assert any(errors), "interventions have errors"


def test_each_answer_in_a_batch_belongs_to_its_request(service: ExplanationService) -> None:
    requests = [parse_request(pair(i, (3 * i + 1) % 8)) for i in range(8)]
    alone = [service.answer(request, explain=True) for request in requests]
    together = service.answer_all(requests, [True] * 8)
    assert len({round(answer.decision.score, 4) for answer in alone}) == 8
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Answer)
        assert other.id == one.id
        assert other.batch_size == 8
        assert other.decision.score == pytest.approx(one.decision.score, abs=1e-5)
        assert other.explanation is not None
        assert one.explanation is not None
        assert other.explanation.words == one.explanation.words


def test_a_batch_is_embedded_in_one_forward(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    network = service._models.embedder.network
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda images: (sizes.append(len(images)), forward(images))[1])
    service.answer_all([parse_request(pair(i, i + 1, method="reconstruction")) for i in range(4)], [True] * 4)
    assert sizes == [8], "reconstruction explains without another pass"


def test_a_batch_computes_nothing_twice(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that explains from what embedding showed: one pass, predicted once, all regions found at once."""
    counts = counted(monkeypatch)
    ask(service, **pair(0, 1, method="amortised"))
    assert counts == {"passes": 1, "images": 2, "outlines": 1, "predicted": 1}
    counts.clear()
    asked = [parse_request(pair(i, i + 1, method="amortised")) for i in range(4)]
    replies = service.answer_all(asked, [True] * 3 + [False])
    assert [isinstance(reply, Answer) and reply.explanation is not None for reply in replies] == [
        True,
        True,
        True,
        False,
    ]
    assert counts == {"passes": 1, "images": 8, "outlines": 1, "predicted": 1}


def test_a_service_starts_with_one_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    ExplanationService()
    assert counts["fingerprints"] == 1


def test_bad_items_do_not_harm_their_neighbours(service: ExplanationService) -> None:
    garbage = pair(0, 1) | {"probe": b"no image"}
    blank = pair(0, 1, alignment="detect") | {"probe": crops()[0], "reference": encoded_grey()}
    requests = [parse_request(item) for item in (pair(0, 1), garbage, pair(2, 3), blank, pair(4, 5))]
    replies = service.answer_all(requests, [True, False, True, False, False])
    kinds = [reply.code if isinstance(reply, ErrorBody) else "" for reply in replies]
    assert kinds == ["", "not_an_image", "", "no_face", ""]
    for place, (a, b) in {0: (0, 1), 2: (2, 3), 4: (4, 5)}.items():
        reply = replies[place]
        assert isinstance(reply, Answer)
        assert reply.decision.score == pytest.approx(
            ask(service, False, **pair(a, b)).decision.score, abs=1e-5
        )
        assert (reply.explanation is None) == (place == 4)


def encoded_grey() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), "grey").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_failing_pass_is_tried_again_alone(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One pair that a method fails on does not take the explanations of its batch with it, and is not quoted."""
    poisoned = ask(service, False, **pair(5, 6)).decision.score
    maps = Explainers.maps

    def failing(self: Explainers, method: str, questions: list[FacePair]) -> object:
        scores = [question.verification.score for question in questions]
        if any(abs(score - poisoned) < 1e-4 for score in scores):
            raise RuntimeError("secret of the request")
        return maps(self, method, questions)

    monkeypatch.setattr(Explainers, "maps", failing)
    with caplog.at_level(logging.INFO):
        replies = service.answer_all(
            [parse_request(pair(*ab)) for ab in ((0, 1), (5, 6), (2, 3))], [True] * 3
        )
    assert [type(reply) for reply in replies] == [Answer, ErrorBody, Answer]
    assert replies[1].code == "internal"
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text + replies[1].model_dump_json()


@pytest.mark.parametrize("method", sorted(set(BATCHABLE) - {"fggb", "integrated_gradients"}))
def test_shared_passes_change_no_map(service: ExplanationService, method: str) -> None:
    questions = []
    for a, b in ((0, 1), (2, 3), (4, 4)):
        images = [
            torch.from_numpy(np.asarray(Image.open(io.BytesIO(crops()[i]))) / np.float32(255)) for i in (a, b)
        ]
        stacked = torch.stack([image.permute(2, 0, 1) for image in images])
        recognizer = service._models.recognizer
        probe, reference = (Face(u, x) for u, x in zip(recognizer.embed(stacked), stacked, strict=True))
        questions.append(decide_pair(recognizer, (probe, reference), (0.22, "given")))
    together = service._models.explainers.maps(method, questions)
    for question, maps in zip(questions, together, strict=True):
        (alone,) = service._models.explainers.maps(method, [question])
        for one, other in zip(alone.sides, maps.sides, strict=True):
            assert one is not None
            assert other is not None
            assert np.abs(one - other).max() <= 1e-3 * np.abs(one).max()


def test_threads_do_not_disturb_each_other(service: ExplanationService) -> None:
    """Methods trace, hook and canonize the one network; scores of other threads must not notice."""
    expected = [ask(service, False, **pair(a, 7)).decision.score for a in range(6)]

    def scored(turn: int) -> float:
        options = {"method": ("fggb", "lrp", "gradcam")[turn % 3]} if turn % 2 == 0 else {}
        wanted = turn % 2 == 0
        return ask(service, wanted, **pair(turn % 6, 7, returns=["regions"], **options)).decision.score

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scored, range(12)))
    assert found == pytest.approx([expected[turn % 6] for turn in range(12)], abs=1e-5)


def test_stored_embeddings_answer_as_their_images_do(service: ExplanationService) -> None:
    first = ask(service, **pair(0, 2, returns=["embeddings", "regions"], method="reconstruction"))
    stored = units(first)
    document = {"probe": stored["probe"].tolist(), "reference": {"embedding": stored["reference"].tobytes()}}
    again = ask(service, returns=["regions"], **document)
    assert again.decision.score == pytest.approx(first.decision.score, abs=1e-6)
    assert again.explanation is not None
    assert again.explanation.replaced is not None
    assert again.explanation.replaced.asked == "leave_one_out", "which changes images"
    assert first.explanation is not None
    for side in ("probe", "reference"):
        found, expected = (getattr(e.explanation, side).regions for e in (again, first))
        assert [r.evidence for r in found] == pytest.approx([r.evidence for r in expected], abs=1e-5)


def test_an_image_against_a_stored_embedding_has_the_map_that_it_has_in_the_pair(
    service: ExplanationService,
) -> None:
    first = ask(service, **pair(0, 2, returns=["embeddings", "regions"]))
    answer = ask(service, returns=["regions"], probe=crops()[0], reference=units(first)["reference"].tolist())
    assert answer.explanation is not None
    assert first.explanation is not None
    assert answer.explanation.method == "leave_one_out"
    assert answer.explanation.reference is None
    assert answer.explanation.probe is not None
    assert first.explanation.probe is not None
    found, expected = (side.regions for side in (answer.explanation.probe, first.explanation.probe))
    assert [r.evidence for r in found or ()] == pytest.approx([r.evidence for r in expected or ()], abs=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
def test_gradient_methods_explain_the_image_of_a_pair_with_an_embedding(
    service: ExplanationService, swapped: bool
) -> None:
    stored = units(ask(service, False, **pair(0, 2, returns=["embeddings"])))["reference"].tolist()
    sides = {"probe": crops()[0], "reference": stored}
    if swapped:
        sides = {"probe": stored, "reference": crops()[0]}
    answer = ask(service, method="xssab", returns=["regions", "faithfulness"], **sides)
    assert answer.explanation is not None
    assert (answer.explanation.probe is None) == swapped
    assert (answer.explanation.reference is None) == (not swapped)
    assert answer.explanation.faithfulness is not None
    with pytest.raises(ServiceError, match="needs an image") as caught:
        ask(service, method="xssab", probe=stored, reference=stored)
    assert caught.value.status == 422


def test_gallery_explains_the_best_against_the_runner_up(service: ExplanationService) -> None:
    stored = [units(ask(service, False, **pair(i, i, returns=["embeddings"])))["probe"] for i in range(6)]
    gallery = {"embeddings": [e.tolist() for e in stored], "ids": [f"p{i}" for i in range(6)], "top": 3}
    answer = ask(service, probe=crops()[4], gallery=gallery)
    assert answer.candidates is not None
    scores = np.array([float(stored[4] @ e) for e in stored])
    assert [c.index for c in answer.candidates] == np.argsort(-scores)[:3].tolist()
    best = answer.candidates[0]
    assert (best.id, best.against) == ("p4", answer.candidates[1].index)
    assert best.decision == answer.decision
    for candidate in answer.candidates:
        assert candidate.explanation is not None
        assert candidate.explanation.probe is not None
        assert candidate.explanation.probe.regions is not None
        total = sum(region.evidence for region in candidate.explanation.probe.regions)
        assert total == pytest.approx(candidate.lead, abs=1e-4)
    packed = {"embeddings": np.stack(stored).tobytes(), "top": 1}
    assert ask(service, False, probe=crops()[4], gallery=packed).decision.score == pytest.approx(1, abs=1e-5)


def test_everything_that_can_be_returned(service: ExplanationService) -> None:
    returns = ["regions", "maps", "overlay", "words", "faithfulness", "reconstructions", "embeddings"]
    answer = ask(service, **pair(0, 1, returns=returns))
    assert answer.explanation is not None
    assert answer.explanation.probe is not None
    for text in (
        answer.explanation.probe.map_png,
        answer.explanation.probe.overlay_png,
        answer.explanation.probe.reconstruction_png,
    ):
        assert text is not None
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (112, 112)
    assert answer.explanation.faithfulness is not None
    assert answer.explanation.words is not None
    assert any("the score" in sentence for sentence in answer.explanation.words)
    numbers = ask(service, **pair(0, 1, returns=["maps"], map_format="float32"))
    assert numbers.explanation is not None
    assert numbers.explanation.probe is not None
    document = numbers.explanation.probe.map_float32
    assert document is not None
    values = np.frombuffer(base64.b64decode(document.float32), "<f4")
    assert values.sum() == pytest.approx(numbers.decision.margin, abs=1e-3)
    assert reply_from_json(answer.model_dump_json()) == answer
    assert {"faces", "embed", "decide", "explain", "render", "check", "total"} <= set(answer.timings_ms)


def test_a_deadline_replaces_the_method(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(service._models.costs._seconds, ("xface", False), 1000.0)
    answer = ask(service, **pair(0, 1, method="xface", deadline_ms=60_000))
    assert answer.explanation is not None
    assert answer.explanation.replaced is not None
    assert answer.explanation.replaced.asked == "xface"
    assert answer.explanation.method == answer.explanation.replaced.used == "leave_one_out"
    assert "method_replaced" in {warned.code for warned in answer.warnings}


def test_the_pairs_of_a_gallery_share_its_deadline(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        service._models.costs._seconds, ("xface", True), 30.0
    )  # which fits once, but not twice
    stored = [units(ask(service, False, **pair(i, i, returns=["embeddings"])))["probe"] for i in range(2)]
    gallery = {"embeddings": [e.tolist() for e in stored], "top": 1}
    answer = ask(service, probe=crops()[0], gallery=gallery, method="xface", deadline_ms=60_000)
    assert answer.candidates is not None
    assert answer.candidates[0].explanation is not None
    assert answer.candidates[0].explanation.replaced is not None
    assert answer.candidates[0].explanation.replaced.asked == "xface"
    assert "method_replaced" in {warned.code for warned in answer.warnings}


def test_a_deadline_that_cannot_be_kept_is_an_error_of_its_own(service: ExplanationService) -> None:
    late, fine = service.answer_all(
        [parse_request(pair(0, 1, deadline_ms=1)), parse_request(pair(2, 3))], [True, True]
    )
    assert isinstance(late, ErrorBody)
    assert (late.code, late.status, late.id) == ("deadline", 504, "0-1")
    assert isinstance(fine, Answer)


def test_the_best_known_method_that_fits_replaces_another() -> None:
    book, possible = CostBook(0.01), ("xssab", "reconstruction", "amortised", "lrp")
    assert book.faster((*possible, "leave_one_out"), 10.0) == "leave_one_out"
    assert book.faster(possible, 1.0) == "reconstruction"
    assert book.faster(("lrp", "xssab"), 1.0) == "xssab"
    assert book.faster(possible, 0.001) is None


def test_costs_are_learnt() -> None:
    book = CostBook(0.01)
    assert book.fits("xssab", 1.0)
    for _ in range(20):
        book.learn("xssab", 5.0)
    assert book.estimate("xssab") == pytest.approx(5.0, rel=0.02)
    assert not book.fits("xssab", 6.0)  # half of its time to spare
    assert book.fits("xssab", 9.0)
    assert not book.fits("xssab", 1.0)
    assert book.faster(["xssab", "gradcam", "fggb"], 1.0) == "gradcam"
    assert book.faster(["fggb"], 0.1) is None


def test_every_method_has_a_cost() -> None:
    book = CostBook(0.01)
    for name, method in METHODS.items():
        assert method.relative_cost > 0
        assert book.estimate(name) == pytest.approx(0.01 * method.relative_cost)


@pytest.mark.parametrize(
    "asked",
    [{"returns": ["reconstructions"]}, {"returns": ["embeddings"]}, {"method": "fggb"}, {"fmr": 0.01}],
)
def test_what_the_deployment_does_not_allow(asked: dict[str, object]) -> None:
    strict = ExplanationService(Deployment(callers_choose_threshold=False))
    with pytest.raises(ServiceError) as caught:
        ask(strict, **pair(0, 1, **asked))
    assert (caught.value.code, caught.value.status) == ("not_allowed", 403)


def test_warnings(service: ExplanationService) -> None:
    score = ask(service, False, **pair(0, 1)).decision.score
    answer = ask(service, False, **pair(0, 1, threshold=score - 0.01))
    assert {"near_threshold", "out_of_calibration", "taken_as_aligned"} <= {w.code for w in answer.warnings}
    dark = Image.open(io.BytesIO(crops()[0])).point(lambda value: value // 8)
    buffer = io.BytesIO()
    dark.save(buffer, "PNG")
    answer = ask(service, False, probe=buffer.getvalue(), reference=crops()[0])
    assert {w.face for w in answer.warnings if w.code == "low_quality"} == {"probe"}


def test_one_picture_twice_says_nothing_of_a_person(service: ExplanationService) -> None:
    """A copy, saved anew, too; but not another photograph."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(crops()[0])).save(buffer, "JPEG", quality=75)
    for other, is_copy in ((crops()[0], True), (buffer.getvalue(), True), (crops()[1], False)):
        answer = ask(service, True, probe=crops()[0], reference=other)
        assert ("same_picture" in {warned.code for warned in answer.warnings}) == is_copy
        assert answer.explanation is not None
        assert ("are one picture" in " ".join(answer.explanation.words or ())) == is_copy


@pytest.mark.parametrize("thrifty", [True, False])
def test_where_time_is_not_dear_a_service_says_what_explain_says(thrifty: bool) -> None:
    service = ExplanationService(Deployment(thrifty=thrifty))
    answer = ask(service, **pair(0, 1, returns=["regions"]))
    local = explain(*crops()[:2], recognizer=service.recognizer, alignment="aligned")
    assert answer.explanation is not None
    assert answer.explanation.probe is not None
    same = answer.explanation.options == local.options
    theirs = [row.evidence for row in answer.explanation.probe.regions or ()]
    assert same != thrifty
    assert (theirs == pytest.approx([row.evidence for row in local.probe.regions], abs=1e-6)) != thrifty


def test_self_test_passes_and_fails(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [answer.decision.match for answer in self_test(service, (112, 112))] == [True, False]
    monkeypatch.setattr(backends, "runtimes", lambda: ())  # or what was exported would go on deciding
    broken = ExplanationService()
    with torch.no_grad():
        for parameter in broken._models.recognizer.parameters():
            parameter.zero_()
    with pytest.raises(SelfTestError):
        self_test(broken, (112, 112))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "nonesuch"},
        {"methods": ["nonesuch"]},
        {"treshold": 0.2},
        {"threshold": float("nan")},
        {"threads": "two"},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="deployment"):
        read_deployment(settings)


def test_limits_of_a_deployment() -> None:
    small = ExplanationService(Deployment(limits=Limits(gallery=2, pixels=10_000)))
    row = np.ones(small.embedding_dim).tolist()
    for document in (
        {"probe": row, "gallery": {"embeddings": [row] * 3}},
        {"probe": crops()[0], "reference": row},
    ):
        with pytest.raises(ServiceError) as caught:
            ask(small, False, **document)
        assert caught.value.status == 413
