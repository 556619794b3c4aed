"""A running TorchServe: started in a folder of its own, waited for until it is healthy, stopped cleanly."""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import urllib3

from xfr_plugin.errors import InputError, XfrError
from xfr_plugin.torchserve.configuration import properties_text, read_properties
from xfr_plugin.torchserve.java import java_home

__all__ = ["Ports", "Server", "ServerError", "free_ports", "start_server"]

_STOPPING_SECONDS = 20.0


class ServerError(XfrError):
    """The server did not start, or does not answer."""


@dataclass(frozen=True)
class Ports:
    """Where a server listens: HTTP for inference, management and metrics, gRPC for inference and management."""

    inference: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc: int = 7070
    grpc_management: int = 7071


def free_ports() -> Ports:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.socket() for _ in range(5)]
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
        scratch: its temporary folder.
    """

    model: str
    host: str
    ports: Ports
    run_dir: Path
    process: subprocess.Popen[bytes]
    scratch: Path
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    @property
    def url(self) -> str:
        """Address for requests."""
        return f"http://{self.host}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """Address for management."""
        return f"http://127.0.0.1:{self.ports.management}"

    @property
    def key_file(self) -> Path:
        """File with the tokens; only its owner can read it."""
        return self.run_dir / "key_file.json"

    def token(self, kind: str = "inference") -> str:
        """Token for `inference` or `management`.

        Raises:
            ServerError: there is no key file (yet).
        """
        try:
            return str(json.loads(self.key_file.read_text(encoding="utf-8"))[kind]["key"])
        except (OSError, ValueError, KeyError) as error:
            raise ServerError(f"no {kind} token in {self.key_file}") from error

    def workers(self) -> list[dict[str, object]]:
        """Workers of the model, as TorchServe describes them; empty while it loads the model.

        Raises:
            ServerError: the server does not answer.
        """
        headers = {"Authorization": f"Bearer {self.token('management')}"}
        try:
            answer = self._pool.request(
                "GET", f"{self.management_url}/models/{self.model}", headers=headers, timeout=10.0
            )
            described = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ServerError("the server does not answer") from error
        return described[0]["workers"] if answer.status == 200 else []

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
            r"(?:RuntimeError: (?=the deployment)|(?=ModuleNotFoundError: ))(.*)", self.log_text()
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
        InputError: TorchServe or Java is missing, or the model store holds no archive.
    """
    if importlib.util.find_spec("ts") is None:
        raise InputError("TorchServe is not installed: pip install 'xfr-plugin[serve]'")
    store, chosen = model_store.resolve(), ports or Ports()
    properties = read_properties(store / "config.properties") | _addresses(host, chosen) | overrides
    model = properties["load_models"].removesuffix(".mar")
    if not (store / f"{model}.mar").is_file():
        raise InputError(f"there is no {model}.mar in {store}: run `xfr package --out {model_store}` first")
    properties["metrics_config"] = str(store / "metrics.yaml")
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_dir.chmod(0o700)
    (run_dir / "key_file.json").unlink(missing_ok=True)
    shutil.rmtree(run_dir / "logs", ignore_errors=True)
    config = run_dir / "config.properties"
    config.write_text(properties_text(properties), encoding="utf-8")
    scratch = Path(tempfile.mkdtemp(prefix="xfr-serve-"))  # short: it holds Unix sockets
    command = [
        *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
        *("--model-store", str(store), "--ts-config", str(config.resolve())),
    ]
    with (run_dir / "console.log").open("wb") as console:
        process = subprocess.Popen(
            command,
            cwd=run_dir,
            env=_environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that all of it can be stopped
        )
    return Server(model, host, chosen, run_dir.resolve(), process, scratch)


def _addresses(host: str, ports: Ports) -> dict[str, str]:
    return {
        "inference_address": f"http://{host}:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_address": host,
        "grpc_inference_port": str(ports.grpc),
        "grpc_management_port": str(ports.grpc_management),
    }


def _environment(scratch: Path) -> dict[str, str]:
    """The process's environment: its own temporary folder, Java, and one thread a worker unless configured."""
    environment = {**os.environ, "TEMP": str(scratch), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
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
