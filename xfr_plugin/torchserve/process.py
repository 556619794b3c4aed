"""A running TorchServe: started in a folder of its own, waited for until it is healthy, stopped cleanly."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from xfr_plugin.base.checksums import verify_archive
from xfr_plugin.base.files import write_text
from xfr_plugin.base.run_folder import check_space, lock_folder
from xfr_plugin.errors import InputError, XfrError
from xfr_plugin.torchserve.configuration import properties_text, read_properties
from xfr_plugin.torchserve.java import java_home

__all__ = ["Ports", "Server", "ServerError", "free_ports", "rotate_token", "start_server"]

_STOPPING_SECONDS = 20.0
_DRAINING_SECONDS = 10.0
_ROOM = 64 << 20
_SOCKET = "management.sock"


class ServerError(XfrError):
    """The server did not start, or does not answer."""


@dataclass(frozen=True)
class Ports:
    """Where a server listens: HTTP for inference and metrics, gRPC for inference and management."""

    inference: int = 8080
    metrics: int = 8082
    grpc: int = 7070
    grpc_management: int = 7071


def free_ports() -> Ports:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.socket() for _ in range(4)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return Ports(*numbers)


@dataclass
class Server:
    """A running server; a context manager that stops it.

    Attributes:
        model: name of the archive that it serves.
        host: where it listens.
        ports: at which ports.
        run_dir: its folder: key file, logs, configuration.
        process: the parent of its processes.
        scratch: its temporary folder; management listens at a socket in it, which only its owner can open.
        lock: descriptor that keeps other servers out of the folder.
    """

    model: str
    host: str
    ports: Ports
    run_dir: Path
    process: subprocess.Popen[bytes]
    scratch: Path
    lock: int

    @property
    def url(self) -> str:
        """Address for requests."""
        return f"http://{self.host}:{self.ports.inference}"

    @property
    def key_file(self) -> Path:
        """File with the tokens; only its owner can read it."""
        return self.run_dir / "key_file.json"

    def token(self, kind: str = "inference") -> str:
        """Token for `inference`, `management`, or `API`, which makes new ones.

        Raises:
            ServerError: there is no key file (yet).
        """
        return _token(self.run_dir, kind)

    def manage(
        self, method: str, path: str, kind: str = "management", timeout: float = 10.0
    ) -> tuple[int, Any]:
        """Ask TorchServe's management; returns the status and what JSON it sent, or None.

        Raises:
            ServerError: the server does not answer.
        """
        return _manage(self.scratch / _SOCKET, self.token(kind), method, path, timeout)

    def described(self) -> dict[str, Any]:
        """The model as TorchServe describes it: `workers`, and its queue.

        Raises:
            ServerError: the server does not answer.
        """
        status, found = self.manage("GET", f"/models/{self.model}")
        return found[0] if status == 200 else {"workers": []}

    def workers(self) -> list[dict[str, object]]:
        """Workers of the model; empty while it is loaded.

        Raises:
            ServerError: the server does not answer.
        """
        workers: list[dict[str, object]] = self.described()["workers"]
        return workers

    def drain(self, seconds: float = _DRAINING_SECONDS) -> bool:
        """Wait until nothing is queued and no worker computes; False if that is not so after this time.

        TorchServe goes on taking requests meanwhile: who sends them must stop first.
        """
        end, before = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                found = self.described()
            except ServerError:
                return False
            queued = found.get("jobQueueStatus", {}).get("pendingRequests", 0)
            now = [_cpu_ticks(worker["pid"]) for worker in found["workers"]]
            if queued == 0 and now == before:
                return True
            before = now
            time.sleep(0.3)
        return False

    def wait(self, seconds: float = 300.0) -> None:
        """Wait until all workers have passed their self-test.

        Raises:
            ServerError: they have not after this time, or the server or its model failed; with the reason it gave.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise ServerError(f"the server stopped while it started: {self._reason()}")
            failure = self._failure()
            if failure:
                raise ServerError(failure)
            try:
                states = [worker["status"] for worker in self.workers()]
            except ServerError:
                states = []
            if states and all(state == "READY" for state in states):
                return
            time.sleep(0.25)
        raise ServerError(f"the server was not healthy after {seconds:.0f} seconds: {self._reason()}")

    def stop(self) -> None:
        """Stop server and workers, and remove the tokens and temporary files. Does nothing a second time."""
        if self.process.poll() is None or _group_lives(self.process.pid):
            _signal_group(self.process.pid, signal.SIGTERM)
            end = time.monotonic() + _STOPPING_SECONDS
            while _group_lives(self.process.pid) and time.monotonic() < end:
                self.process.poll()
                time.sleep(0.05)
            _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.key_file.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # a second time
            os.close(self.lock)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log_text(self) -> str:
        """Everything that server and workers have logged."""
        files = [*sorted((self.run_dir / "logs").glob("*.log")), self.run_dir / "console.log"]
        return "\n".join(
            file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()
        )

    def _failure(self) -> str | None:
        """What a worker said when it refused to serve."""
        found = re.search(
            r"(?:RuntimeError: (?=the deployment)|(?=ModuleNotFoundError: )|(?=No space left on device))(.*)",
            self.log_text(),
        )
        return found.group(1) if found else None

    def _reason(self) -> str:
        lines = [line for line in self.log_text().splitlines() if "ERROR" in line or "Error" in line]
        return (
            f"{lines[-1].strip()[:300]} (more in {self.run_dir})"
            if lines
            else f"see the logs in {self.run_dir}"
        )


def start_server(
    model_store: Path, run_dir: Path, *, host: str = "127.0.0.1", ports: Ports | None = None, **overrides: str
) -> Server:
    """Start TorchServe on a model store; returns at once, see `Server.wait`.

    Args:
        model_store: written by `xfr package`.
        run_dir: for key file, logs and configuration; made, and closed to other users.
        host: to listen at.
        ports: to listen at.
        **overrides: other entries of `config.properties`.

    Raises:
        InputError: TorchServe or Java is missing, the model store holds no archive, the temporary folder no room for
            it, or another server runs in the folder.
        ChecksumError: the archive is not the one that was packaged.
    """
    if importlib.util.find_spec("ts") is None:
        raise InputError("TorchServe is not installed: pip install 'xfr-plugin[serve]'")
    store, chosen = model_store.resolve(), ports or Ports()
    properties = read_properties(store / "config.properties") | _addresses(host, chosen) | overrides
    model = properties["load_models"].removesuffix(".mar")
    archive = store / f"{model}.mar"
    verify_archive(archive)
    with zipfile.ZipFile(archive) as file:
        check_space(Path(tempfile.gettempdir()), sum(entry.file_size for entry in file.infolist()) + _ROOM)
    environment = _environment()
    lock = lock_folder(run_dir)
    (run_dir / "key_file.json").unlink(missing_ok=True)
    for old in (run_dir / "logs").glob("*_log.*log*"):  # the folder may hold others'
        old.unlink()
    config = run_dir / "config.properties"
    scratch = Path(tempfile.mkdtemp(prefix="xfr-serve-"))  # short: it holds Unix sockets
    environment |= {"TEMP": str(scratch), "TMPDIR": str(scratch)}
    properties |= {
        "metrics_config": str(store / "metrics.yaml"),
        "management_address": f"unix:{scratch / _SOCKET}",
    } | overrides
    write_text(config, properties_text(properties))
    command = [
        *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
        *("--model-store", str(store), "--ts-config", str(config.resolve())),
        *("--log-config", str(Path(__file__).with_name("log4j2.xml"))),
    ]
    with (run_dir / "console.log").open("wb") as console:
        process = subprocess.Popen(
            command,
            cwd=run_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that all of it can be stopped
            pass_fds=[lock],  # what outlives this process keeps the folder
        )
    return Server(model, host, chosen, run_dir.resolve(), process, scratch, lock)


def rotate_token(run_dir: Path) -> None:
    """Make a new token for inference of the server that runs in a folder; the last one is refused from then on.

    Raises:
        InputError: the folder holds no configuration of a server.
        ServerError: the server does not answer, or refuses.
    """
    address = read_properties(run_dir / "config.properties").get("management_address", "")
    socket_file = Path(address.removeprefix("unix:"))
    status, _ = _manage(socket_file, _token(run_dir, "API"), "GET", "/token?type=inference", 10.0)
    if status != 200:
        raise ServerError(f"the server made no new token: it answered {status}")


def _token(run_dir: Path, kind: str) -> str:
    file = run_dir / "key_file.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))[kind]["key"])
    except (OSError, ValueError, KeyError) as error:
        raise ServerError(f"no {kind} token in {file}") from error


def _manage(socket_file: Path, token: str, method: str, path: str, timeout: float) -> tuple[int, Any]:
    connection = _SocketConnection(socket_file, timeout)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, _parsed(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise ServerError("the server does not answer") from error
    finally:
        connection.close()


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:  # new tokens are told in words, as JSON by their type
        return None


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has taken, in the kernel's ticks; 0 if it is gone, or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _addresses(host: str, ports: Ports) -> dict[str, str]:
    return {
        "inference_address": f"http://{host}:{ports.inference}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_address": host,
        "grpc_inference_port": str(ports.grpc),
        "grpc_management_port": str(ports.grpc_management),
    }


def _environment() -> dict[str, str]:
    """The process's environment: Java, and one thread a worker unless configured."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # the archive's own packages come first: nothing of this environment may stand before them
    for name in ("LOG_LOCATION", "METRICS_LOCATION", "TS_CONFIG_FILE", "PYTHONPATH"):
        environment.pop(name, None)
    home = java_home()
    if home is not None:
        environment["JAVA_HOME"] = str(home)
    else:
        environment.pop("JAVA_HOME", None)
    return environment


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
