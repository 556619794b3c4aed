"""Odd HTTP: what each shell does with it, and what honest neighbours see meanwhile.

    OMP_NUM_THREADS=1 python benchmarks/serving_oddities.py --data ../shared/data --engine torchserve fastapi

Requests are written byte by byte where that is the point, by twenty connections each, while one honest client asks
for decisions. Prints a row for each oddity: what came back within three seconds, and the honest client's answers.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import torch
from serving_enemies import FORM, until_answered
from serving_load import Question, Server, form, questions, serve

from xfr_plugin.service import Deployment, ExplanationService
from xfr_plugin.service.deployment import Workers

CONNECTIONS, SECONDS = 20, 3.0
Sent = Callable[[bytes, bytes], Iterator[bytes]]
"""From the lines of a good head, without its end and its length, and a good body to pieces that are sent a turn."""


def plain(head: bytes, body: bytes, length: int | None = None) -> bytes:
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body) if length is None else length, body)


def method(name: bytes) -> Sent:
    return lambda head, body: iter([plain(head.replace(b"POST", name, 1), body)])


def with_header(line: bytes) -> Sent:
    return lambda head, body: iter([plain(head + line + b"\r\n", body)])


def of_type(kind: bytes) -> Sent:
    return lambda head, body: iter([plain(head.replace(FORM["Content-Type"].encode(), kind), body)])


def chunked(head: bytes, body: bytes, size: bytes | None = None, end: bytes = b"0\r\n\r\n") -> bytes:
    length = b"%x" % len(body) if size is None else size
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + length + b"\r\n" + body + b"\r\n" + end


ODDITIES: dict[str, Sent] = {
    "as it should be": lambda head, body: iter([plain(head, body)]),
    "half a body": lambda head, body: iter([plain(head, body)[: -len(body) // 2]]),
    "a byte every half second": lambda head, body: (bytes([byte]) for byte in plain(head, body)),
    "Content-Length too small": lambda head, body: iter([plain(head, body, len(body) // 2)]),
    "Content-Length too large": lambda head, body: iter([plain(head, body, len(body) + 10)]),
    "Content-Length negative": lambda head, body: iter([plain(head, body, -1)]),
    "Content-Length of 2^64": lambda head, body: iter([plain(head, body, 1 << 64)]),
    "Content-Length twice": lambda head, body: iter([plain(head + b"Content-Length: 5\r\n", body)]),
    "neither length nor chunks": lambda head, body: iter([head + b"\r\n" + body]),
    "chunks": lambda head, body: iter([chunked(head, body)]),
    "chunks of no number": lambda head, body: iter([chunked(head, body, b"zz")]),
    "a chunk of 2^64": lambda head, body: iter([chunked(head, body, b"1" + b"0" * 16)]),
    "chunks without end": lambda head, body: iter([chunked(head, body, end=b"")]),
    "chunks and Content-Length": lambda head, body: iter([chunked(head + b"Content-Length: 4\r\n", body)]),
    "three pipelined": lambda head, body: iter([plain(head, body) * 3]),
    "64 KiB of headers": with_header(b"X-Much: " + b"x" * (64 << 10)),
    "5000 headers": with_header(b"\r\n".join(b"X-%d: 1" % n for n in range(500)) * 10),
    "a header of two lines": with_header(b"X-Folded: a\r\n b"),
    "a header without a colon": with_header(b"nonsense"),
    "a NUL in a header": with_header(b"X-Nul: a\0b"),
    "unknown content type": of_type(b"application/x-nothing"),
    "a form without boundary": of_type(b"multipart/form-data"),
    "content type of an unknown charset": of_type(b"application/json; charset=klingon"),
    "gzip": with_header(b"Content-Encoding: gzip"),
    "Expect: 100-continue": lambda head, body: iter([plain(head + b"Expect: 100-continue\r\n", body)]),
    "Expect: 100-continue, and no body": lambda head, body: iter(
        [plain(head + b"Expect: 100-continue\r\n", body)[: -len(body)]]
    ),
    "Expect of something else": with_header(b"Expect: 200-ok"),
    "Upgrade: h2c": with_header(b"Connection: Upgrade\r\nUpgrade: h2c"),
    "an absolute URI": lambda head, body: iter([plain(head.replace(b" /", b" http://other/", 1), body)]),
    "a path of dots": lambda head, body: iter([plain(head.replace(b" /", b" /./x/../", 1), body)]),
    "a path of 64 KiB": lambda head, body: iter([plain(head.replace(b" /", b" /" + b"x" * 65536, 1), body)]),
    "HEAD": method(b"HEAD"),
    "OPTIONS": method(b"OPTIONS"),
    "PUT": method(b"PUT"),
    "TRACE": method(b"TRACE"),
    "a method of its own": method(b"XFR"),
    "HTTP/1.0": lambda head, body: iter([plain(head.replace(b"HTTP/1.1", b"HTTP/1.0"), body)]),
    "HTTP/2.0": lambda head, body: iter([plain(head.replace(b"HTTP/1.1", b"HTTP/2.0"), body)]),
    "HTTP/9.9": lambda head, body: iter([plain(head.replace(b"HTTP/1.1", b"HTTP/9.9"), body)]),
    "lines that end in \\n": lambda head, body: iter([plain(head, body).replace(b"\r\n", b"\n", 6)]),
    "TLS": lambda head, body: iter([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)]),
}


def told(server: Server, send: Sent, question: Question) -> str:
    """Statuses that come back to one connection, and whether it is closed in the end."""
    address = urlsplit(server.url)
    head = f"POST /predictions/xfr HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token()}\r\n"
    head += f"Content-Type: {FORM['Content-Type']}\r\n"
    data, end, state = b"", time.monotonic() + SECONDS, "open"
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=SECONDS) as connection:
        try:
            for turn, piece in enumerate(send(head.encode(), form(question, {}))):
                connection.settimeout(max(end - time.monotonic(), 0.01))
                connection.sendall(piece)
                if turn:
                    time.sleep(0.5)
                if time.monotonic() > end:
                    break
            while time.monotonic() < end:
                connection.settimeout(max(end - time.monotonic(), 0.01))
                part = connection.recv(1 << 16)
                if not part:
                    state = "closed"
                    break
                data += part
        except TimeoutError:
            pass
        except OSError:
            state = "closed"
    statuses = [
        part[:3].decode("latin-1") for part in data.replace(b"HTTP/1.0", b"HTTP/1.1").split(b"HTTP/1.1 ")[1:]
    ]
    return f"{', '.join(statuses) or 'nothing'}, {state}"


def row(server: Server, name: str, asked: Sequence[Question]) -> str:
    """What came back to all connections, and the honest client's p95 and times told `busy` meanwhile."""
    over, spent, busy = threading.Event(), [0.0], 0

    def honest() -> None:
        nonlocal busy
        for turn in range(10**6):
            if over.is_set():
                return
            start = time.perf_counter()
            busy += until_answered(server, asked[turn % len(asked)])
            spent.append(1000 * (time.perf_counter() - start))
            time.sleep(0.02)

    with ThreadPoolExecutor(CONNECTIONS + 1) as pool:
        client = pool.submit(honest)
        futures = [pool.submit(told, server, ODDITIES[name], asked[0]) for _ in range(CONNECTIONS)]
        found = Counter(future.result() for future in futures)
        over.set()
        client.result()
    outcomes = "; ".join(f"{number} × {what}" for what, number in found.most_common())
    return f"{name} | {outcomes} | {np.percentile(spent[1:] or spent, 95):.0f} ({len(spent) - 1}) | {busy}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", nargs="+", default=["torchserve", "fastapi"])
    parser.add_argument("--only", nargs="+", default=list(ODDITIES), choices=list(ODDITIES))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop the server first
    torch.set_num_threads(1)
    asked = questions(options.data, 20, ExplanationService())
    for engine in options.engine:
        with (
            TemporaryDirectory() as folder,
            serve(engine, Path(folder), Deployment(), Workers(), {}) as server,
        ):
            for name in options.only:
                print(f"| {engine} | {row(server, name, asked)} |", flush=True)


if __name__ == "__main__":
    main()
