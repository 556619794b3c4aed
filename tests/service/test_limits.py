"""What explodes when it is unpacked, parsed or answered is refused before it does: kinds of it, and their kin."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting import counted
from helpers.serving_faces import crops
from PIL import Image, ImageFile
from skimage.data import astronaut

from xfr_plugin.base import deadlines
from xfr_plugin.base.deadlines import check_deadline, until
from xfr_plugin.errors import DeadlineError
from xfr_plugin.faces import load_photo
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.service import (
    Answer,
    Deployment,
    ErrorBody,
    ExplanationService,
    Limits,
    ServiceError,
    batch,
    decoding,
    limits,
    parse_request,
)
from xfr_plugin.service.decoding import check_image, check_size
from xfr_plugin.service.errors import as_service_error
from xfr_plugin.service.explaining import Explainers
from xfr_plugin.service.json_bounds import check_json
from xfr_plugin.service.serving import respond
from xfr_plugin.service.sizes import answer_size
from xfr_plugin.service.stages import Models
from xfr_plugin.service.wire import Response

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
ROW = [0.1] * 128


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    return ExplanationService(
        Deployment(methods="all", reconstructions=True, limits=Limits(deadline_ms=None))
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(width + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    data = saved(Image.new("RGB", (side, side), "grey"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def bmp_of_runs() -> bytes:
    data = bytearray(saved(Image.new("P", (64, 64)), "BMP"))
    data[30:34] = (1).to_bytes(4, "little")
    return bytes(data)


def webp_that_says(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_of_chunks(count: int) -> bytes:
    data = saved(Image.new("RGB", (112, 112)), "WEBP") + b"junk\0\0\0\0" * count
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


EXPLODING: dict[str, tuple[Callable[[], bytes], str]] = {
    "high": (lambda: png(1, 32000), "too_large"),
    "wide": (lambda: png(3000, 2), "too_large"),
    "high, as JPEG": (lambda: saved(Image.new("L", (3, 4000)), "JPEG"), "too_large"),
    "wide, as BMP": (lambda: saved(Image.new("L", (4000, 3)), "BMP"), "too_large"),
    "scans": (lambda: scans(1500, 400), "too_large"),
    "chunks": (lambda: png(112, 112, chunk(b"teXt", b"") * 20_000), "not_an_image"),
    "segments": (lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 200_000 + crops()[0], "not_an_image"),
    "fill": (lambda: b"\xff\xd8" + b"\xff" * 1_000_000 + b"\xda", "not_an_image"),
    "chunks, as WebP": (lambda: webp_of_chunks(700_000), "not_an_image"),
    "runs": (bmp_of_runs, "not_an_image"),
    "canvas": (lambda: webp_that_says(16_000, 16_000), "too_large"),
}


@pytest.mark.parametrize("name", sorted(EXPLODING))
@pytest.mark.parametrize("alignment", ["aligned", "detect"])
def test_bytes_that_explode(service: ExplanationService, name: str, alignment: str) -> None:
    make, code = EXPLODING[name]
    request = parse_request({"probe": make(), "reference": ROW, "alignment": alignment})
    with pytest.raises(ServiceError) as caught:
        service.answer(request)
    assert caught.value.code == code


def segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


def jpeg_with(segments: bytes) -> bytes:
    data = saved(Image.open(io.BytesIO(crops()[0])).convert("RGB"), "JPEG")
    return data[:2] + segments + data[2:]


PACKED = zlib.compress(bytes(1000 << 10), 9)
METADATA: dict[str, Callable[[], bytes]] = {
    "profiles": lambda: png(112, 112, chunk(b"iCCP", b"k\0\0" + PACKED) * 5000),
    "packed texts": lambda: png(112, 112, chunk(b"zTXt", b"k\0\0" + PACKED) * 60),
    "texts": lambda: png(112, 112, chunk(b"tEXt", b"k\0" + bytes(5 << 20))),
    "EXIF": lambda: png(112, 112, chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535 + 4))),
    "much EXIF": lambda: png(112, 112, chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0" + bytes(60_000)) * 90),
    "EXIF of JPEG": lambda: jpeg_with(segment(0xE1, b"Exif\0\0II*\0" + bytes(65_000)) * 90),
    "resources": lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * 90),
    "EXIF of WebP": lambda: saved(Image.new("RGB", (112, 112)), "WEBP", exif=b"Exif\0\0" + bytes(5 << 20)),
    "a profile of WebP": lambda: saved(Image.new("RGB", (112, 112)), "WEBP", icc_profile=bytes(5 << 20)),
}


@pytest.mark.parametrize("name", sorted(METADATA))
def test_metadata_that_explodes_reaches_no_reader(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = METADATA[name](), []
    load = decoding.load_photo
    monkeypatch.setattr(
        decoding,
        "load_photo",
        lambda photo, *more, **named: (read.append(photo), load(photo, *more, **named))[1],
    )
    found = decoding.decode_photo(data, Limits())
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert len(read[0]) < 80_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("metadata", ["EXIF", "XMP"])
def test_photos_stay_upright(kind: str, metadata: str) -> None:
    """The orientation is what is left of all that cameras write."""
    photo = Image.effect_noise((60, 40), 90).convert("RGB")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = (6 if metadata == "EXIF" else 1), "camera"
    given: dict[str, Any] = {"icc_profile": bytes(3000), **({"exif": exif} if metadata == "EXIF" else {})}
    if metadata == "XMP" and kind == "PNG":
        data = saved(photo, kind, **given)
        data = data[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + data[33:]
    else:
        data = saved(photo, kind, **given, **({"xmp": xmp} if metadata == "XMP" else {}))
    found = decoding.decode_photo(data, Limits())
    assert found.shape == (60, 40, 3)
    assert np.array_equal(found, load_photo(data))


def test_photos_as_people_take_them_pass() -> None:
    """Panoramas, progressive photographs of 24 megapixels with a thumbnail, many IDAT chunks, random metadata."""
    bounds, noise = Limits(), np.random.default_rng(0).bytes(1 << 20)
    photo = saved(Image.effect_noise((2000, 250), 90).convert("RGB"), "JPEG", progressive=True, quality=95)
    check_image(photo[:2] + b"\xff\xe1" + struct.pack(">H", 60_002) + noise[:60_000] + photo[2:], bounds)
    check_size(photo, bounds)(6000, 4000)
    check_size(photo, bounds)(2000, 250)
    check_image(png(112, 112, chunk(b"teXt", b"x") * 1000), bounds)


@pytest.mark.parametrize("kind", ["aligned", "a face that fills it"])
def test_large_crops_come_out_as_small_ones(kind: str) -> None:
    """They are reduced before they are filtered."""
    from xfr_plugin.faces import ARCFACE_TEMPLATE, align
    from xfr_plugin.faces.alignment import fit_aligned

    small = np.asarray(Image.open(io.BytesIO(crops()[0])).convert("RGB"))
    large = np.asarray(Image.fromarray(small).resize((3360, 3360), Image.Resampling.BICUBIC))
    if kind == "aligned":
        found = fit_aligned(large, (112, 112))
    else:
        found = align(large, (ARCFACE_TEMPLATE + 0.5) * 30 - 0.5, (112, 112))
    assert np.abs(found.astype(int) - small).mean() < 8


JSON: dict[str, tuple[Callable[[], bytes], str]] = {
    "nulls": (lambda: b'{"probe":[' + b"null," * 3_000_000 + b"null]}", "too_large"),
    "rows": (
        lambda: b'{"probe":[1],"gallery":{"embeddings":[' + b"[1]," * 100_000 + b"[1]]}}",
        "too_large",
    ),
    "empty objects": (lambda: b'{"instances":[' + b"{}," * 100_000 + b"{}]}", "too_large"),
    "keys": (lambda: b"{" + b'"a" : 1,' * 100_000 + b'"b":1}', "too_large"),
    "depth": (lambda: b'{"a":' * 100 + b"1" + b"}" * 100, "malformed"),
    "wrong numbers": (lambda: b'{"probe":[' + b'"x",' * 1_500_000 + b'1],"reference":[1]}', "malformed"),
    "wrong ids": (
        lambda: b'{"probe":[1],"gallery":{"embeddings":[[1]],"ids":[' + b"1," * 1_500_000 + b"1]}}",
        "malformed",
    ),
    "wrong returns": (
        lambda: b'{"probe":[1],"reference":[1],"returns":[' + b"1," * 1_500_000 + b"1]}",
        "malformed",
    ),
}


@pytest.mark.parametrize("name", sorted(JSON))
@pytest.mark.parametrize("place", ["body", "request", "probe"])
def test_json_that_explodes(service: ExplanationService, name: str, place: str) -> None:
    """In the body, in a field of a form, in the place of a face: it takes no memory to say so."""
    make, code = JSON[name]
    fields = {place: make(), **({} if place == "body" else {"reference": b"[1]"})}
    tracemalloc.start()
    (response,) = respond(service, [fields], [{}])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert json.loads(response.body)["code"] in (code, "malformed")
    assert len(response.body) < 5000
    assert peak < 400 << 20


def test_a_full_gallery_is_no_explosion() -> None:
    row = "[" + ",".join(["0.1"] * 128) + "]"
    check_json((f'{{"embeddings":[{",".join([row] * 10_000)}]}}').encode(), "it", Limits())


def test_forms_of_many_fields(service: ExplanationService) -> None:
    (response,) = respond(service, [{f"f{n}": b"1" for n in range(1000)}], [{}])
    assert response.status == 413


def body_of(service: ExplanationService, document: dict[str, Any], explain: bool = True) -> Response:
    good = {"probe": crops()[0], "reference": crops()[1], "id": "neighbour"}
    text = json.dumps(document).encode()
    found, neighbour = respond(service, [{"body": text}, good], [{"explain": str(explain)}] * 2)
    assert neighbour.status == 200, "a neighbour keeps its answer"
    assert len(found.body) < service.deployment.limits.answer_bytes
    return found


def test_answers_that_explode_are_refused_before_they_are_made(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"embeddings": np.eye(128)[:12].tolist(), "top": 10}
    one = {"id": "i", "probe": ROW, "gallery": rows, "returns": ["maps"], "map_format": "float32"}
    calls: list[int] = []
    answer_all = ExplanationService.answer_all
    monkeypatch.setattr(
        ExplanationService,
        "answer_all",
        lambda self, asked, *more, **named: (
            calls.append(len(asked)),
            answer_all(self, asked, *more, **named),
        )[1],
    )
    found = body_of(service, {"instances": [one] * 9})
    assert found.status == 413
    assert {reply["id"] for reply in json.loads(found.body)["explanations"]} == {"i"}
    pictures = {"returns": ["maps", "overlay", "reconstructions"], "map_format": "png"}
    tensors = [
        {"name": "probe", "datatype": "FP32", "shape": [16, 128], "data": ROW * 16},
        {"name": "gallery", "datatype": "FP32", "shape": [12, 128], "data": rows["embeddings"]},
    ]
    assert body_of(service, {"inputs": tensors, "parameters": {**pictures, "top": 10}}).status == 413
    assert calls == [1, 1], "only the neighbours were worked on"


@pytest.mark.parametrize("form", ["float32", "png"])
@pytest.mark.parametrize("gallery", [False, True])
def test_sizes_are_upper_bounds(service: ExplanationService, form: str, gallery: bool) -> None:
    noise = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)), "PNG"
    )
    returns = ["regions", "maps", "overlay", "words", "reconstructions"]
    given: dict[str, Any] = {"probe": noise, "id": "ü" * 128, "map_format": form}
    if gallery:
        given |= {"gallery": {"embeddings": np.eye(128)[:12].tolist(), "ids": ["ü" * 128] * 12}}
    else:
        given |= {"reference": crops()[1]}
    request = parse_request({**given, "returns": returns})
    size = len(service.answer(request, explain=True).model_dump_json().encode())
    bound = answer_size(request, True, service.deployment, service.input_size, service.embedding_dim)
    assert size < bound < 4 * size


def test_memory_that_is_not_there_is_an_error_of_the_request() -> None:
    assert as_service_error(MemoryError()).code == "too_large"


def test_the_deadline_is_asked_between_steps() -> None:
    with until(time.perf_counter() - 1), until(time.perf_counter() + 9), pytest.raises(DeadlineError):
        check_deadline()
    check_deadline()


def late_within(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float, when: Callable[..., bool]
) -> None:
    """Let so many seconds pass in a call, when it asks for the time again: however fast the machine is."""
    original, asked = getattr(owner, name), [0]
    inside = False

    def late(clock: Callable[[], float]) -> float:
        asked[0] += inside
        return clock() + seconds * (asked[0] > 1)

    def called(*given: Any, **named: Any) -> Any:
        nonlocal inside
        inside = when(*given)
        try:
            return original(*given, **named)
        finally:
            inside = False

    clock = SimpleNamespace(
        perf_counter=lambda: late(time.perf_counter), thread_time=lambda: late(time.thread_time)
    )
    monkeypatch.setattr(deadlines, "time", clock)
    monkeypatch.setattr(batch, "time", clock)
    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize("method", ["xface", "corrrise", "fggb", "leave_one_out", "lime"])
def test_a_deadline_ends_the_work(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Prices that are far too low do not matter."""
    monkeypatch.setattr(type(service._models.costs), "fits", lambda *given: True)
    late_within(monkeypatch, Explainers, "maps", 1e6, lambda *given: True)
    passes = counted(monkeypatch)
    pair = {"probe": crops()[0], "reference": crops()[1]}
    request = parse_request({**pair, "method": method, "deadline_ms": 60_000})
    with pytest.raises(ServiceError) as caught:
        service.answer(request, explain=True)
    assert caught.value.code == "deadline"
    assert passes["passes"] <= 3, "the decision's, and those before it asks again"


def test_a_deadline_ends_the_search_for_faces(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_within(monkeypatch, FaceDetector, "__call__", 1e6, lambda *given: True)
    noise = saved(Image.effect_noise((900, 900), 90).convert("RGB"), "PNG")
    with pytest.raises(ServiceError) as caught:
        service.answer(parse_request({"probe": noise, "reference": ROW, "deadline_ms": 60_000}))
    assert caught.value.code == "deadline", "and not that there is no face"


@pytest.mark.parametrize(
    "image", [lambda: png(6000, 4000), lambda: scans(1500, 100)], ids=["pixels", "scans"]
)
def test_what_cannot_be_decoded_in_time_is_not_begun(
    service: ExplanationService, image: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing interrupts a decoder."""
    request = parse_request({"probe": image(), "reference": ROW, "deadline_ms": 200})
    decoded = noted_decoding(monkeypatch)
    with pytest.raises(ServiceError) as caught:
        service.answer(request)
    assert caught.value.code == "deadline"
    assert decoded == []


def noted_decoding(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Widths and heights of the images whose pixels are decoded."""
    sizes: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (sizes.append(self.size), load(self))[1])
    return sizes


def priced(service: ExplanationService, monkeypatch: pytest.MonkeyPatch, method: str, seconds: float) -> None:
    """A machine on which a method takes so much CPU time for a pair."""
    monkeypatch.setitem(service._models.cpu_costs._seconds, (method, False), seconds)


@pytest.fixture
def explained_by(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Methods that explain, as they do, and the threads in which they do."""
    found: list[tuple[str, str]] = []
    maps = Explainers.maps

    def noted(self: Explainers, method: str, pairs: Any) -> Any:
        found.extend([(method, threading.current_thread().name)] * len(pairs))
        return maps(self, method, pairs)

    monkeypatch.setattr(Explainers, "maps", noted)
    return found


PAIR = {"probe": crops()[0], "reference": crops()[1]}


@pytest.mark.parametrize("kind", ["a slow method", "a check", "many pairs", "a gallery"])
def test_slow_reasons_do_not_hold_up_their_neighbours(
    service: ExplanationService,
    monkeypatch: pytest.MonkeyPatch,
    explained_by: list[tuple[str, str]],
    kind: str,
) -> None:
    """They are not begun beside others, and elsewhere they give way to what is quick."""
    priced(service, monkeypatch, "xssab", 3.0 if kind == "a slow method" else 0.2)
    monkeypatch.setitem(service._models.cpu_costs._seconds, ("xssab", True), 0.4)
    models = replace(service._models, forward_seconds=1.0 if kind == "a check" else 0.001)
    monkeypatch.setattr(service, "_models", models)
    given: dict[str, Any] = {**PAIR, "returns": ["faithfulness"]} if kind == "a check" else PAIR
    if kind == "a gallery":
        given = {"probe": crops()[0], "gallery": {"embeddings": np.eye(128)[:12].tolist()}}
    slow = [parse_request({**given, "method": "xssab"})] * (12 if kind == "many pairs" else 1)
    quick, plain = parse_request({**PAIR, "method": "xssab"}), parse_request(PAIR)
    bodies = [0] * len(slow)
    if kind == "a slow method":
        quick = parse_request({**PAIR, "method": "amortised"})
    *told, explained, decided = service.answer_all(
        [*slow, quick, plain], [True] * len(slow) + [True, False], None, [*bodies, 1, 2], lambda: True
    )
    assert {reply.code for reply in told if isinstance(reply, ErrorBody)} == {"busy"}
    assert isinstance(explained, Answer)
    assert isinstance(decided, Answer)
    assert [thread for _, thread in explained_by] == ["MainThread"]
    explained_by.clear()
    alone = service.answer_all(slow, [True] * len(slow), None, bodies, lambda: True)
    assert all(isinstance(reply, Answer) for reply in alone)
    assert {thread for _, thread in explained_by} == {"xfr-slow"}


def test_reasons_that_take_longer_than_expected_end_when_neighbours_have_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = ExplanationService(Deployment(methods="all", limits=Limits(patience_ms=200)))
    priced(service, monkeypatch, "lime", 0.01)
    passes = counted(monkeypatch)
    slow, plain = parse_request({**PAIR, "method": "lime"}), parse_request(PAIR)
    late_within(monkeypatch, Explainers, "maps", 30, lambda *given: True)
    told, decided = service.answer_all([slow, plain], [True, False], None, None, lambda: True)
    assert isinstance(told, ErrorBody)
    assert told.code == "busy"
    assert isinstance(decided, Answer)
    assert passes["passes"] <= 3, "the decision's, and those before it asks again"


def test_what_a_deadline_will_end_soon_is_not_slow(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered by a faster method, or not at all, and nobody waits for long."""
    priced(service, monkeypatch, "xssab", 30.0)
    soon = parse_request({**PAIR, "method": "xssab", "deadline_ms": 900})
    found, decided = service.answer_all([soon, parse_request(PAIR)], [True, False], None, None, lambda: True)
    assert isinstance(found, Answer) or found.code == "deadline"
    assert isinstance(decided, Answer)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_a_body_of_different_requests_is_never_told_to_come_again_for_them(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch, version: int, order: int
) -> None:
    """Where one has a deadline that will have passed when another is explained, that is its own error alone."""
    priced(service, monkeypatch, "xface", 30.0)
    late_within(monkeypatch, Explainers, "maps", 30, lambda self, method, *rest: method == "xface")
    text = {side: base64.b64encode(image).decode() for side, image in PAIR.items()}
    if version == 1:
        items = [{**text, "method": "xface"}, {**text, "method": "reconstruction", "deadline_ms": 20_000}]
        body: dict[str, Any] = {"instances": items[::order]}
    else:
        tensors = [
            {"name": side, "datatype": "BYTES", "shape": [2], "data": [data] * 2}
            for side, data in text.items()
        ]
        body = {"inputs": tensors, "parameters": {"method": "xface", "deadline_ms": 50_000}}
    sent = {"body": json.dumps(body).encode()}
    (response,) = respond(service, [sent], [{"explain": "True"}], may_be_slow=lambda: True)
    assert response.status == 200
    codes = [reply.code if isinstance(reply, ErrorBody) else "answer" for reply in response.replies]
    assert codes == (["answer", "deadline"][::order] if version == 1 else ["answer", "answer"])


def test_a_long_search_does_not_hold_up_its_neighbours() -> None:
    """A photo without a face is searched for long: where nobody who is quick waits for it, or not at all."""
    service = ExplanationService(Deployment(limits=Limits(crowd_ms=50, deadline_ms=None)))
    noise = saved(Image.effect_noise((900, 900), 90).convert("RGB"), "PNG")
    slow = parse_request({"probe": noise, "reference": ROW, "id": "slow"})
    quick = parse_request({"probe": crops()[0], "reference": crops()[1]})
    asked: list[int] = []
    told, answer = service.answer_all([slow, quick], [False, False], may_be_slow=lambda: not asked.append(1))
    assert isinstance(told, ErrorBody)
    assert (told.code, told.id) == ("busy", "slow")
    assert isinstance(answer, Answer)
    (alone,) = service.answer_all([slow], [False], may_be_slow=lambda: not asked.append(1))
    assert isinstance(alone, ErrorBody)
    assert alone.code == "no_face"
    assert asked == [1]


def test_what_is_quick_is_answered_however_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time counts: another process that takes the core makes nobody slow."""
    service = ExplanationService(Deployment(limits=Limits(crowd_ms=200)))
    decode = decoding.load_photo
    monkeypatch.setattr(decoding, "load_photo", lambda *a, **k: (time.sleep(0.1), decode(*a, **k))[1])
    quick = parse_request({"probe": crops()[0], "reference": crops()[1]})
    replies = service.answer_all([quick] * 3, [False] * 3, may_be_slow=lambda: False)
    assert all(isinstance(reply, Answer) for reply in replies)


def test_many_slow_requests_hold_up_their_neighbours_no_longer_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first may take what there is, and who comes after it a quarter of that."""
    allowed: list[float] = []
    monkeypatch.setattr(
        batch,
        "until",
        lambda moment, cpu=math.inf: (allowed.append(cpu - time.thread_time()), until(moment, cpu))[1],
    )
    service = ExplanationService(Deployment(limits=Limits(crowd_ms=50)))
    monkeypatch.setattr(service, "_models", with_search_of(service, 0.0))  # or it is not even begun
    noise = saved(Image.effect_noise((900, 900), 90).convert("RGB"), "PNG")
    slow = parse_request({"probe": noise, "reference": ROW, "id": "slow"})
    quick = parse_request({"probe": crops()[0], "reference": crops()[1]})
    *told, answer = service.answer_all([slow] * 6 + [quick], [False] * 7, may_be_slow=lambda: False)
    *shares, _ = [
        round(seconds, 2) for seconds in allowed if seconds < math.inf
    ]  # the last is that of reasons
    assert shares == sorted(shares, reverse=True), "what the ones before have left"
    assert (shares[0], shares[-1]) == (0.05, 0.01)
    assert {reply.code for reply in told if isinstance(reply, ErrorBody)} == {"busy"}
    assert isinstance(answer, Answer)


def document(image: bytes) -> dict[str, bytes]:
    face = {"probe": base64.b64encode(image).decode(), "alignment": "aligned"}
    return {"body": json.dumps({**face, "reference": ROW}).encode()}


def test_who_may_be_slow_is_asked_where_nobody_waits_who_is_not(service: ExplanationService) -> None:
    """By body: one that is wrong waits too, and a body of several requests is answered as a whole."""
    slow, quick = document(png(6000, 4000)), document(crops()[0])
    both = {"body": json.dumps({"instances": [json.loads(quick["body"]), json.loads(slow["body"])]}).encode()}
    asked: list[int] = []

    def statuses(*items: dict[str, bytes], may: bool = True) -> list[int]:
        responses = respond(service, items, [{}] * len(items), may_be_slow=lambda: asked.append(1) or may)
        return [response.status for response in responses]

    assert statuses(slow, quick) == [503, 200]
    assert statuses(slow, {"body": b"{"}) == [503, 400]
    assert not asked
    assert statuses(both, slow) == [200, 200]
    assert statuses(both, may=False) == [503]
    assert len(asked) == 2
    assert [response.status for response in respond(service, [slow, quick], [{}, {}])] == [200, 200]


def test_large_images_are_not_decoded_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing interrupts a decoder: what will take long is not begun."""
    service = ExplanationService(Deployment(limits=Limits(deadline_ms=None)))
    large = parse_request({"probe": png(6000, 4000), "reference": ROW, "alignment": "aligned"})
    quick = parse_request({"probe": crops()[0], "reference": crops()[1]})
    decoded = noted_decoding(monkeypatch)
    told, answer = service.answer_all([large, quick], [False, False], may_be_slow=lambda: False)
    assert set(decoded) == {(112, 112)}
    assert isinstance(told, ErrorBody)
    assert told.code == "busy"
    assert isinstance(answer, Answer)
    (alone,) = service.answer_all([large], [False], may_be_slow=lambda: True)
    assert isinstance(alone, Answer)


def test_photographs_are_not_searched_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two take longer than others wait: beside others they are not begun, and elsewhere they are searched once."""
    service = ExplanationService(Deployment(limits=Limits(deadline_ms=None)))
    searched: list[str] = []
    search = FaceDetector.__call__

    def noted(self: FaceDetector, photo: Any) -> Any:
        if len(photo) > 112:  # crops are looked at, too: whether they are aligned
            searched.append(threading.current_thread().name)
        return search(self, photo)

    monkeypatch.setattr(FaceDetector, "__call__", noted)
    photo = saved(Image.fromarray(astronaut()), "PNG")
    two = parse_request({"probe": photo, "reference": photo})
    quick = parse_request({"probe": crops()[0], "reference": crops()[1]})
    monkeypatch.setattr(service, "_models", with_search_of(service, 0.1))
    told, answer = service.answer_all([two, quick], [False, False], may_be_slow=lambda: False)
    assert isinstance(told, ErrorBody)
    assert told.code == "busy"
    assert isinstance(answer, Answer)
    assert searched == []
    (alone,) = service.answer_all([two], [False], may_be_slow=lambda: True)
    assert isinstance(alone, Answer)
    assert searched == ["xfr-slow"] * 2


def with_search_of(service: ExplanationService, seconds: float) -> Models:
    """A service's models, on a machine that takes so long to find a face."""
    models = service._models
    return replace(models, faces=replace(models.faces, search_seconds=seconds))


def test_how_long_a_search_takes_is_measured() -> None:
    assert 0 < ExplanationService()._models.faces.search_seconds < 60
    without = ExplanationService(Deployment(detector=False))
    assert without._models.faces.search_seconds == 0


def test_time_in_a_queue_counts() -> None:
    service = ExplanationService()
    request = parse_request({"probe": crops()[0], "reference": crops()[1], "deadline_ms": 50_000})
    late, fine = service.answer_all([request, request], [False, False], [60.0, 0.0])
    assert isinstance(late, ErrorBody)
    assert late.code == "deadline"
    assert isinstance(fine, Answer)


def test_the_page_has_the_table_of_limits() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.MULTILINE))
    names = {name: getattr(Limits(), name) for name in Limits.model_fields}
    names |= {name: getattr(limits, name) for name in limits.__all__ if name.isupper()}
    assert {name: int(value.replace(",", "")) for name, value in listed.items()} == names


def test_every_pass_of_the_recognizer_asks_for_the_deadline() -> None:
    from xfr_plugin.recognition import load_recognizer

    recognizer = load_recognizer("xfr_compact128")
    with until(0.0), pytest.raises(DeadlineError):
        recognizer(torch.zeros(1, 3, 112, 112))
