"""End to end: an archive, the real TorchServe, REST, gRPC and KServe, good and bad items in real batches."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from helpers.serving_faces import crops, photographs
from helpers.shells import said_address, until_at_work
from typer.testing import CliRunner, Result

from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import InputError
from xfr_plugin.service import (
    Answer,
    Deployment,
    ExplanationService,
    Limits,
    ServiceError,
    parse_request,
    reply_from_json,
)
from xfr_plugin.service.client import Client, ClientError, read_token
from xfr_plugin.torchserve import (
    ArchivePlan,
    Server,
    Workers,
    build_archive,
    start_server,
    write_model_store,
)
from xfr_plugin.torchserve.process import free_ports

pytest.importorskip("ts", reason="TorchServe is not installed")
pytest.importorskip("grpc", reason="grpcio is not installed")

from helpers.serving_grpc import predict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A TorchServe that serves an archive built here, on free ports of this machine; one for all tests."""
    folder = tmp_path_factory.mktemp("serving")
    deployment = Deployment(methods="all", embeddings=True, limits=Limits(json_bytes=4 << 20))
    plan = ArchivePlan("xfr", deployment, Workers(workers=1, batch_size=8, batch_delay_ms=100), vendor=False)
    build_archive(plan, folder / "store")
    write_model_store(folder / "store", "xfr", deployment, plan.workers)
    with start_server(
        folder / "store", folder / "run", ports=free_ports(), enable_model_api="true"
    ) as running:
        running.wait(600)
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Callable[..., urllib3.BaseHTTPResponse]:
    pool = urllib3.PoolManager(maxsize=32, retries=False, timeout=300.0)
    headers = {"Authorization": f"Bearer {server.token()}"}

    def post(path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        return pool.request("POST", server.url + path, headers=headers | more.pop("headers", {}), **more)

    return post


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, token=read_token(server.key_file), timeout=300, connections=16)


@pytest.fixture(scope="module")
def scores() -> dict[tuple[int, int], float]:
    """Known answers: scores of pairs of crops, computed without a server."""
    service = ExplanationService()
    pairs = [(a, b) for a in range(8) for b in range(8) if a < b]
    requests = [parse_request({"probe": crops()[a], "reference": crops()[b]}) for a, b in pairs]
    answers = service.answer_all(requests, [False] * len(pairs))
    return {pair: reply.decision.score for pair, reply in zip(pairs, answers, strict=True)}


def files(a: int, b: int) -> dict[str, tuple[str, bytes]]:
    return {"probe": ("a.png", crops()[a]), "reference": ("b.png", crops()[b])}


def test_without_a_token_nobody_is_answered(server: Server) -> None:
    for path in ("/predictions/xfr", "/explanations/xfr", "/ping"):
        response = urllib3.request("POST", server.url + path, fields=files(0, 1))
        assert response.status == 400
        assert "Token" in response.json()["message"]
    assert server.key_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("explain", [False, True])
def test_rest(http: Callable[..., Any], scores: dict[tuple[int, int], float], explain: bool) -> None:
    path = "/explanations/xfr" if explain else "/predictions/xfr"
    encoded = {
        "probe": base64.b64encode(crops()[0]).decode(),
        "reference": base64.b64encode(crops()[1]).decode(),
    }
    raw = {"Content-Type": "image/png", "x-xfr-request": json.dumps({"reference": [1.0] + [0.0] * 127})}
    for response in (
        http(path, fields=files(0, 1)),
        http(path, json=encoded),
        http(path, body=crops()[0], headers=raw),
    ):
        assert response.status == 200, response.data
        assert response.headers["content-type"] == "application/json"
        answer = reply_from_json(response.data)
        assert isinstance(answer, Answer)
        assert (answer.explanation is not None) == explain
    answer = reply_from_json(http(path, fields=files(0, 1)).data)
    assert isinstance(answer, Answer)
    assert answer.decision.score == pytest.approx(scores[0, 1], abs=1e-4)


def test_mixed_batches_give_everyone_their_own_answer(
    http: Callable[..., Any], scores: dict[tuple[int, int], float]
) -> None:
    """Good and bad items, both endpoints, at the same time: real batches, distinct known answers."""
    jobs: list[tuple[str, dict[str, Any], int, float]] = []
    for number, ((a, b), score) in enumerate(sorted(scores.items())):
        endpoint = "/explanations/xfr" if number % 3 == 0 else "/predictions/xfr"
        jobs.append((endpoint, {**files(a, b), "id": f"{a}-{b}"}, 200, score))
        if number % 4 == 0:
            jobs.append((endpoint, {"probe": ("x", b"nonsense"), "reference": ("b", crops()[b])}, 415, 0.0))
        if number % 5 == 0:
            jobs.append((endpoint, {"probe": ("x", crops()[a])}, 400, 0.0))
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda job: http(job[0], fields=job[1]), jobs))
    sizes = set()
    for (endpoint, fields, status, score), response in zip(jobs, responses, strict=True):
        assert response.status == status
        document = response.json()
        if status != 200:
            assert document["status"] == status
            continue
        assert document["id"] == fields["id"]
        assert document["decision"]["score"] == pytest.approx(score, abs=1e-4)
        assert (document["explanation"] is not None) == endpoint.startswith("/expl")
        sizes.add(document["batch_size"])
    assert max(sizes) > 2, "nothing was batched, so nothing was tested"


def test_grpc(server: Server, scores: dict[tuple[int, int], float]) -> None:
    target = f"127.0.0.1:{server.ports.grpc}"
    fields = {"probe": crops()[0], "reference": crops()[1], "explain": b"true", "id": b"g"}
    answer = reply_from_json(predict(target, server.token(), "xfr", fields))
    assert isinstance(answer, Answer)
    assert answer.id == "g"
    assert answer.explanation is not None
    assert answer.decision.score == pytest.approx(scores[0, 1], abs=1e-4)
    error = json.loads(predict(target, server.token(), "xfr", {"probe": b"x", "reference": crops()[1]}))
    assert (error["code"], error["status"]) == ("not_an_image", 415)


def test_kserve(http: Callable[..., Any], scores: dict[tuple[int, int], float]) -> None:
    texts = [base64.b64encode(crop).decode() for crop in crops()]
    instance = {"probe": texts[0], "reference": texts[1]}
    explained = http("/v1/models/xfr:explain", json={"instances": [instance]}).json()
    assert explained["explanations"][0]["explanation"]["method"] == "leave_one_out"
    plain = http("/v1/models/xfr:predict", json={"instances": [instance, instance]}).json()
    assert [p["decision"]["score"] for p in plain["predictions"]] == pytest.approx(
        [scores[0, 1]] * 2, abs=1e-4
    )
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [1], "data": [texts[place]]}
        for place, name in enumerate(("probe", "reference"))
    ]
    for path, wanted in (("/v2/models/xfr/infer", False), ("/v2/models/xfr/explain", True)):
        document = http(path, json={"inputs": tensors}).json()
        answer = json.loads(document["outputs"][0]["data"][0])
        assert answer["decision"]["score"] == pytest.approx(scores[0, 1], abs=1e-4)
        assert (answer["explanation"] is not None) == wanted


def test_hostile_bodies_get_clean_errors(http: Callable[..., Any]) -> None:
    json_type = {"Content-Type": "application/json"}
    for body, status in (
        (b"{", 400),
        (b"[" * 200_000, 400),
        (b'{"probe": [NaN], "reference": [1]}', 400),
        (b'{"probe": "/etc/passwd", "reference": "../a.jpg"}', 400),
        (b"", 400),
    ):
        response = http("/predictions/xfr", body=body, headers=json_type)
        assert response.status == status
        assert response.json()["code"] == "malformed"
    huge = http("/predictions/xfr", body=b"[" + b"0," * (3 << 20) + b"0]", headers=json_type)
    assert huge.status == 413, "refused by TorchServe itself"
    still = http("/predictions/xfr", fields=files(0, 1))
    assert still.status == 200


def test_client(client: Client, server: Server, scores: dict[tuple[int, int], float]) -> None:
    answer = client.verify(crops()[0], crops()[1], id="mine")
    assert answer.decision.score == pytest.approx(scores[0, 1], abs=1e-4)
    explained = client.explain(crops()[0], crops()[1], method="xssab", returns=["words", "overlay"])
    assert explained.explanation is not None
    assert explained.explanation.method == "xssab"
    stored = client.verify(crops()[0], crops()[1], returns=["embeddings"])
    assert stored.embeddings is not None
    rows = [memoryview(base64.b64decode(text)).cast("f").tolist() for text in stored.embeddings.values()]
    found = client.search(crops()[1], rows, explain=True, ids=["zero", "one"])
    assert found.candidates is not None
    assert found.candidates[0].id == "one"
    assert found.candidates[0].explanation is not None
    with pytest.raises(ServiceError) as caught:
        client.verify(b"nonsense", crops()[1])
    assert caught.value.status == 415
    with pytest.raises(ClientError, match="Token"):
        Client(server.url, token="wrong").verify(crops()[0], crops()[1])


def test_logs_and_metrics_hold_nothing_about_anybody(http: Callable[..., Any], server: Server) -> None:
    name, digits = "Zebulon-Quark", [0.123456789] * 128
    image = base64.b64encode(crops()[0]).decode()
    http("/explanations/xfr", json={"id": name, "probe": image, "reference": digits})
    http("/predictions/xfr", json={"id": name, "probe": "###", "reference": digits, name: 1})
    http(
        "/predictions/xfr",
        fields={**files(0, 1), "gallery": json.dumps({"embeddings": [digits], "ids": [name]})},
    )
    address = f"http://127.0.0.1:{server.ports.metrics}/metrics"
    metrics = urllib3.request("GET", address).data.decode()
    assert 'XfrAnswers{Kind="match"' in metrics
    assert 'XfrErrors{Kind="malformed"' in metrics
    assert 'XfrStageTime{Kind="embed"' in metrics
    log = server.log_text() + metrics
    for secret in (name, "0.12345678", image[100:140]):
        assert secret not in log


def test_the_archive_holds_no_pickle(server: Server) -> None:
    (archive,) = (server.run_dir.parent / "store").glob("*.mar")
    names = zipfile.ZipFile(archive).namelist()
    assert "xfr_handler.py" in names
    assert "xfr_plugin/service/service.py" in names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".pyc"))]


def test_commands_ask_a_server(server: Server, tmp_path: Path) -> None:
    photos = [tmp_path / f"{name}.jpg" for name in "ab"]
    for photo, data in zip(photos, photographs(), strict=True):
        photo.write_bytes(data)

    def run(command: str, *words: Path | str, key: Path = server.key_file) -> Result:
        asked = [command, *photos, "--server", server.url, "--token-file", key, *words]
        return CliRunner().invoke(app, [str(word) for word in asked])

    verified = run("verify")
    assert verified.exit_code == 0, verified.stderr
    assert "MATCH" in verified.stdout
    explained = run("explain", "--out", tmp_path / "result")
    assert explained.exit_code == 0, explained.stderr
    assert "forehead" in explained.stdout
    document = json.loads((tmp_path / "result" / "answer.json").read_text(encoding="utf-8"))
    assert document["explanation"]["method"] == "leave_one_out"
    assert (tmp_path / "result" / "probe.png").read_bytes().startswith(b"\x89PNG")
    wrong = run("verify", key=photos[0])
    assert wrong.exit_code == 2
    assert "xfr: error" in wrong.stderr


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGTERM,
    ],
)
def test_serve_stops_cleanly(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """What is being answered is answered; no process, and no token, stays behind, an impatient signal or not."""
    store, output = server.run_dir.parent / "store", tmp_path / "said.txt"
    command = [
        sys.executable,
        "-m",
        "xfr_plugin.cli",
        "serve",
        "--model-store",
        str(store),
        "--port",
        "0",
    ]
    with output.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            address = said_address(process, output)
            token = read_token(tmp_path / "xfr-run" / "key_file.json")
            with ThreadPoolExecutor(1) as pool, Client(address, token=token, timeout=60) as client:
                asked = pool.submit(client.explain, crops()[0], crops()[1], method="lime")
                until_at_work(worker_of(process))
                process.send_signal(number)
                time.sleep(0.3)
                process.send_signal(number)
                assert asked.result().explanation is not None
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()
    assert "stopped" in output.read_text()
    assert not (tmp_path / "xfr-run" / "key_file.json").exists()
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.PoolManager(retries=False, timeout=5.0).request("GET", address)


def worker_of(server: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that answers."""
    children = psutil.Process(server.pid).children(recursive=True)
    (worker,) = [child for child in children if "model_service_worker" in " ".join(child.cmdline())]
    return worker


def curl_examples() -> list[str]:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "curl" in block and "$TOKEN" in block]


@pytest.mark.parametrize("example", curl_examples(), ids=range(len(curl_examples())))
def test_curl_examples_of_the_page(server: Server, tmp_path: Path, example: str) -> None:
    """As they stand on the page, but for address and key file."""
    for name, data in zip("ab", photographs(), strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    shell = example.replace("http://127.0.0.1:8080", server.url)
    shell = shell.replace("xfr-run/key_file.json", shlex.quote(str(server.key_file)))
    token = {"TOKEN": server.token(), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-euc", shell], cwd=tmp_path, env=token, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        assert "error" not in json.loads(line).get("format", "")
        assert "decision" in line


def test_management_is_on_no_port_and_tokens_rotate(server: Server) -> None:
    """The last test, as the others' token is worth nothing after it."""
    listening = {
        server.ports.inference,
        server.ports.metrics,
        server.ports.grpc,
        server.ports.grpc_management,
    }
    children = psutil.Process(server.process.pid).children(recursive=True)
    found = {
        each.laddr.port
        for child in children
        if child.name() == "java"
        for each in child.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    assert found == listening
    assert server.scratch.stat().st_mode & 0o077 == 0
    old = server.token()
    done = CliRunner().invoke(app, ["serve", "--rotate-token", "--run-dir", str(server.run_dir)])
    assert done.exit_code == 0, done.stderr
    new = server.token()
    assert old != new
    for token, status in ((old, 400), (new, 200)):
        answer = urllib3.request("GET", f"{server.url}/ping", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == status


def test_a_second_server_in_the_folder_is_refused(server: Server) -> None:
    with pytest.raises(InputError, match="another server runs"):
        start_server(server.run_dir.parent / "store", server.run_dir, ports=free_ports())
    assert server.token()
