"""The service answers with recognizers of a user's own: files, functions, and such as give scores only."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.own_recognizers import KINDS, forget, own_deployment
from helpers.serving_faces import crops

from xfr_plugin.errors import InputError
from xfr_plugin.service import Deployment, ExplanationService, ServiceError, parse_request, self_test


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pooled pixels take all faces for one
        yield tmp_path
    forget()


def asked(service: ExplanationService, **document: object) -> float:
    """The threshold that two crops of one face are decided at, which match."""
    given = {"probe": crops()[0], "reference": crops()[0], "alignment": "aligned", **document}
    answer = service.answer(parse_request(given), explain=True)
    assert answer.decision.match
    assert answer.explanation is not None
    return answer.decision.threshold


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_passes_the_self_test_and_explains(kind: str, folder: Path) -> None:
    service = ExplanationService(own_deployment(kind, folder))
    same, noise = self_test(service, service.input_size)
    assert same.decision.match
    assert noise.decision.score < same.decision.score
    assert asked(service) == same.decision.threshold


def test_thresholds_have_the_scale_of_the_scores(folder: Path) -> None:
    service = ExplanationService(own_deployment("scores", folder).model_copy(update={"threshold": 95.0}))
    assert asked(service) == 95
    assert asked(service, threshold=80) == 80
    row = [0.1] * 128
    for document in ({"reference": row}, {"gallery": {"embeddings": [row]}}):
        with pytest.raises(ServiceError, match="send two images"):
            service.answer(parse_request({"probe": crops()[0], **document}))


def test_thresholds_of_embeddings_are_cosines() -> None:
    with pytest.raises(InputError, match="cosine"):
        ExplanationService(Deployment(threshold=2))
    request = parse_request({"probe": crops()[0], "reference": crops()[1], "threshold": 7})
    (reply,) = ExplanationService().answer_all([request], [False])
    assert getattr(reply, "status", None) == 400
