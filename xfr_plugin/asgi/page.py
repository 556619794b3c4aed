"""A page for one person at one machine: two photographs, the decision on them, and what argues for it.

The page asks the service for decisions and explanations, as any caller does. What is added here are the page's files,
samples, the faces of a photograph, which part matches which, and the report. Nothing is written to the disk.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from xfr_plugin.asgi.app import OPEN_PATHS, make_app, read_body
from xfr_plugin.asgi.run import listening_at, until_signal
from xfr_plugin.attr.registry import get_method, preferred_methods
from xfr_plugin.base.deadlines import until
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import FaceWarning, NoFaceError
from xfr_plugin.explanation.document import encode_image
from xfr_plugin.explanation.report import build_report
from xfr_plugin.explanation.words import APART, component_name
from xfr_plugin.faces import template_regions
from xfr_plugin.faces.alignment import align, template
from xfr_plugin.faces.outlines import find_regions
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.service.decoding import decode_photo
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.errors import ServiceError, as_service_error
from xfr_plugin.service.limits import MESSAGE_OVERHEAD
from xfr_plugin.service.service import ExplanationService
from xfr_plugin.service.serving import open_service
from xfr_plugin.service.wire import read_message
from xfr_plugin.swaps.donors import composite_faces

__all__ = ["make_page", "serve_page"]

_FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_FACES = 20
_LINES = 10
_BESIDE = ("amortised", "gradcam_plus_plus")
_SAMPLES = (8, 9, 10)
"""The first composites that no method takes for a donor: a face replaced by itself loses nothing. The first gets
sunglasses, the others are two people."""

Work = Callable[[ExplanationService, bytes], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


def serve_page(deployment: Deployment, port: int, said: Callable[[str], Any]) -> None:
    """Serve the page to this machine until SIGINT, SIGTERM or SIGHUP.

    Args:
        deployment: what answers.
        port: 0 for any free one.
        said: called with the page's address, which holds a token that ends with the server.

    Raises:
        InputError: the port is taken.
        XfrError: the deployment does not work.
    """
    token = secrets.token_urlsafe(32)
    with listening_at("127.0.0.1", port) as listening:
        app = make_page(open_service(deployment), token)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/page/#{token}"
        asyncio.run(until_signal(app, listening, lambda: said(url)))


def make_page(service: ExplanationService, token: str) -> FastAPI:
    """The application of the service with the page at `/page/`; all but the page's files need the token."""
    expected, is_open = f"Bearer {token}".encode(), (*OPEN_PATHS, "/page/")
    app = make_app(service, lambda given: hmac.compare_digest(given.encode(), expected), open_paths=is_open)
    gets = {f"/page/{name}": _file(name or "page.html", kind) for name, kind in _FILES.items()}
    started = JSONResponse(_start(service), headers=_HEADERS)
    for path, answer in {**gets, "/web/start": lambda: started}.items():
        app.add_api_route(path, answer, methods=["GET"])
    limits, quick, slow = service.deployment.limits, _in_turn(service, 2), _in_turn(service, 1)
    app.add_api_route("/web/faces", quick(_faces, limits.image_bytes, "the photograph"), methods=["POST"])
    for name, work in (("matches", _matches), ("report", _report)):
        app.add_api_route(f"/web/{name}", slow(work, limits.json_bytes + MESSAGE_OVERHEAD), methods=["POST"])
    return app


def _in_turn(service: ExplanationService, at_once: int) -> Callable[..., Endpoint]:
    """Makes endpoints of work on bodies of so many bytes; so much of it is done at once, within the deadline."""
    turn = asyncio.Semaphore(at_once)

    def endpoint(work: Work, most: int, what: str = "the body") -> Endpoint:
        async def answer(request: Request) -> Response:
            body = await read_body(request, most, what)
            async with turn:
                return await asyncio.to_thread(_done, service, work, body)

        return answer

    return endpoint


def _done(service: ExplanationService, work: Work, body: bytes) -> Response:
    seconds = (service.deployment.limits.deadline_ms or float("inf")) / 1000
    try:
        with until(time.perf_counter() + seconds), ignoring(FaceWarning):
            return work(service, body)
    except ServiceError:
        raise
    except Exception as error:  # each has an answer; what is not ours says no more than its type
        raise as_service_error(error) from error


def _file(name: str, kind: str) -> Callable[[], Response]:
    data = (resources.files("xfr_plugin.asgi") / "static" / name).read_bytes()
    return lambda: Response(data, headers=_HEADERS, media_type=kind)


def _start(service: ExplanationService) -> dict[str, Any]:
    """What the page is told once: names of regions and methods, and the samples."""
    size, allowed = service.input_size, service.deployment.methods
    beside = [name for name in (*(m.name for m in preferred_methods()), *_BESIDE) if name in allowed]
    faces = composite_faces(max(_SAMPLES) + 1, size)[list(_SAMPLES)].permute(0, 2, 3, 1).numpy()
    bare, *two = ((face * 255 + 0.5).astype(np.uint8) for face in faces)
    return {
        "method": service.method,
        "methods": {name: get_method(name).title for name in (service.method, *beside)},
        "regions": {name: component_name(name) for name in template_regions(size).names},
        "apart": sorted(APART),
        "stored": service.deployment.embeddings and service.embedding_dim > 0,
        "samples": {
            "people": [encode_image(face) for face in two],
            "sunglasses": [encode_image(bare), encode_image(_with_sunglasses(bare))],
        },
    }


def _with_sunglasses(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black glasses over an aligned face, which hide eyes and brows wholly: one knows what is missing."""
    height, width = face.shape[:2]
    right, left = fine = template((4 * height, 4 * width))[:2]
    apart = float(np.linalg.norm(fine[0] - fine[1]))
    image = Image.fromarray(face).resize((4 * width, 4 * height), Image.Resampling.BICUBIC)
    draw, black, reach = ImageDraw.Draw(image), (14, 14, 16), np.array([0.55, 0.42]) * apart
    for eye in (right, left):
        draw.rounded_rectangle((*(eye - reach), *(eye + reach)), radius=0.4 * apart, fill=black)
    draw.line(
        (0, right[1] - 0.2 * apart, 4 * width, left[1] - 0.2 * apart), fill=black, width=round(0.09 * apart)
    )
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _faces(service: ExplanationService, data: bytes) -> Response:
    """Faces of a photograph, the largest first: the crop, and the number of the region of each of its pixels."""
    photo, size = decode_photo(data, service.deployment.limits), service.input_size
    crops: list[NDArray[np.uint8]] = [photo]
    if photo.shape[:2] != size:
        found = sorted(FaceDetector()(photo), key=lambda face: -face.box.area)[:_FACES]
        crops = [align(photo, face.landmarks, size) for face in found]
    if not crops:
        raise NoFaceError("no face was found: use a larger, upright, frontal photograph")
    regions = find_regions(torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2) / 255).float())
    labels = [base64.b64encode(own.labels.tobytes()).decode() for own in regions]
    faces = [
        {"crop": encode_image(crop), "labels": label, "names": own.names}
        for crop, label, own in zip(crops, labels, regions, strict=True)
    ]
    return JSONResponse({"height": size[0], "width": size[1], "faces": faces}, headers=_HEADERS)


def _pair(service: ExplanationService, body: bytes) -> tuple[str, dict[str, Any]]:
    """The method that a request on two images asks for, and the pipeline's arguments."""
    settings = service.deployment
    (asked, *more) = read_message({"body": body}, {}, True, settings.limits).requests
    if isinstance(asked, ServiceError):
        raise asked
    if more or asked.probe.image is None or asked.reference is None or asked.reference.image is None:
        raise ServiceError("malformed", "give two images: probe and reference")
    for photo in (asked.probe.image, asked.reference.image):
        decode_photo(photo, settings.limits)  # or it is refused
    method = service.method if asked.method == "auto" else asked.method
    if method not in settings.methods:
        raise ServiceError("not_allowed", "this method is not allowed here")
    photos = {"photo_a": asked.probe.image, "photo_b": asked.reference.image, "alignment": asked.alignment}
    chosen = {"faces": (asked.probe.face, asked.reference.face), "recognizer": service.recognizer}
    return method, {**photos, **chosen, "threshold": settings.threshold, "fmr": settings.fmr}


def _matches(service: ExplanationService, body: bytes) -> Response:
    """The strongest pairs of regions of the two faces, in units of the score."""
    from xfr_plugin.explanation.figures.matches import strongest_matches  # Matplotlib is slow to import
    from xfr_plugin.explanation.matches import match_regions

    found = match_regions(by="shapley", **_pair(service, body)[1])
    strongest = strongest_matches(found, _LINES)
    rows = [{"probe": a, "reference": b, "value": value} for a, b, value, _ in strongest]
    return JSONResponse({"pairs": rows}, headers=_HEADERS)


def _report(service: ExplanationService, body: bytes) -> Response:
    method, given = _pair(service, body)
    report, settings = build_report(method=method, **given), service.deployment
    chosen = {"recognizer": settings.recognizer, "architecture": settings.architecture, "method": method}
    chosen |= {key: given[key] for key in ("threshold", "fmr", "alignment")}
    chosen |= dict(zip(("face-a", "face-b"), given["faces"], strict=True), matches=report.matches_by)
    words = ["xfr", "report", "PROBE", "REFERENCE"]
    words += [part for key, value in chosen.items() if value is not None for part in (f"--{key}", str(value))]
    page = replace(report, command=shlex.join(words)).html()
    return Response(page, headers=_HEADERS, media_type="text/html")
