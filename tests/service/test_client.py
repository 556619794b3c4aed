"""The client: an id with every question, no answer of another's, one more try for what changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xfr_plugin.errors import InputError
from xfr_plugin.service import Answer, Deployment, ExplanationService, ServiceError, parse_request
from xfr_plugin.service.client import Client, ClientError

ROW = [0.1] * 128
Reply = tuple[int, dict[str, Any] | bytes]


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ExplanationService(Deployment()).answer(parse_request({"probe": ROW, "reference": ROW}))


@contextmanager
def server(
    reply: Callable[[int, dict[str, Any]], Reply],
) -> Iterator[tuple[Client, list[dict[str, Any]]]]:
    """A server that answers by a function of turn and question; with what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = reply(len(asked), asked[-1])
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{running.server_port}", timeout=60) as client:
            yield client, asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.parametrize("status", [500, 502, 507])
def test_one_more_try_with_the_same_id(answer: Answer, status: int) -> None:
    def reply(turn: int, question: dict[str, Any]) -> Reply:
        if turn == 1:
            return status, {"code": status, "message": "a worker died"}
        return 200, answer.model_copy(update={"id": question["id"]}).model_dump(mode="json")

    with server(reply) as (client, asked):
        assert client.verify(ROW, ROW).decision.match
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_a_connection_that_breaks_is_made_again(answer: Answer) -> None:
    """A kept one may end as it is used, and a server with it; who has no answer then has asked nothing twice."""

    def reply(turn: int, question: dict[str, Any]) -> Reply:
        if turn == 1:
            raise BrokenPipeError
        return 200, answer.model_copy(update={"id": question["id"]}).model_dump(mode="json")

    with server(reply) as (client, asked):
        assert client.verify(ROW, ROW).decision.match
    assert len(asked) == 2
    with server(lambda turn, question: 1 / 0) as (client, asked), pytest.raises(ClientError, match="reached"):
        client.verify(ROW, ROW)
    assert len(asked) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_until_it_has_time(answer: Answer, status: int) -> None:
    def reply(turn: int, question: dict[str, Any]) -> Reply:
        if turn <= 3:
            return status, ServiceError("busy", "ask again").body(question["id"]).model_dump(mode="json")
        return 200, answer.model_copy(update={"id": question["id"]}).model_dump(mode="json")

    with server(reply) as (client, asked):
        assert client.verify(ROW, ROW).decision.match
    assert len(asked) == 4
    assert all(question == asked[0] for question in asked)


def test_who_asks_a_busy_server_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on as it waits: for a tenth of a second, for ever longer, and for a second at most."""
    now, waits = [0.0], []

    def wait(seconds: float) -> None:
        now[0] += seconds
        waits.append(seconds)

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=wait)
    monkeypatch.setattr("xfr_plugin.service.client.time", clock)

    def reply(turn: int, question: dict[str, Any]) -> Reply:
        return 503, ServiceError("busy", "ask again").body(question["id"]).model_dump(mode="json")

    with server(reply) as (client, asked), pytest.raises(ServiceError, match="ask again"):
        client.verify(ROW, ROW)
    assert len(asked) == len(waits) + 1
    assert 59 <= sum(waits) < 60
    assert waits[0] <= 0.1 < waits[2] < waits[4]
    assert 0.5 <= min(waits[5:]) <= max(waits) <= 1


def test_after_a_timeout_it_is_not_asked_again() -> None:
    """The server may still be at it."""
    over = threading.Event()

    def reply(turn: int, question: dict[str, Any]) -> Reply:
        over.wait(60)
        return 413, b""

    with server(reply) as (client, asked):
        with (
            pytest.raises(ClientError, match="did not answer in time"),
            Client(client.url, timeout=0.5) as other,
        ):
            other.verify(ROW, ROW)
        over.set()
        with pytest.raises(ClientError, match="larger"):
            client.verify(ROW, ROW)  # behind all that was asked before
    assert len(asked) == 2


def test_not_more_than_one(answer: Answer) -> None:
    with (
        server(lambda turn, question: (507, {"message": "a worker died"})) as (client, asked),
        pytest.raises(ClientError, match="507: a worker died"),
    ):
        client.verify(ROW, ROW)
    assert len(asked) == 2


@pytest.mark.parametrize("asked_id", [None, "mine"])
def test_an_answer_of_another_is_refused(answer: Answer, asked_id: str | None) -> None:
    options = {} if asked_id is None else {"id": asked_id}
    for foreign in ("other", None):
        document = answer.model_copy(update={"id": foreign}).model_dump(mode="json")
        with (
            server(lambda turn, question, d=document: (200, d)) as (client, asked),
            pytest.raises(ClientError, match="another request"),
        ):
            client.verify(ROW, ROW, **options)
        assert asked[0]["id"] == (asked_id or asked[0]["id"])
        assert len(asked) == 1


def test_an_error_of_another_is_refused_and_one_without_an_id_is_ours() -> None:
    def error(given: str | None) -> dict[str, Any]:
        return ServiceError("malformed", "no").body(given).model_dump(mode="json")

    with (
        server(lambda turn, question: (400, error("other"))) as (client, _),
        pytest.raises(ClientError, match="another request"),
    ):
        client.verify(ROW, ROW)
    with (
        server(lambda turn, question: (400, error(None))) as (client, _),
        pytest.raises(ServiceError, match="no"),
    ):
        client.verify(ROW, ROW)


def test_a_refusal_without_words() -> None:
    with (
        server(lambda turn, question: (413, b"")) as (client, _),
        pytest.raises(ClientError, match="larger than the server takes"),
    ):
        client.verify(ROW, ROW)


@pytest.mark.parametrize(
    "face",
    [
        Path("a.jpg"),
        "a.jpg",
        np.zeros((2, 2, 3)),
        7,
        None,
        ["a"],
    ],
    ids=["path", "name", "picture", "number", "nothing", "text"],
)
@pytest.mark.parametrize("ask", ["verify", "explain", "search"])
def test_what_is_no_face_is_said_before_anything_is_sent(ask: str, face: Any) -> None:
    client = Client("http://127.0.0.1:9")
    other = [ROW] if ask == "search" else ROW
    with pytest.raises(InputError, match="a face is the bytes of an image file"):
        getattr(client, ask)(face, other)


def test_options_and_galleries_that_are_nothing_for_json_are_named() -> None:
    client = Client("http://127.0.0.1:9")
    with pytest.raises(InputError, match="what JSON can"):
        client.verify(ROW, ROW, threshold=np.float32(0.3))
    with pytest.raises(InputError, match="a gallery holds embeddings"):
        client.search(ROW, ROW)  # type: ignore[arg-type]  # an embedding is no gallery
    with pytest.raises(ClientError, match="refused"):
        client.verify(memoryview(b"bytes"), np.ones(3))  # type: ignore[arg-type]  # as good as bytes and a list


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}, {"connections": 0}]
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="timeout"):
        Client("http://127.0.0.1:9", **wrong)
