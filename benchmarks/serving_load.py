"""Load: the server beside the same work in-process, on this machine; every answer is checked to be its request's.

    OMP_NUM_THREADS=1 python benchmarks/serving_load.py --data ../shared/data --engine torchserve fastapi

Starts each shell on this machine, and asks it over loopback by 1, 4, 16 and 64 clients that each
wait for their answer; before and after every run the same questions go to the service in this process, by two threads
in batches of eight, while the server is idle. Ratios are of neighbouring runs, as others may use the machine. CPU
time is that of what takes requests, of workers, of the clients, and of the same work in-process.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
from PIL import Image

from xfr_plugin.service import Answer, Deployment, ExplanationService, Request, parse_request
from xfr_plugin.service.client import read_token
from xfr_plugin.torchserve import ArchivePlan, Workers, build_archive, start_server, write_model_store
from xfr_plugin.torchserve.process import free_ports

BOUNDARY = "xfr-benchmark"
CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "decision": ("predictions", {}),
    "photographs": ("predictions", {"alignment": "detect"}),
    "explained": ("explanations", {"returns": "regions,words"}),
    "reconstruction": ("explanations", {"returns": "regions,words", "method": "reconstruction"}),
    "amortised": ("explanations", {"returns": "regions,words", "method": "amortised"}),
    "with pictures": ("explanations", {"returns": "regions,words,overlay,maps", "method": "reconstruction"}),
    "xssab": ("explanations", {"returns": "regions,words", "method": "xssab"}),
    "fggb": ("explanations", {"returns": "regions,words", "method": "fggb"}),
    "leave_one_out": ("explanations", {"returns": "regions,words", "method": "leave_one_out"}),
}
"""What is asked: endpoint and options; `explained` by the deployment's own method, `photographs` are not aligned."""

COUNTS = {
    "decision": 2500, "photographs": 600, "explained": 300, "reconstruction": 600, "amortised": 600,
    "with pictures": 300, "xssab": 300, "fggb": 24, "leave_one_out": 300,
}  # fmt: skip
"""Requests for each number of clients, in all rounds; 10,000 decisions in all."""

CLIENTS = (1, 4, 16, 64)

_WARMING = 1000
"""Decisions before anything is measured."""


class Server(Protocol):
    """A running server of either engine."""

    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str: ...

    def token(self) -> str: ...


@dataclass
class FastapiServer:
    """`xfr serve --engine fastapi`, in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        (line,) = (line for line in self._said() if line.startswith("ready:"))
        return line.split()[1]

    def token(self) -> str:
        return read_token(self.folder / "run" / "key_file.json")

    def wait(self) -> None:
        while not any(line.startswith("stop:") for line in self._said()):
            if self.process.poll() is not None:
                raise RuntimeError("\n".join(self._said()))
            time.sleep(0.1)

    def _said(self) -> list[str]:
        return (self.folder / "said.txt").read_text().splitlines()


@dataclass(frozen=True)
class Question:
    """A pair: its files, and the score that is its answer."""

    name: str
    probe: bytes
    reference: bytes
    score: float


def questions(
    data: Path, count: int, service: ExplanationService, photographs: bool = False
) -> list[Question]:
    """Pairs of different people's aligned faces, of scores that differ from each other by more than 0.0005.

    Or of photographs of a megapixel: LFW's, enlarged.
    """
    folder = data / "faces" / ("lfw250" if photographs else "lfw112")
    everybody = sorted(folder.iterdir())
    people = everybody[:: max(1, len(everybody) // (2 * count))]
    files = [_photograph(sorted(person.glob("*.jpg"))[0], 4 if photographs else 1) for person in people]
    pairs = list(zip(files[::2], files[1::2], strict=False))
    options = {"alignment": "detect"} if photographs else {}
    asked = [parse_request({"probe": a, "reference": b, **options}) for a, b in pairs]
    found: list[Question] = []
    taken: list[float] = []
    for (probe, reference), request in zip(pairs, asked, strict=True):
        score = service.answer(request).decision.score
        if all(abs(score - other) > 5e-4 for other in taken):
            taken.append(score)
            found.append(Question(f"q{len(found)}", probe, reference, score))
    return found


def _photograph(path: Path, scale: int) -> bytes:
    if scale == 1:
        return path.read_bytes()
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.resize((image.width * scale, image.height * scale)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def form(question: Question, options: dict[str, str]) -> bytes:
    """The body of a request."""
    parts = []
    for name, value in {**options, "id": question.name}.items():
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        )
    for name, file in (("probe", question.probe), ("reference", question.reference)):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n'
        parts.append(head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + file + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Run:
    """What a run took."""

    seconds: float
    latencies: np.ndarray
    busy: int
    batch: float
    cpu: tuple[float, ...]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def cpu_ms(self) -> list[float]:
        """CPU time of a request, by whose it is."""
        return [1000 * seconds / len(self.latencies) for seconds in self.cpu]


def ask_server(server: Server, kind: str, asked: Sequence[Question], clients: int) -> Run:
    """`clients` threads with a connection each; raises for any answer that is not its request's.

    Who is told that the server is busy asks again after a tenth of a second, which his time counts.
    """
    endpoint, options = CLASSES[kind]
    path = f"/{endpoint}/xfr"
    headers = {
        "Authorization": f"Bearer {server.token()}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    bodies = {question.name: form(question, options) for question in asked}
    waiting = iter(asked)
    lock = threading.Lock()
    latencies, sizes, refused = [], [], []

    def ask(connection: http.client.HTTPConnection, question: Question) -> tuple[int, bytes]:
        connection.request("POST", path, bodies[question.name], headers)
        response = connection.getresponse()
        return response.status, response.read()

    def client() -> None:
        connection = http.client.HTTPConnection(str(urlsplit(server.url).netloc), timeout=300)
        while True:
            with lock:
                question = next(waiting, None)
            if question is None:
                break
            start = time.perf_counter()
            status, data = ask(connection, question)
            while status == 503:
                refused.append(question.name)
                time.sleep(0.1)
                status, data = ask(connection, question)
            spent = time.perf_counter() - start
            document = json.loads(data)
            if status != 200 or document["id"] != question.name:
                raise RuntimeError(f"wrong answer: {status} {data[:200]!r}")
            if abs(document["decision"]["score"] - question.score) > 1e-4:
                raise RuntimeError("an answer of another pair")
            latencies.append(spent)
            sizes.append(document["batch_size"])
        connection.close()

    start, before = time.perf_counter(), cpu_seconds(server)
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    spent = tuple(b - a for a, b in zip(before, cpu_seconds(server), strict=True))
    return Run(time.perf_counter() - start, np.array(latencies), len(refused), float(np.mean(sizes)), spent)


def ask_in_process(
    service: ExplanationService, kind: str, asked: Sequence[Question], threads: int, size: int
) -> Run:
    """The same questions to the service in this process, in batches."""
    endpoint, options = CLASSES[kind]
    explain = endpoint == "explanations"
    returns = {"returns": options["returns"].split(",")} if "returns" in options else {}
    latencies: list[float] = []

    def work(batch: Sequence[Question]) -> None:
        start = time.perf_counter()
        requests: list[Request] = [
            parse_request({**options, **returns, "id": q.name, "probe": q.probe, "reference": q.reference})
            for q in batch
        ]
        for question, reply in zip(batch, service.answer_all(requests, [explain] * len(batch)), strict=True):
            assert isinstance(reply, Answer)
            assert abs(reply.decision.score - question.score) < 1e-4
        latencies.extend([time.perf_counter() - start] * len(batch))

    start, before = time.perf_counter(), time.process_time()
    batches = [asked[i : i + size] for i in range(0, len(asked), size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, batches))
    spent = time.process_time() - before
    return Run(time.perf_counter() - start, np.array(latencies), 0, size, (spent,))


def cpu_seconds(server: Server) -> tuple[float, float, float]:
    """CPU time so far: of what takes the requests, of all workers, and of this process."""
    front, workers = (sum(map(_cpu, some)) for some in processes(server))
    return front, workers, time.process_time()


def memory(server: Server) -> tuple[int, int]:
    """MiB of what takes the requests, and of all workers: resident, of which workers share some."""
    front, workers = (sum(map(resident, some)) for some in processes(server))
    return front, workers


def processes(server: Server) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """What takes the requests, and the workers."""
    parent, workers = psutil.Process(server.process.pid), worker_processes(server)
    others = [each for each in [parent, *parent.children(recursive=True)] if each not in workers]
    return others, workers


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def resident(process: psutil.Process) -> int:
    """MiB; 0 of a process that is gone."""
    try:
        return process.memory_info().rss >> 20
    except psutil.NoSuchProcess:
        return 0


def worker_processes(server: Server) -> list[psutil.Process]:
    """Processes that hold the models."""
    found = psutil.Process(server.process.pid).children(recursive=True)
    words = ("model_service_worker", "spawn_main")
    return [process for process in found if any(word in _command(process) for word in words)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def measure(
    engine: str,
    server: Server,
    service: ExplanationService,
    kind: str,
    asked: list[Question],
    options: argparse.Namespace,
) -> None:
    every = itertools.cycle(asked)
    total = max(int(COUNTS[kind] * options.share), 8)
    ask_server(server, kind, [next(every) for _ in range(16)], 16)  # nobody's first request is measured
    for clients in options.clients:
        rounds = max(1, min(options.rounds, total // max(clients, 8)))
        size = max(total // rounds, 1)
        runs, ratios, rates, own = [], [], [], []
        before = ask_in_process(service, kind, [next(every) for _ in range(size)], 2, 8)
        for _ in range(rounds):
            runs.append(ask_server(server, kind, [next(every) for _ in range(size)], clients))
            after = ask_in_process(service, kind, [next(every) for _ in range(size)], 2, 8)
            rates.append((before.rate + after.rate) / 2)
            ratios.append(runs[-1].rate / rates[-1])
            own += after.cpu_ms()
            before = after
        latencies = 1000 * np.concatenate([run.latencies for run in runs])
        p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
        rate = len(latencies) / sum(run.seconds for run in runs)
        batch = float(np.mean([run.batch for run in runs]))
        busy = sum(run.busy for run in runs)
        front, workers = memory(server)
        cpu = " + ".join(f"{value:.1f}" for value in np.mean([run.cpu_ms() for run in runs], axis=0))
        spread = f"{np.median(ratios):4.0%} ({min(ratios):.0%}–{max(ratios):.0%})"
        print(
            f"| {engine} | {kind} | {clients} | {len(latencies)} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {rate:.1f} | "
            f"{np.mean(rates):.1f} | {spread} | {cpu} / {np.mean(own):.1f} | {batch:.1f} | {busy} | "
            f"{front} + {workers} |",
            flush=True,
        )


@contextmanager
def serve(
    engine: str, folder: Path, deployment: Deployment, workers: Workers, properties: dict[str, str]
) -> Iterator[Server]:
    """A server of an engine, until the block ends."""
    plan = ArchivePlan("xfr", deployment, workers, vendor=False)
    write_model_store(folder / "store", plan.name, deployment, workers)
    if engine == "torchserve":
        build_archive(plan, folder / "store")
        with start_server(folder / "store", folder / "run", ports=free_ports(), **properties) as running:
            running.wait()
            yield running
        return
    command = [sys.executable, "-m", "xfr_plugin.cli", "serve", "--engine", "fastapi", "--port", "0"]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [*command, "--model-store", str(folder / "store"), "--run-dir", str(folder / "run")],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    server = FastapiServer(process, folder)
    try:
        server.wait()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", nargs="+", default=["torchserve", "fastapi"])
    parser.add_argument("--kinds", nargs="+", default=list(CLASSES), choices=list(CLASSES))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--workers", type=int, default=Workers().workers)
    parser.add_argument("--batch-size", type=int, default=Workers().batch_size)
    parser.add_argument("--batch-delay", type=int, default=Workers().batch_delay_ms)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the requests")
    parser.add_argument("--set", nargs="*", default=[], help="entries of config.properties, name=value")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop the server first
    torch.set_num_threads(1)
    workers = Workers(
        workers=options.workers, batch_size=options.batch_size, batch_delay_ms=options.batch_delay
    )
    deployment = Deployment(methods="all", threads=options.threads)
    service = ExplanationService(deployment)
    asked = questions(options.data, options.pairs, service)
    photographs = questions(options.data, 20, service, True) if "photographs" in options.kinds else []
    print(
        f"{len(asked)} pairs of distinct scores; {workers!r}, {options.set}; {psutil.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f} before"
    )
    print(
        "| shell | asked for | clients | requests | p50 ms | p95 | p99 | server /s | in-process /s "
        "| ratio (range) | CPU ms front + workers + clients / in-process | batch | told busy | MiB front + workers |"
    )
    print("|" + "---|" * 14, flush=True)
    properties = dict(entry.split("=", 1) for entry in options.set)
    for engine in options.engine:
        with (
            TemporaryDirectory() as folder,
            serve(engine, Path(folder), deployment, workers, properties) as server,
        ):
            # a server at work is warm: until then Java compiles itself, which takes as long as what it does
            ask_server(server, "decision", list(itertools.islice(itertools.cycle(asked), _WARMING)), 16)
            for kind in options.kinds:
                measure(
                    engine, server, service, kind, photographs if kind == "photographs" else asked, options
                )


if __name__ == "__main__":
    main()
