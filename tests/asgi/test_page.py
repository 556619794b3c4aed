"""The page's server: what it adds to the service, who may ask it, and what it refuses."""

from __future__ import annotations

import base64
import io
import re
from importlib import resources
from typing import Any

import numpy as np
import pytest
from helpers.serving_faces import crops, encoded, photographs
from PIL import Image
from skimage import data

pytest.importorskip("fastapi", reason="FastAPI is not installed")

import httpx
from helpers.shells import within

from xfr_plugin.asgi import page
from xfr_plugin.asgi.page import make_page
from xfr_plugin.explanation.words import component_name
from xfr_plugin.faces.regions import REGION_NAMES
from xfr_plugin.service import Deployment, ExplanationService, Limits


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    limits = Limits(json_bytes=400_000, image_bytes=300_000, deadline_ms=None)
    return ExplanationService(Deployment(limits=limits))


def ask(service: ExplanationService, method: str, path: str, **more: Any) -> httpx.Response:
    found: httpx.Response = within(
        make_page(service, "secret"), lambda client: client.request(method, path, **more)
    )
    return found


def pair(first: int = 0, second: int = 1, **more: Any) -> dict[str, Any]:
    images = [base64.b64encode(crops()[index]).decode() for index in (first, second)]
    return {"probe": images[0], "reference": images[1], **more}


@pytest.mark.parametrize(("name", "kind"), [("", "html"), ("page.css", "css"), ("page.js", "javascript")])
def test_the_pages_files_are_open_and_load_nothing_from_elsewhere(
    service: ExplanationService, name: str, kind: str
) -> None:
    response = ask(service, "GET", f"/page/{name}", headers={"Authorization": ""})
    assert response.status_code == 200
    assert kind in response.headers["content-type"]
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"https?://[\w.]+", response.text) in ([], ["http://www.w3.org"])
    assert not re.search(r"<script>|<style|\son\w+=|style=", response.text)


@pytest.mark.parametrize(
    "path", ["/web/start", "/web/faces", "/web/matches", "/web/report", "/predictions/xfr"]
)
@pytest.mark.parametrize("header", ["", "Bearer secretly", "secret", "Bearer \xff"])
def test_all_else_needs_the_token(service: ExplanationService, path: str, header: str) -> None:
    method = "GET" if path.endswith("start") else "POST"
    response = ask(service, method, path, headers={"Authorization": header.encode("latin-1")})
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_start_names_regions_and_methods_and_brings_samples(service: ExplanationService) -> None:
    told = ask(service, "GET", "/web/start").json()
    assert told["method"] == service.method
    assert set(told["methods"]) <= set(service.deployment.methods)
    assert told["regions"] == {name: component_name(name) for name in REGION_NAMES}
    first, second = (_pixels(text) for text in told["samples"]["people"])
    bare, covered = (_pixels(text) for text in told["samples"]["sunglasses"])
    assert np.abs(first - second).mean() > 10
    changed = np.abs(bare - covered).max(axis=2) > 30
    assert 0.02 < changed.mean() < 0.3
    assert changed[: changed.shape[0] * 3 // 4].sum() == changed.sum()


def test_samples_are_no_donors(service: ExplanationService) -> None:
    """A face that is replaced by itself would lose nothing."""
    from xfr_plugin.attr import LeaveOneOut

    assert min(page._SAMPLES) >= LeaveOneOut(service.recognizer, 0.0).donors


def test_the_sunglasses_argue_against_where_they_are(service: ExplanationService) -> None:
    """What hides the eyes costs the score, and the sample shows it there."""
    told = ask(service, "GET", "/web/start").json()
    photos = dict(zip(("probe", "reference"), told["samples"]["sunglasses"], strict=True))
    answer = ask(service, "POST", "/explanations/xfr", json={**photos, "returns": ["regions"]}).json()
    table = answer["explanation"]["reference"]["regions"]
    lowest = sorted(table, key=lambda region: region["evidence"])[:3]
    assert {"right_eye", "left_eye"} <= {region["region"] for region in lowest}
    assert all(region["evidence"] < 0 for region in lowest)


def _pixels(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(float)


def test_faces_of_a_photograph_and_their_regions(service: ExplanationService) -> None:
    photo = np.asarray(data.astronaut())
    two = np.concatenate([photo[::2, ::2], photo[::2, ::2]], axis=1)
    found = ask(service, "POST", "/web/faces", content=encoded(two, "JPEG")).json()
    assert len(found["faces"]) == 2
    for face in found["faces"]:
        assert _pixels(face["crop"]).shape == (found["height"], found["width"], 3)
        labels = base64.b64decode(face["labels"])
        assert len(labels) == found["height"] * found["width"]
        assert {"nose", "mouth"} <= {face["names"][label] for label in set(labels)}
    crop = ask(service, "POST", "/web/faces", content=crops()[0]).json()["faces"]
    assert (_pixels(crop[0]["crop"]) == _pixels(base64.b64encode(crops()[0]).decode())).all()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"no image", 415, "not_an_image"),
        (bytes(1_000_000), 413, "too_large"),
        (encoded(np.full((200, 200, 3), 127, np.uint8)), 422, "no_face"),
        (encoded(np.zeros((20, 2000, 3), np.uint8)), 413, "too_large"),
        (b"", 415, "not_an_image"),
    ],
)
def test_photographs_that_are_refused(
    service: ExplanationService, body: bytes, status: int, code: str
) -> None:
    response = ask(service, "POST", "/web/faces", content=body)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"probe": pair()["probe"]}, 400, "malformed"),
        ({"probe": pair()["probe"], "reference": [1.0] * 128}, 400, "malformed"),
        ({"probe": "/etc/passwd", "reference": "x"}, 400, "malformed"),
        (pair(method="occlusion"), 403, "not_allowed"),
        ({"probe": "A" * 600_000, "reference": "x"}, 413, "too_large"),
    ],
)
@pytest.mark.parametrize("path", ["/web/matches", "/web/report"])
def test_pairs_that_are_refused(
    service: ExplanationService, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    response = ask(service, "POST", path, json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_which_part_goes_with_which(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions by name, with what they bring; by Shapley values, on the faces that were chosen."""
    from xfr_plugin.explanation import matches

    asked: dict[str, Any] = {}
    quick = matches.match_regions

    def remember(**given: Any) -> Any:
        asked.update(given)
        return quick(**{**given, "by": "bilrp"})

    monkeypatch.setattr(matches, "match_regions", remember)
    found = ask(service, "POST", "/web/matches", json=pair()).json()
    assert asked["by"] == "shapley"
    assert asked["recognizer"] is service.recognizer
    assert {row["probe"] for row in found["pairs"]} <= set(REGION_NAMES)
    values = [abs(row["value"]) for row in found["pairs"]]
    assert values == sorted(values, reverse=True)


@pytest.mark.slow
def test_the_report_and_the_matches_in_full(service: ExplanationService) -> None:
    response = ask(service, "POST", "/web/report", json=pair())
    assert response.status_code == 200, response.text
    assert "xfr report PROBE REFERENCE" in response.text
    assert "<script" not in response.text
    pairs = ask(service, "POST", "/web/matches", json=pair()).json()["pairs"]
    assert len(pairs) == page._LINES


def test_slow_work_ends_at_the_deadline() -> None:
    limited = ExplanationService(Deployment(limits=Limits(deadline_ms=1)))
    response = ask(limited, "POST", "/web/faces", content=photographs()[0])
    assert (response.status_code, response.json()["code"]) == (504, "deadline")


def test_errors_that_are_not_ours_tell_nothing(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(page, "decode_photo", fail)
    response = ask(service, "POST", "/web/faces", content=crops()[0])
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "inside" not in response.text


def test_the_page_is_in_the_package_and_small() -> None:
    folder = resources.files("xfr_plugin.asgi") / "static"
    names = ("page.html", "page.css", "page.js")
    assert sum(len((folder / name).read_text(encoding="utf-8").splitlines()) for name in names) <= 680
