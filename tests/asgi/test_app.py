"""The second shell: the service's answers and errors over HTTP, guarded before a body is read."""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers.serving_faces import crops
from PIL import Image
from skimage.data import astronaut

pytest.importorskip("fastapi", reason="FastAPI is not installed")

import httpx
from helpers.shells import TOKEN, within

from xfr_plugin import asgi
from xfr_plugin.asgi import Batcher, LocalLane, Post, Tokens, forms, make_app
from xfr_plugin.asgi.batching import Done, LaneDiedError, answer_posts
from xfr_plugin.asgi.forms import fields_of
from xfr_plugin.asgi.tokens import write_token
from xfr_plugin.base.deadlines import check_deadline
from xfr_plugin.faces.search import FaceDetector
from xfr_plugin.service import Answer, Deployment, ExplanationService, Limits, ServiceError, reply_from_json
from xfr_plugin.service.deployment import Workers
from xfr_plugin.service.limits import MESSAGE_OVERHEAD
from xfr_plugin.service.serving import respond


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    limits = Limits(json_bytes=400_000, instances=3, deadline_ms=None)
    return ExplanationService(Deployment(limits=limits))


def allow(header: str) -> bool:
    return header == "Bearer secret"


def ask(service: ExplanationService | Batcher, method: str, path: str, **more: Any) -> httpx.Response:
    found: httpx.Response = within(
        make_app(service, allow), lambda client: client.request(method, path, **more)
    )
    return found


def text(index: int) -> str:
    return base64.b64encode(crops()[index]).decode()


def question(**more: Any) -> dict[str, Any]:
    return {"probe": text(0), "reference": text(1), "id": "q", **more}


FILES = {"probe": ("a.png", crops()[0], "image/png"), "reference": ("b.png", crops()[1])}
BODIES: dict[str, dict[str, Any]] = {
    "json": {"json": question()},
    "form": {"files": FILES, "data": {"id": "q"}},
    "image": {
        "content": crops()[0],
        "headers": {"x-xfr-request": json.dumps({"reference": text(1), "id": "q"})},
    },
}


@pytest.mark.parametrize("kind", sorted(BODIES))
@pytest.mark.parametrize("endpoint", ["predictions", "explanations"])
def test_the_services_answers(service: ExplanationService, kind: str, endpoint: str) -> None:
    response = ask(service, "POST", f"/{endpoint}/xfr", **BODIES[kind])
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer = reply_from_json(response.content)
    (expected,) = respond(service, [{"body": json.dumps(question())}], [{}])
    assert isinstance(answer, Answer)
    assert answer.id == "q"
    assert answer.decision.score == pytest.approx(json.loads(expected.body)["decision"]["score"], abs=1e-5)
    assert (answer.explanation is not None) == (endpoint == "explanations")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"body": b"{"}, 400),
        ({"body": b'{"probe": "/etc/passwd", "reference": [1]}'}, 400),
        ({"body": b"\x00\x01"}, 415),
        ({"body": json.dumps(question(returns=["embeddings"])).encode()}, 403),
        ({"body": b"[" * 100_000}, 400),
        ({"body": b""}, 400),
    ],
)
def test_the_services_errors(service: ExplanationService, fields: dict[str, bytes], status: int) -> None:
    response = ask(service, "POST", "/predictions/xfr", content=fields["body"])
    (expected,) = respond(service, [fields], [{}])
    assert (response.status_code, response.json()) == (expected.status, json.loads(expected.body))
    assert response.status_code == status


def test_kserve(service: ExplanationService) -> None:
    one = {"instances": [question()]}
    assert ask(service, "POST", "/v1/models/xfr:predict", json=one).json()["predictions"][0]["id"] == "q"
    found = ask(service, "POST", "/v1/models/xfr:explain", json=one).json()["explanations"][0]
    assert found["explanation"]["words"]
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [1], "data": [text(place)]}
        for place, name in enumerate(("probe", "reference"))
    ]
    for path, wanted in (("infer", False), ("explain", True)):
        document = ask(service, "POST", f"/v2/models/xfr/{path}", json={"inputs": tensors}).json()
        assert bool(json.loads(document["outputs"][0]["data"][0])["explanation"]) == wanted
    for path in ("/v2", "/v2/models/xfr", "/v2/models/xfr/ready", "/v1/models/xfr", "/ping"):
        assert ask(service, "GET", path).status_code == 200


def test_health_and_metrics(service: ExplanationService) -> None:
    app = make_app(service, allow)

    async def work(client: httpx.AsyncClient) -> tuple[list[int], str]:
        await client.post("/explanations/xfr", json=question())
        await client.post("/predictions/xfr", content=b"{")
        paths = ("/v2/health/live", "/v2/health/ready", "/metrics", "/docs", "/openapi.json")
        statuses = [(await client.get(path, headers={"Authorization": ""})).status_code for path in paths]
        return statuses, (await client.get("/metrics")).text

    statuses, metrics = within(app, work)
    assert statuses == [200, 200, 401, 401, 401]
    for line in (
        'XfrErrors{Kind="malformed"} 1',
        f'XfrExplanations{{Kind="{service.method}"}} 1',
        'xfr_responses{status="400"} 1',
        'xfr_responses{status="401"} 3',
        "xfr_answer_seconds_count 2",
    ):
        assert line in metrics.splitlines()
    assert re.search(r'^XfrStageTime{Kind="embed"} [\d.]+$', metrics, re.MULTILINE)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, "unauthorized"),
        ({"Authorization": "Bearer secretly"}, 401, "unauthorized"),
        ({"Authorization": "Basic secret"}, 401, "unauthorized"),
        ({"Transfer-Encoding": "chunked", "Content-Length": "4"}, 400, "malformed"),
    ],
)
def test_refused_before_the_body(
    service: ExplanationService, headers: dict[str, str], status: int, code: str
) -> None:
    """A body that is never sent is not waited for."""
    told = refused(service, list({**TOKEN, **headers}.items()))
    assert told == (status, code)


@pytest.mark.parametrize("name", ["Host", "Authorization", "Content-Type", "x-xfr-request"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_said_twice_is_refused(service: ExplanationService, name: str, first: bool) -> None:
    """A proxy may have looked at the other one."""
    own = [(name.lower(), "other"), (name, {**TOKEN, "Host": "x"}.get(name, "text/plain"))]
    others = [pair for pair in TOKEN.items() if pair[0] != name]
    assert refused(service, [*others, *(own if first else own[::-1])]) == (400, "malformed")


def refused(service: ExplanationService, headers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Status and code of a request that is refused before its body, and whose connection is closed."""
    app = make_app(service, allow)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predictions/xfr",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "query_string": b"",
    }
    asyncio.run(app(scope, receive, send))
    assert (b"connection", b"close") in sent[0]["headers"]
    return sent[0]["status"], json.loads(sent[1]["body"])["code"]


def test_a_body_is_read_as_far_as_its_limit(service: ExplanationService) -> None:
    sent = 0

    async def parts() -> Any:
        nonlocal sent
        while sent < 1000:
            sent += 1
            yield bytes(65536)

    response = ask(service, "POST", "/predictions/xfr", content=parts())
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert sent < 100


def test_a_body_that_breaks_off_is_no_error_of_ours(service: ExplanationService) -> None:
    """It happens all the time, and nothing is logged about it."""
    parts = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer secret"), (b"content-length", b"9")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predictions/xfr",
        "headers": headers,
        "query_string": b"",
    }
    asyncio.run(make_app(service, allow)(scope, receive, send))
    assert not parts
    assert sent[0]["status"] == 400


def test_a_body_that_crawls_is_not_waited_for(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi.app, "_BODY_SECONDS", 0.1)

    async def parts() -> Any:
        yield b"{"
        await asyncio.sleep(3600)
        yield b"}"

    response = ask(service, "POST", "/predictions/xfr", content=parts())
    assert (response.status_code, response.json()["code"]) == (408, "too_slow")


def test_bodies_at_once_have_a_bound(service: ExplanationService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi.app, "_BODIES_AT_ONCE", 1000)
    response = ask(service, "POST", "/predictions/xfr", json=question())
    assert (response.status_code, response.json()["code"]) == (503, "busy")


def test_a_body_that_says_how_large_it_is_is_no_crowd(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told to come again would be told so forever."""
    most = service.deployment.limits.json_bytes + MESSAGE_OVERHEAD
    monkeypatch.setattr(asgi.app, "_BODIES_AT_ONCE", most)
    response = ask(service, "POST", "/predictions/xfr", content=bytes(2 * most))
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "path", ["/predictions/other", "/nothing", "/v1/models/other:predict", "/predictions/xfr/"]
)
def test_what_is_not_there(service: ExplanationService, path: str) -> None:
    response = ask(service, "POST", path, json=question())
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_other_pages_can_be_mounted(service: ExplanationService) -> None:
    app = make_app(service, allow, open_paths=("/web/",))
    app.add_api_route("/web/page", lambda: "face", methods=["GET"])
    app.add_api_route("/inner", lambda: "face", methods=["GET"])
    statuses = within(app, lambda client: _gets(client, "/web/page", "/inner", "/webbed"))
    assert statuses == [200, 401, 401]


async def _gets(client: httpx.AsyncClient, *paths: str) -> list[int]:
    return [(await client.get(path, headers={"Authorization": ""})).status_code for path in paths]


class Lane:
    """A lane that dies at bodies that say so, and remembers what it was asked."""

    def __init__(self, late: bool = False) -> None:
        self.asked: list[list[bytes]] = []
        self.starts = 0
        self.late = late

    def start(self) -> dict[str, Any]:
        self.starts += 1
        return {"package": "0"}

    def ask(self, posts: Sequence[Post]) -> Done:
        self.asked.append([post.body for post in posts])
        time.sleep(0.02)
        if any(post.body.startswith(b"poison") for post in posts):
            raise LaneDiedError(self.late)
        return Done([(200, post.body) for post in posts], [], {})

    def stop(self) -> None:
        pass


async def _all(batcher: Batcher, bodies: Sequence[bytes]) -> list[Any]:
    await batcher.open()
    try:
        return await asyncio.gather(*(batcher.ask(Post(body)) for body in bodies), return_exceptions=True)
    finally:
        await batcher.close()


def test_requests_are_answered_together_and_each_has_its_own() -> None:
    lanes = [Lane(), Lane()]
    bodies = [b"%d" % n for n in range(40)]
    found = asyncio.run(_all(Batcher(lanes, Workers(batch_size=4), Limits()), bodies))
    assert found == [(200, body) for body in bodies]
    sizes = [len(batch) for lane in lanes for batch in lane.asked]
    assert max(sizes) == 4
    assert all(lane.asked for lane in lanes)


def test_few_requests_are_shared_among_the_lanes() -> None:
    """Not one lane at work with all of them while another has nothing to do."""
    lanes = [Lane(), Lane()]
    asyncio.run(_all(Batcher(lanes, Workers(batch_size=4), Limits()), [b"1", b"2", b"3", b"4"]))
    assert [[len(batch) for batch in lane.asked] for lane in lanes] == [[2], [2]]


def test_a_request_that_ends_workers_takes_no_other_with_it() -> None:
    lanes = [Lane(), Lane()]
    bodies = [b"%d" % n for n in range(12)]
    bodies[3:3] = [b"poison"]
    found = asyncio.run(_all(Batcher(lanes, Workers(batch_size=4), Limits()), bodies))
    assert [reply for reply in found if not isinstance(reply, Exception)] == [
        (200, body) for body in bodies if body != b"poison"
    ]
    assert isinstance(found[3], ServiceError)
    assert found[3].status == 500
    deaths = [batch for lane in lanes for batch in lane.asked if b"poison" in batch]
    assert [len(batch) for batch in sorted(deaths, key=len)] == [1, 4], "once more, and alone"
    assert sum(lane.starts for lane in lanes) >= 3


def test_what_is_slow_comes_again_alone_and_one_lane_stays_free() -> None:
    """The service has no time for it beside others: the caller notices nothing, and the others do not wait."""

    class Slow(Lane):
        running: ClassVar[list[int]] = []
        two = threading.Event()
        most = 0

        def ask(self, posts: Sequence[Post]) -> Done:
            self.asked.append([post.body for post in posts])
            if [post.body for post in posts] == [b"slow"] and posts[0].may_be_slow:
                Slow.running.append(1)
                Slow.most = max(Slow.most, len(Slow.running))
                if len(Slow.running) == 2:
                    Slow.two.set()
                Slow.two.wait(60)
                time.sleep(0.1)  # a third would come
                Slow.running.pop()
                return Done([(200, b"slow")], [], {})
            return Done([(503 if post.body == b"slow" else 200, post.body) for post in posts], [], {})

    lanes = [Slow(), Slow(), Slow()]
    bodies = [b"slow", b"a"] * 10
    found = asyncio.run(_all(Batcher(lanes, Workers(batch_size=4), Limits()), bodies))
    assert found == [(200, body) for body in bodies]
    assert Slow.most == 2


@pytest.mark.parametrize("may_be_slow", [False, True])
def test_what_is_slow_has_a_low_priority_where_it_may_be(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch, may_be_slow: bool
) -> None:
    found: list[str] = []
    search = FaceDetector.__call__

    def slow(self: FaceDetector, photo: Any) -> Any:
        time.sleep(0.01)
        end = time.thread_time() + 0.15
        while time.thread_time() < end:
            pass
        check_deadline()
        found.append(threading.current_thread().name)
        return search(self, photo)

    monkeypatch.setattr(FaceDetector, "__call__", slow)
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "JPEG")
    photo = base64.b64encode(buffer.getvalue()).decode()
    body = json.dumps({"probe": photo, "reference": [0.1] * 128}).encode()
    done = answer_posts(service, [Post(body, may_be_slow=may_be_slow)])
    assert (done.answers[0][0], found) == ((200, ["xfr-slow"]) if may_be_slow else (503, []))


def test_a_worker_that_does_not_answer_is_late() -> None:
    (found,) = asyncio.run(_all(Batcher([Lane(late=True)], Workers(), Limits()), [b"poison"]))
    assert isinstance(found, ServiceError)
    assert found.status == 504


@pytest.mark.parametrize(("late", "status"), [(False, 500), (True, 504)])
def test_work_without_end_is_begun_twice_at_most(late: bool, status: int) -> None:
    """Those beside it are asked again, and each alone; what ended its worker by itself is not asked a third time."""
    lane = Lane(late)
    found = asyncio.run(_all(Batcher([lane], Workers(batch_size=4), Limits()), [b"poison", b"a", b"b"]))
    assert isinstance(found[0], ServiceError)
    assert found[0].status == status
    assert found[1:] == [(200, b"a"), (200, b"b")]
    assert sum(b"poison" in batch for batch in lane.asked) == 2


def test_what_was_too_slow_beside_others_survives_a_worker_too() -> None:
    """That it comes again does not count as a death."""

    class Mortal(Lane):
        def ask(self, posts: Sequence[Post]) -> Done:
            self.asked.append([post.body for post in posts])
            if len(posts) == 2:
                return Done([(503, post.body) for post in posts], [], {})
            if self.starts == 1:
                raise LaneDiedError
            return Done([(200, post.body) for post in posts], [], {})

    found = asyncio.run(_all(Batcher([Mortal()], Workers(batch_size=2), Limits()), [b"a", b"b"]))
    assert found == [(200, b"a"), (200, b"b")]


def test_a_worker_that_does_not_move_is_ended() -> None:
    """Whatever it waits for: one that is stopped may not even take a body."""

    class Stuck(Lane):
        def __init__(self) -> None:
            super().__init__()
            self.ended = threading.Event()

        def ask(self, posts: Sequence[Post]) -> Done:
            assert self.ended.wait(10)
            raise LaneDiedError

        def stop(self) -> None:
            self.ended.set()

    start = time.monotonic()
    (found,) = asyncio.run(_all(Batcher([Stuck()], Workers(response_timeout_s=1), Limits()), [b"x"]))
    assert isinstance(found, ServiceError)
    assert (found.status, time.monotonic() - start < 5) == (504, True)


def test_a_lane_that_cannot_start_is_tried_again_and_nobody_waits_for_ever() -> None:
    class Gone(Lane):
        def start(self) -> dict[str, Any]:
            if self.starts in range(1, 3):
                self.starts += 1
                raise BlockingIOError("no more processes")
            return super().start()

    lane = Gone()
    batcher = Batcher([lane], Workers(response_timeout_s=1), Limits(deadline_ms=200))
    found = asyncio.run(_all(batcher, [b"poison", b"b", b"c"]))
    assert [error.status for error in found if isinstance(error, ServiceError)] == [504] * 3
    assert lane.starts > 1


def test_who_is_still_waited_for_when_the_server_ends_is_told(service: ExplanationService) -> None:
    async def work(client: httpx.AsyncClient) -> httpx.Response:
        asked = asyncio.create_task(client.post("/predictions/xfr", json=question()))
        await asyncio.sleep(0.1)
        asked.cancel()
        return await asked

    class Slow(Lane):
        def ask(self, posts: Sequence[Post]) -> Done:
            time.sleep(0.5)
            return super().ask(posts)

    response = within(make_app(Batcher([Slow()], Workers(), Limits()), allow), work)
    assert (response.status_code, response.json()["code"]) == (503, "busy")


def test_a_long_queue_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi.batching, "_LONGEST_QUEUE", 5)
    found = asyncio.run(_all(Batcher([Lane()], Workers(batch_size=1), Limits()), [b"x"] * 50))
    codes = [reply.code for reply in found if isinstance(reply, ServiceError)]
    assert set(codes) == {"busy"}
    assert 40 <= len(codes) < 50


def test_an_error_of_a_lane_is_its_batchs(
    service: ExplanationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = LocalLane(service)
    monkeypatch.setattr(LocalLane, "ask", lambda self, posts: 1 / 0)
    (found,) = asyncio.run(_all(Batcher([lane], Workers(), Limits()), [b"x"]))
    assert isinstance(found, ServiceError)
    assert found.code == "internal"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


KIND = "multipart/form-data; boundary=b"
FIELD = b'Content-Disposition: form-data; name="threshold"\r\n\r\n0.9'


def test_fields_of_forms() -> None:
    image = b'Content-Disposition: form-data; name="probe"; filename="x"\r\nContent-Type: image/png\r\n\r\n\0\r\n\1'
    body = form(image, b'content-disposition: form-data; name="id"\r\n\r\nq')
    assert fields_of(body, KIND) == {"probe": b"\0\r\n\1", "id": b"q"}
    assert fields_of(b"a=1&b=%20", "application/x-www-form-urlencoded") == {"a": "1", "b": " "}
    assert fields_of(b"{}", "application/json") == {"body": b"{}"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(b"X: y\r\n\r\nq"), KIND),
        (form(*[b'Content-Disposition: form-data; name="a%d"\r\n\r\nq' % n for n in range(1000)]), KIND),
        (b"nonsense", KIND),
        (b"", "multipart/form-data"),
        (form(b"no header"), KIND),
        (b"a=&" * 5_000_000, "application/x-www-form-urlencoded"),
        (b"\xff=1", "application/x-www-form-urlencoded"),
        (form(FIELD, FIELD), KIND),
        (form(*[FIELD] * 200_000), KIND),
        (b"a=1&a=2", "application/x-www-form-urlencoded"),
        (form(FIELD)[:-3], KIND),
        (form(FIELD)[: -len(b"--b--\r\n")], KIND),
        (form(FIELD)[: -len(b"\r\n--b--\r\n")], KIND),
    ],
)
def test_forms_that_are_none(body: bytes, kind: str) -> None:
    found = fields_of(body, kind)
    assert isinstance(found, ServiceError)
    assert found.status == 400


def test_escapes_without_end_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "parse_qsl", None)
    found = fields_of(b"a=" + b"%41%zz" * 2_500_000, "application/x-www-form-urlencoded")
    assert isinstance(found, ServiceError)
    assert found.status == 413


def test_tokens_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is good for a minute more; a damaged or missing file changes nothing."""
    file = tmp_path / "key_file.json"
    first = write_token(file)
    assert file.stat().st_mode & 0o077 == 0
    tokens = Tokens(file)
    second = write_token(file)
    assert tokens.allow(f"Bearer {first}"), "though nobody asked before"
    assert tokens.allow(f"Bearer {second}")
    assert tokens.allow(f"Bearer {first}")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert not tokens.allow(f"Bearer {first}")
    monkeypatch.undo()
    long_since = Tokens(file)
    assert long_since.allow(f"Bearer {second}")
    third, second = second, write_token(file)
    os.utime(file, (time.time() - 61,) * 2)
    assert not long_since.allow(f"Bearer {third}"), "the first to ask, an hour later, may be who should not"
    assert tokens.allow(f"Bearer {second}")
    file.write_text("{")
    assert tokens.allow(f"Bearer {second}")
    file.unlink()
    assert tokens.allow(f"Bearer {second}")
    for wrong in ("", "Bearer ", second, f"Basic {second}", "Bearer x", "Bearer ü", f"Bearer {second} "):
        assert not tokens.allow(wrong)
    assert not Tokens(tmp_path / "nothing").allow("Bearer ")


def test_a_shell_is_small() -> None:
    """What knows FastAPI and uvicorn has at most 300 lines of code; the pool of workers below knows neither."""

    def code_lines(file: Path) -> int:
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        left_out: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    left_out |= set(range(first.lineno, (first.end_lineno or 0) + 1))
        lines = enumerate(source.splitlines(), 1)
        return sum(
            1 for n, line in lines if n not in left_out and line.strip() and not line.strip().startswith("#")
        )

    files = sorted(Path(asgi.__file__).parent.glob("*.py"))
    web = [
        file
        for file in files
        if re.search(r"^\s*(from|import) (fastapi|starlette|uvicorn)", file.read_text(), re.M)
    ]
    lines = {file.name: code_lines(file) for file in web}
    page = lines.pop("page.py")  # a shell of its own, for one person
    assert set(lines) == {"app.py", "run.py", "connections.py"}
    assert sum(lines.values()) <= 300
    assert page <= 200
