"""Faults under load: what callers see, and how long it lasts; every answer is checked to be its request's.

    OMP_NUM_THREADS=1 python benchmarks/serving_faults.py --data ../shared/data

Eight clients ask without pause while a worker is killed, clients vanish in mid-request, uploads crawl, bodies come
half, the temporary disk fills up (a small tmpfs, where it may be mounted), and the model is unregistered and
registered again. A wrong answer, or a request without answer or error, ends the program with a traceback.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

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
from xfr_plugin.torchserve import Server as TorchServe
from xfr_plugin.torchserve import Workers

CLIENTS = 8


class Load:
    """Clients that ask until they are told to stop, and what became of each request."""

    def __init__(self, server: Server, asked: Sequence[Question]) -> None:
        self.server, self.asked = server, asked
        self.seen: list[tuple[float, str]] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        self.wrong: list[str] = []
        self.sent = 0
        self.lock = threading.Lock()

    def __enter__(self) -> Load:
        self.start = time.perf_counter()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=120)
        stuck = sum(thread.is_alive() for thread in self.threads)
        if stuck or self.wrong or self.sent != len(self.seen):
            raise RuntimeError(
                f"{stuck} clients without an answer, {self.sent - len(self.seen)} lost, {self.wrong[:3]}"
            )

    def _client(self, number: int) -> None:
        token = self.server.token()
        for turn in range(10**6):
            if self.stopping.is_set():
                return
            question = self.asked[(number * 31 + turn) % len(self.asked)]
            with self.lock:
                self.sent += 1
            kind = self._ask(question, token)
            with self.lock:
                self.seen.append((time.perf_counter() - self.start, kind))
            if kind != "200":
                time.sleep(0.05)  # as a client would

    def _ask(self, question: Question, token: str) -> str:
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        }
        connection = http.client.HTTPConnection(str(urlsplit(self.server.url).netloc), timeout=60)
        try:
            connection.request("POST", "/predictions/xfr", form(question, {}), headers)
            response = connection.getresponse()
            document = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return type(error).__name__
        finally:
            connection.close()
        if response.status == 200:
            right = document["id"] == question.name
            if not right or abs(document["decision"]["score"] - question.score) > 1e-4:
                self.wrong.append(question.name)
        return str(response.status)

    def table(self, since: float) -> str:
        """Requests by outcome, and when the last error was seen, in seconds after `since`."""
        kinds = Counter(kind for _, kind in self.seen)
        errors = [moment - since for moment, kind in self.seen if kind != "200" and moment >= since]
        told = (
            ", ".join(f"{number} × {kind}" for kind, number in sorted(kinds.items()) if kind != "200")
            or "none"
        )
        last = f"{max(errors):.1f} s" if errors else "–"
        return f"{self.sent} | {kinds['200']} | {told} | {last}"

    def now(self) -> float:
        return time.perf_counter() - self.start


def kill_worker(server: Server, load: Load) -> str:
    loaded_size = 0.8 * min(resident(worker) for worker in worker_processes(server))
    worker_processes(server)[0].kill()
    start = time.perf_counter()
    while time.perf_counter() - start < 120:
        time.sleep(0.5)
        loaded = [w for w in worker_processes(server) if resident(w) > loaded_size]
        if len(loaded) == 2:
            return f"both workers had loaded their models after {time.perf_counter() - start:.0f} s"
    return "the worker did not come back in 120 s"


def clients_vanish(server: Server, load: Load) -> str:
    """Half of them in the middle of the body, half after the whole of it."""
    body = form(load.asked[0], {})
    for turn in range(100):
        with _opened(server, len(body)) as connection:
            connection.sendall(body[: len(body) // 2] if turn % 2 else body)
    time.sleep(3.0)
    return "100 clients vanished"


def uploads_crawl(server: Server, load: Load) -> str:
    """A byte every half second, by 100 connections, for ten seconds."""
    before = len(load.seen)
    time.sleep(5.0)
    quiet = (len(load.seen) - before) / 5.0
    crawling = [_opened(server, 1 << 20) for _ in range(100)]
    before = len(load.seen)
    closed = 0
    for _ in range(20):
        alive = [connection for connection in crawling if _crawls(connection)]
        closed += len(crawling) - len(alive)
        crawling = alive
        time.sleep(0.5)
    busy = (len(load.seen) - before) / 10.0
    for connection in crawling:
        connection.close()
    return f"{quiet:.0f} answers/s before, {busy:.0f} meanwhile; the server closed {closed} of 100"


def bodies_stay_half(server: Server, load: Load) -> str:
    """Fifty of 15 MiB, of which 14 come, with the token; held for ten seconds."""
    held, sent = [], 0
    for _ in range(50):
        connection = _opened(server, 15 << 20)
        connection.settimeout(2.0)
        held.append(connection)
        try:
            connection.sendall(bytes(14 << 20))
            sent += 1
        except OSError:
            pass
    front = memory(server)[0]
    time.sleep(10.0)
    for connection in held:
        connection.close()
    return f"{sent} of 50 were read so far; {front} MiB in front of the workers then"


def _crawls(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
    except OSError:
        return False
    return True


def model_leaves_and_returns(server: Server, load: Load) -> str:
    assert isinstance(server, TorchServe)
    gone, _ = server.manage("DELETE", f"/models/{server.model}", timeout=60)
    time.sleep(2.0)
    start = time.perf_counter()
    query = f"?url={server.model}.mar&initial_workers=2&synchronous=true"
    back, _ = server.manage("POST", f"/models{query}", timeout=300)
    return f"DELETE {gone}; POST {back} after {time.perf_counter() - start:.0f} s"


def disk_fills(server: Server, load: Load) -> str:
    """Fill the file system that temporary folder and logs are on."""
    assert isinstance(server, TorchServe)
    filler = server.scratch / "filler"
    written = 0
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                written += file.write(bytes(1 << 16))
        except OSError as error:
            reason = error.strerror
    time.sleep(5.0)
    filler.unlink()
    time.sleep(1.0)
    return f"{written >> 20} MiB written until: {reason}"


def _opened(server: Server, length: int) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    connection.sendall(
        f"POST /predictions/xfr HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token()}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


def suffer(name: str, fault: Callable[[Server, Load], str], server: Server, asked: list[Question]) -> None:
    with Load(server, asked) as load:
        time.sleep(2.0)
        since = load.now()
        said = fault(server, load)
        time.sleep(3.0)
    ask = Load(server, asked)
    after = Counter(ask._ask(question, server.token()) for question in asked[:20])
    if set(after) != {"200"} or ask.wrong:
        raise RuntimeError(f"{name}: afterwards {after}, {ask.wrong}")
    print(f"| {name} | {load.table(since)} | {said} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", nargs="+", default=["torchserve", "fastapi"])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop the server first
    asked = questions(options.data, 60, ExplanationService())
    print("| fault | requests | answered, all right | other outcomes | last of these | what happened |")
    print("|---|---|---|---|---|---|")
    properties = {"enable_model_api": "true"}
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engine:
            (Path(folder) / engine).mkdir()
            with serve(engine, Path(folder) / engine, Deployment(), Workers(), properties) as server:
                faults = {
                    "worker killed": kill_worker,
                    "clients vanish": clients_vanish,
                    "uploads crawl": uploads_crawl,
                    "bodies half sent": bodies_stay_half,
                }
                if engine == "torchserve":
                    faults["model unregistered, registered"] = model_leaves_and_returns
                for name, fault in faults.items():
                    suffer(f"{engine}: {name}", fault, server, asked)
        if "torchserve" not in options.engine:
            return
        small = Path(folder) / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(small)], check=False
        )
        if mounted.returncode:
            print("the full disk was left out: a tmpfs cannot be mounted here")
            return
        try:
            tempfile.tempdir = str(small)
            with serve("torchserve", small / "b", Deployment(), Workers(), properties) as server:
                suffer("disk full", disk_fills, server, asked)
        finally:
            tempfile.tempdir = None
            subprocess.run(["umount", "-l", str(small)], check=False)


if __name__ == "__main__":
    main()
