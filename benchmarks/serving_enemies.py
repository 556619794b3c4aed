"""Enemies: mixed requests while workers are killed at random, and hostile requests beside honest ones.

    OMP_NUM_THREADS=1 python benchmarks/serving_enemies.py --data ../shared/data --engine torchserve fastapi

Mixed: eight clients ask decisions, explanations, galleries and KServe bodies, and malformed ones, and ask once more
when they are told that the server failed; a worker is killed every few seconds. Every answer is checked. Hostile:
four clients send what explodes or breaks off, with and without the token. Four honest ones ask for decisions
meanwhile, and ask again when they are told that the server is busy, which their time counts.

Each minute a line on stderr says how far it is.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
from PIL import Image
from serving_load import (
    BOUNDARY,
    Question,
    Server,
    form,
    memory,
    questions,
    resident,
    serve,
    worker_processes,
)

from xfr_plugin.service import Deployment, ExplanationService
from xfr_plugin.torchserve import Workers

AGAIN = (429, 500, 502, 503, 507)
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Mixed:
    """Kinds of requests: path, headers, body, and whether a document is the right answer."""

    def __init__(self, asked: Sequence[Question], seed: int) -> None:
        self.asked, self.random = asked, random.Random(seed)

    def next(self) -> tuple[str, dict[str, str], bytes, Callable[[int, dict[str, object]], bool]]:
        question = self.random.choice(self.asked)
        kind = self.random.choices(range(5), weights=(70, 5, 15, 5, 5))[0]
        pair = {"id": question.name, "probe": text(question.probe), "reference": text(question.reference)}
        if kind == 0:
            return "/predictions/xfr", FORM, form(question, {}), lambda s, d: _right(s, d, question)
        if kind == 1:
            body = json.dumps({**pair, "returns": ["regions", "words"]}).encode()
            return "/explanations/xfr", JSON, body, lambda s, d: _right(s, d, question, "explanation")
        if kind == 2:
            body = json.dumps({"instances": [pair, {"probe": "?"}]}).encode()
            return "/v1/models/xfr:predict", JSON, body, lambda s, d: _right_first(s, d, question)
        if kind == 3:
            rows = np.random.default_rng(self.random.randrange(10**6)).normal(size=(50, 128))
            body = json.dumps(
                {"id": question.name, "probe": rows[7].tolist(), "gallery": {"embeddings": rows.tolist()}}
            ).encode()
            return "/predictions/xfr", JSON, body, lambda s, d: _found(s, d, question.name, 7)
        return "/predictions/xfr", JSON, b'{"probe": "?"}', lambda s, d: s == 400 and d["code"] == "malformed"


def _right(status: int, document: dict[str, object], question: Question, also: str = "decision") -> bool:
    score = document["decision"]["score"]  # type: ignore[index]  # of an answer
    return (
        status == 200
        and document["id"] == question.name
        and abs(score - question.score) < 1e-4
        and bool(document[also])
    )


def _right_first(status: int, document: dict[str, object], question: Question) -> bool:
    first, second = document["predictions"]  # type: ignore[misc]  # of an answer
    return _right(status, first, question) and second["code"] == "malformed"


def _found(status: int, document: dict[str, object], name: str, index: int) -> bool:
    best = document["candidates"][0]["index"]  # type: ignore[index]  # of an answer
    return status == 200 and document["id"] == name and best == index


def mixed(server: Server, asked: Sequence[Question], count: int, every: float) -> str:
    """Ask, kill, check; a line of the table."""
    outcomes: Counter[str] = Counter()
    lock, over = threading.Lock(), threading.Event()
    kills = 0
    before = sum(memory(server))

    def client(number: int) -> None:
        kinds = Mixed(asked, number)
        for _ in range(count // 8):
            path, headers, body, is_right = kinds.next()
            outcome = _ask(server, path, headers, body, is_right)
            if outcome in map(str, AGAIN) or outcome == "broken":
                outcome = f"{_ask(server, path, headers, body, is_right)}, asked again after {outcome}"
            with lock:
                outcomes[outcome] += 1

    def killer() -> None:
        nonlocal kills
        chance = random.Random(0)
        while not over.wait(every * chance.uniform(0.5, 1.5)):
            alive = [worker for worker in worker_processes(server) if resident(worker) > 300]
            if alive:  # and not those that are just being started
                chance.choice(alive).kill()
                kills += 1

    thread = threading.Thread(target=killer)
    thread.start()
    start = time.perf_counter()
    with telling("mixed", outcomes, lock), ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    seconds = time.perf_counter() - start
    over.set()
    thread.join()
    told = ", ".join(f"{number} × {kind}" for kind, number in sorted(outcomes.items()) if kind != "right")
    wrong, silent = (
        sum(number for kind, number in outcomes.items() if kind.startswith(what))
        for what in ("wrong", "no answer")
    )
    return (
        f"{sum(outcomes.values())} | {kills} | {outcomes['right']} | {told or 'none'} | {wrong} | {silent} | "
        f"{seconds:.0f} s | {before} → {sum(memory(server))}"
    )


@contextmanager
def telling(what: str, outcomes: Counter[str], lock: threading.Lock) -> Iterator[None]:
    """Say each minute, until the block ends, what came of how many requests."""
    over, start = threading.Event(), time.perf_counter()

    def tell() -> None:
        while not over.wait(60):
            with lock:
                found = dict(outcomes)
            minutes = (time.perf_counter() - start) / 60
            print(f"{what}: {sum(found.values())} in {minutes:.0f} min: {found}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _ask(
    server: Server,
    path: str,
    headers: dict[str, str],
    body: bytes,
    is_right: Callable[[int, dict[str, object]], bool],
) -> str:
    connection = http.client.HTTPConnection(str(urlsplit(server.url).netloc), timeout=120)
    try:
        connection.request("POST", path, body, {**headers, "Authorization": f"Bearer {server.token()}"})
        response = connection.getresponse()
        data = response.read()
    except TimeoutError:
        return "no answer"
    except (OSError, http.client.HTTPException):
        return "broken"
    finally:
        connection.close()
    if response.status in AGAIN or response.status == 504:
        return str(response.status)
    try:
        return "right" if is_right(response.status, json.loads(data)) else "wrong"
    except (ValueError, KeyError, TypeError):
        return "wrong"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(width + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def scans(side: int, count: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def hostile_bodies() -> dict[str, tuple[dict[str, str], bytes]]:
    """Whole requests that want too much."""
    noise = io.BytesIO()
    Image.effect_noise((1600, 1600), 90).convert("RGB").save(noise, "PNG")
    images = {
        "high": png(1, 32000),
        "bomb": png(30_000, 30_000 // 10),
        "24 megapixels": png(6000, 4000),
        "scans": scans(1500, 400),
        "scans within the limit": scans(1500, 150),
        "chunks": png(112, 112, chunk(b"teXt", b"") * 20_000),
        "packed text": png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20)))),
        "no face": noise.getvalue(),
        "garbage": random.Random(0).randbytes(100_000),
    }
    found: dict[str, tuple[dict[str, str], bytes]] = {}
    for name, image in images.items():
        for alignment in ("aligned", "detect"):
            options = {"alignment": alignment, "deadline_ms": "5000"}
            found[f"{name}, {alignment}"] = (FORM, form(Question("x", image, image, 0.0), options))
    row = [0.1] * 128
    search = {
        "probe": row,
        "gallery": {"embeddings": [row] * 12, "top": 10},
        "returns": ["maps"],
        "map_format": "float32",
    }
    documents = {
        "nulls": b'{"probe":[' + b"null," * 3_000_000 + b"null]}",
        "rows": b'{"probe":[1],"gallery":{"embeddings":[' + b"[1]," * 1_000_000 + b"[1]]}}",
        "depth": b"[" * 1_000_000,
        "keys": b"{" + b'"a":1,' * 1_000_000 + b'"b":1}',
        "large answers": json.dumps({"instances": [search] * 16}).encode(),
        "too long": bytes(17 << 20),
    }
    found |= {name: (JSON, body) for name, body in documents.items()}
    fields = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nq\r\n' % (BOUNDARY.encode(), n)
        for n in range(5000)
    )
    found["many fields"] = (FORM, fields + f"--{BOUNDARY}--\r\n".encode())
    return found


def attack(
    server: Server, name: str, kind: dict[str, str], body: bytes, authorized: bool, part: float
) -> str:
    """Send a request, whole or broken off; what came back."""
    address = urlsplit(server.url)
    token = server.token() if authorized else "wrong"
    head = "".join(f"{key}: {value}\r\n" for key, value in kind.items())
    path = "/explanations/xfr" if "answers" in name else "/predictions/xfr"
    request = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body[: int(len(body) * part)]
    try:
        with socket.create_connection((str(address.hostname), address.port or 80), timeout=60) as connection:
            connection.sendall(request)
            if part < 1:
                time.sleep(0.2)
                return "broken off"
            return connection.recv(64).split(b" ")[1].decode()
    except TimeoutError:
        return "no answer"
    except (OSError, IndexError):
        return "closed"


def enemies(server: Server, count: int) -> Counter[str]:
    """What came back to four hostile clients."""
    bodies = list(hostile_bodies().items())
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def enemy(number: int) -> None:
        chance = random.Random(number)
        for _ in range(count // 4):
            name, (kind, body) = chance.choice(bodies)
            authorized, part = chance.random() < 0.8, chance.choice([1.0, 1.0, 1.0, 0.5])
            outcome = attack(server, name, kind, body, authorized, part)
            with lock:
                outcomes[outcome] += 1

    with telling("hostile", outcomes, lock), ThreadPoolExecutor(4) as pool:
        list(pool.map(enemy, range(4)))
    return outcomes


@contextmanager
def in_a_process(work: Callable[[], Counter[str]]) -> Iterator[Callable[[], Counter[str]]]:
    """What waits for the work, which begins at once in a copy of this process."""
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=lambda: writer.send(work()), daemon=True)
    process.start()
    writer.close()
    try:
        yield reader.recv
    finally:
        process.kill()
        process.join()


def hostile(server: Server, asked: Sequence[Question], count: int) -> str:
    """Honest clients alone, and then beside hostile ones; a line of the table.

    The hostile ones are a process of their own, as an honest client's threads would wait for theirs.
    """
    before = [worker.pid for worker in worker_processes(server)]
    honest(server, asked, lambda spent: spent < 10.0)  # until it is warm
    alone, _ = honest(server, asked, lambda spent: spent < 20.0)
    over, peaks = threading.Event(), [sum(memory(server))]
    start_memory = peaks[0]

    def watch() -> None:
        while not over.wait(0.25):
            peaks.append(sum(memory(server)))

    with in_a_process(lambda: enemies(server, count)) as attacked, ThreadPoolExecutor(2) as pool:
        waited = pool.submit(attacked)
        waited.add_done_callback(lambda _: over.set())
        watched = pool.submit(watch)
        meanwhile, busy = honest(server, asked, lambda spent: not over.is_set())
        outcomes = waited.result()
        watched.result()
    ended = len(set(before) - {worker.pid for worker in worker_processes(server)})
    told = ", ".join(f"{number} × {kind}" for kind, number in sorted(outcomes.items()))
    return (
        f"{sum(outcomes.values())} | {told} | {ended} | {start_memory} / {max(peaks)} / {sum(memory(server))} | "
        f"{np.percentile(alone, 95):.0f} | {np.percentile(meanwhile, 95):.0f} ({len(meanwhile)}) | {busy}"
    )


def honest(
    server: Server, asked: Sequence[Question], go_on: Callable[[float], bool]
) -> tuple[list[float], int]:
    """Milliseconds of decisions asked by four clients, and how often they were told to come again.

    Raises:
        RuntimeError: a decision is wrong or missing, or 20 times in turn there is none.
    """
    start = time.perf_counter()

    def client(number: int) -> tuple[list[float], int]:
        spent: list[float] = []
        busy = 0
        for turn in range(10**6):
            if not go_on(time.perf_counter() - start):
                break
            question = asked[(31 * number + turn) % len(asked)]
            began = time.perf_counter()
            refused = until_answered(server, question)
            spent.append(1000 * (time.perf_counter() - began))
            busy += refused
        return spent, busy

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(client, range(4)))
    return [value for spent, _ in found for value in spent], sum(busy for _, busy in found)


def until_answered(server: Server, question: Question) -> int:
    """Ask for a decision; returns how often the server was busy before it answered."""
    body = form(question, {})
    for refused in range(20):
        outcome = _ask(server, "/predictions/xfr", FORM, body, lambda s, d: _right(s, d, question))
        if outcome == "right":
            return refused
        if outcome != "503":
            break
    raise RuntimeError(f"an honest request: {outcome}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", nargs="+", default=["torchserve", "fastapi"])
    parser.add_argument("--mixed", type=int, default=100_000, help="requests; 0 leaves them out")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds, about")
    parser.add_argument("--hostile", type=int, default=10_000, help="requests; 0 leaves them out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop the server first
    torch.set_num_threads(1)
    asked = questions(options.data, 60, ExplanationService())
    print(f"{psutil.cpu_count()} CPUs, load {psutil.getloadavg()[0]:.1f} before", flush=True)
    for engine in options.engine:
        with (
            TemporaryDirectory() as folder,
            serve(engine, Path(folder), Deployment(), Workers(), {}) as server,
        ):
            if options.hostile:
                print(f"| {engine}, hostile | {hostile(server, asked, options.hostile)} |", flush=True)
            if options.mixed:
                print(
                    f"| {engine}, mixed | {mixed(server, asked, options.mixed, options.kill_every)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
