"""The second shell as a process: worker processes, signals, its folder; the real thing, once for all tests."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import urllib3
import yaml
from helpers.own_recognizers import MODULE, forget, own_deployment
from helpers.serving_faces import crops
from helpers.shells import said_address, until_at_work
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="FastAPI is not installed")

from xfr_plugin.asgi.run import listening_at
from xfr_plugin.asgi.store import read_store
from xfr_plugin.attr.amortised.model import evidence_file
from xfr_plugin.base.checksums import checksum_file
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.cli.codes import EXIT_BAD_INPUT
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import ChecksumError, InputError
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.service import Deployment, ServiceError
from xfr_plugin.service.client import Client, read_token
from xfr_plugin.service.deployment import Workers

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """A server process, its address and its folder."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    def client(self) -> Client:
        return Client(self.url, token=read_token(self.folder / "xfr-run" / "key_file.json"), timeout=60)

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def started(folder: Path) -> Running:
    (folder / "store").mkdir(exist_ok=True)
    config = folder / "store" / "model-config.yaml"
    if not config.exists():
        config.write_text(yaml.safe_dump({"minWorkers": 1, "handler": {"methods": "all"}}))
    said = folder / "said.txt"
    command = [sys.executable, "-m", "xfr_plugin.cli", "serve", "--engine", "fastapi", "--port", "0"]
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--model-store", "store"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Running(process, said_address(process, said), folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = started(tmp_path_factory.mktemp("asgi"))
    yield running
    running.process.kill()
    running.process.wait()


def connection(server: Running) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((str(address.hostname), address.port or 80), timeout=60)


def test_answers_do_not_wait_for_acknowledgement() -> None:
    """Connections send what they have at once; otherwise each answer takes 40 ms longer."""
    with listening_at("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow
def test_workers_answer_and_are_replaced(server: Running) -> None:
    """One that is killed is started again, and its requests are answered; the client notices nothing."""
    with server.client() as client:
        before = client.verify(crops()[0], crops()[1])
        (worker,) = server.workers()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.explain, crops()[0], crops()[1], method="shapley")
            until_at_work(worker)
            worker.kill()
            assert asked.result().explanation is not None
        assert client.verify(crops()[0], crops()[1]).decision == before.decision
        (other,) = server.workers()
        assert other.pid != worker.pid
        with pytest.raises(ServiceError) as caught:
            client.verify(b"no image", crops()[1])
        assert caught.value.code == "not_an_image"


@pytest.mark.slow
def test_who_has_no_token_holds_nothing(server: Running) -> None:
    """A body that is announced without a token is refused at once; a head that is never finished is closed."""
    with connection(server) as stranger:
        stranger.sendall(
            b"POST /predictions/xfr HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\n" + bytes(1000)
        )
        assert b"401" in stranger.recv(1000)
        while stranger.recv(1000):
            pass
    with connection(server) as silent:
        silent.sendall(b"POST /predi")
        assert silent.recv(1000) == b""


@pytest.mark.slow
def test_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    """Slow and quick ones in turn, all sent before the first answer is read."""
    token = read_token(server.folder / "xfr-run" / "key_file.json")
    sent = b""
    for turn in range(6):
        row = [0.1] * 128
        face = base64.b64encode(crops()[0]).decode() if turn % 2 == 0 else row
        body = json.dumps(
            {"id": f"q{turn}", "probe": face, "reference": row, "explain": turn % 2 == 0}
        ).encode()
        sent += (
            f"POST /predictions/xfr HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
    found: list[str] = []
    with connection(server) as pipe:
        pipe.sendall(sent)
        data = b""
        while len(found) < 6:
            part = pipe.recv(65536)
            assert part, found
            data += part
            found = re.findall(r'"id":"(q\d)"', data.decode("latin-1"))
    assert found == [f"q{turn}" for turn in range(6)]


@pytest.mark.slow
def test_bodies_that_are_half_sent_hold_little(server: Running) -> None:
    """Forty of 15 MiB with the token, by several paths: 256 MiB are let in, and the others are told so."""
    token = read_token(server.folder / "xfr-run" / "key_file.json")
    front = psutil.Process(server.process.pid)
    before = front.memory_info().rss
    refused, waiting = 0, []
    with ExitStack() as stack, server.client() as client:
        for turn in range(40):
            head = f"POST /{('predictions', 'explanations')[turn % 2]}/xfr HTTP/1.1\r\nHost: x\r\n"
            head += f"Authorization: Bearer {token}\r\nContent-Length: {15 << 20}\r\n\r\n"
            half_sent = stack.enter_context(connection(server))
            half_sent.settimeout(0.5)
            with suppress(OSError):  # refused, and closed meanwhile
                half_sent.sendall(head.encode() + bytes(14 << 20))
            waiting.append(half_sent)
        while refused < 20 and (told := select.select(waiting, [], [], 60)[0]):
            for half_sent in told:
                waiting.remove(half_sent)
                with suppress(OSError):
                    refused += b" 503 " in half_sent.recv(1000)
        assert refused >= 20
        assert front.memory_info().rss - before < 400 << 20
        stack.close()
        assert client.verify(crops()[0], crops()[1]).id


@pytest.mark.slow
def test_the_folder_and_the_token(server: Running) -> None:
    run_dir = server.folder / "xfr-run"
    second = CliRunner().invoke(
        app, ["serve", "--engine", "fastapi", "--port", "0", "--run-dir", str(run_dir)]
    )
    assert second.exit_code == 2
    assert "another server runs" in second.stderr
    old = read_token(run_dir / "key_file.json")
    rotated = CliRunner().invoke(app, ["serve", "--rotate-token", "--run-dir", str(run_dir)])
    assert rotated.exit_code == 0, rotated.stderr
    assert read_token(run_dir / "key_file.json") != old
    for token in (old, read_token(run_dir / "key_file.json")):
        headers = {"Authorization": f"Bearer {token}"}
        assert urllib3.request("GET", f"{server.url}/ping", headers=headers).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_being_answered_is_answered(tmp_path: Path, number: signal.Signals) -> None:
    running = started(tmp_path)
    workers = running.workers()
    with running.client() as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.explain, crops()[0], crops()[1], method="shapley")
        until_at_work(workers[0])
        running.process.send_signal(number)
        time.sleep(0.2)
        running.process.send_signal(number)
        assert asked.result().explanation is not None
    assert running.process.wait(timeout=120) == 0
    assert "stopped" in (tmp_path / "said.txt").read_text()
    assert not (tmp_path / "xfr-run" / "key_file.json").exists()
    assert not [worker for worker in workers if worker.is_running()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "package", "scores", "weights apart", "card of openvino"])
def test_a_recognizer_of_ones_own_is_served_out_of_its_archive(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `xfr package` left it: the user's own files are gone when the server starts."""
    pytest.importorskip("model_archiver", reason="torch-model-archiver is not installed")
    own = tmp_path / "own"
    monkeypatch.setattr(sys, "path", [str(own), *sys.path])
    deployment = own_deployment(kind, own)
    command = ["package", "-r", deployment.recognizer, "--no-vendor", "--workers", "1"]
    packaged = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "store")])
    assert packaged.exit_code == 0, packaged.output
    expected = load_recognizer(deployment.recognizer).threshold
    shutil.rmtree(own)
    forget()
    running = started(tmp_path)
    try:
        with running.client() as client:
            answer = client.explain(crops()[0], crops()[1])
            at_another = client.verify(crops()[0], crops()[0], threshold=0.99 * expected)
    finally:
        running.process.terminate()
        running.process.wait()
    assert answer.decision.threshold == expected
    assert answer.explanation is not None
    assert answer.explanation.method == "leave_one_out"
    assert at_another.decision.match


@pytest.mark.slow
def test_a_function_beside_which_the_server_starts_is_served(tmp_path: Path) -> None:
    """Without an archive: a configuration written by hand names it."""
    own_deployment("module", tmp_path)
    (tmp_path / "store").mkdir()
    config = {"minWorkers": 1, "handler": {"recognizer": f"{MODULE}:embedding"}}
    (tmp_path / "store" / "model-config.yaml").write_text(yaml.safe_dump(config))
    running = started(tmp_path)
    try:
        with running.client() as client:
            assert client.verify(crops()[0], crops()[0]).decision.match
    finally:
        running.process.terminate()
        running.process.wait()


@pytest.mark.slow
def test_work_that_takes_too_much_of_the_processor_is_not_begun_again(tmp_path: Path) -> None:
    """The kernel ends the worker; the caller is told so, and the next one is answered."""
    handler = {"methods": "all", "limits": {"cpu_seconds": 1}}
    (tmp_path / "store").mkdir()
    config = tmp_path / "store" / "model-config.yaml"
    config.write_text(yaml.safe_dump({"minWorkers": 1, "handler": handler}))
    running = started(tmp_path)
    try:
        (worker,) = running.workers()
        with running.client() as client:
            with pytest.raises(ServiceError) as caught:
                client.explain(crops()[0], crops()[1], method="xface", returns=["faithfulness"])
            assert (caught.value.code, worker.is_running()) == ("deadline", False)
            assert client.verify(crops()[0], crops()[1]).id
            (other,) = running.workers()
            large = b"\x89PNG" + bytes(4 << 20)
            other.suspend()
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.verify, large, crops()[1])
                time.sleep(1)
                other.kill()
                with pytest.raises(ServiceError) as caught:
                    asked.result()
                assert caught.value.code == "not_an_image"
    finally:
        running.process.terminate()
        running.process.wait()


def test_a_signal_while_it_starts_ends_it_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the server has handlers of its own: what was unpacked and the token do not stay behind."""
    cleaned: list[Path] = []

    def starting(store: Path, run_dir: Path, *more: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(run_dir)

    monkeypatch.setattr("xfr_plugin.asgi.run.serve", starting)
    words = ["serve", "--engine", "fastapi", "--port", "0", "--run-dir", str(tmp_path)]
    before = signal.getsignal(signal.SIGTERM)
    ended = CliRunner().invoke(app, words)
    assert (ended.exit_code, cleaned) == (0, [tmp_path])
    assert "stopped" in ended.stdout
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_store_that_is_not_there_is_no_reason_to_serve_another(tmp_path: Path) -> None:
    """With the defaults another recognizer might answer than the one that was packaged."""
    words = ["serve", "--engine", "fastapi", "--port", "0", "--run-dir", str(tmp_path / "run")]
    ended = CliRunner().invoke(app, [*words, "--model-store", str(tmp_path / "typo")])
    assert ended.exit_code == EXIT_BAD_INPUT
    assert "typo holds no model-config.yaml" in ended.stderr


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with listening_at("127.0.0.1", 0) as taken, pytest.raises(InputError) as caught:
        listening_at("127.0.0.1", taken.getsockname()[1])
    assert "choose another --port" in str(caught.value)
    assert "while" not in str(caught.value)


def note_checksum(archive: Path) -> None:
    checksum_file(archive).write_text(f"{sha256_of(archive)}  {archive.name}\n")


def test_a_store_is_read(tmp_path: Path) -> None:
    """Its settings, and weights that are in its archive only; without a store the defaults hold."""
    assert read_store(tmp_path / "none", tmp_path) == (Deployment(), Workers())
    shipped = evidence_file(load_recognizer("xfr_compact128"))
    assert shipped is not None
    handler = {"evidence": "evidence.safetensors", "threshold": 0.3}
    config = {"minWorkers": 3, "batchSize": 7, "maxBatchDelay": 2, "responseTimeout": 9, "handler": handler}
    store, scratch = tmp_path / "store", tmp_path / "scratch"
    store.mkdir()
    scratch.mkdir()
    (store / "model-config.yaml").write_text(yaml.safe_dump(config))
    with zipfile.ZipFile(store / "xfr.mar", "w") as archive:
        archive.write(shipped, "evidence.safetensors")
        archive.write(shipped, "../outside.safetensors")
    with pytest.raises(InputError, match="no checksum"):
        read_store(store, scratch)
    note_checksum(store / "xfr.mar")
    deployment, workers = read_store(store, scratch)
    assert workers == Workers(workers=3, batch_size=7, batch_delay_ms=2, response_timeout_s=9)
    assert deployment.threshold == 0.3
    assert deployment.evidence == str(scratch / "evidence.safetensors")
    assert [file.name for file in scratch.iterdir()] == ["evidence.safetensors"]
    shutil.rmtree(scratch)
    scratch.mkdir()
    with zipfile.ZipFile(store / "xfr.mar", "w") as archive:
        for name in (
            "net.onnx",
            "net.weights",
            "mine/a.py",
            "mine/b/c.py",
            "mine.txt",
            "other.py",
            "vendored/d.py",
        ):
            archive.writestr(name, "")
    with pytest.raises(ChecksumError, match="not the archive"):
        read_store(store, scratch)
    note_checksum(store / "xfr.mar")
    config["handler"] = {"recognizer": "mine.a:make"}
    (store / "model-config.yaml").write_text(yaml.safe_dump(config))
    assert read_store(store, scratch)[0].recognizer == "mine.a:make"
    found = {str(file.relative_to(scratch)) for file in scratch.rglob("*") if file.is_file()}
    assert found == {"net.onnx", "net.weights", "mine/a.py", "mine/b/c.py", "mine.txt"}
    for wrong in ("batchSize: 0", "- 1", "handler: {treshold: 1}", "{"):
        (store / "model-config.yaml").write_text(wrong)
        with pytest.raises(InputError):
            read_store(store, scratch)


@pytest.mark.parametrize("text", ["minWorkers: 1\nminWorkers: 2\n", "handler:\n  fmr: 0.1\n  'fmr': 0.01\n"])
def test_settings_that_are_given_twice_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model-config.yaml").write_text(text)
    with pytest.raises(InputError, match="is given twice"):
        read_store(tmp_path, tmp_path)
