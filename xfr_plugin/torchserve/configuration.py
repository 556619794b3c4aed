"""Configuration of TorchServe: closed unless opened, and what the load measurements chose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from xfr_plugin.base.files import write_text, writing_to
from xfr_plugin.errors import InputError
from xfr_plugin.service.deployment import Deployment, Workers
from xfr_plugin.service.limits import MESSAGE_OVERHEAD
from xfr_plugin.service.metrics import COUNTERS, GAUGES

__all__ = [
    "Workers",
    "model_config",
    "properties_text",
    "read_properties",
    "server_properties",
    "write_model_store",
]

_DIMENSIONS = ["Kind", "ModelName", "Level"]


def model_config(deployment: Deployment, workers: Workers) -> str:
    """Text of `model-config.yaml`; the service's own settings are in the section `handler`."""
    document = {
        "minWorkers": workers.workers,
        "maxWorkers": workers.workers,
        "batchSize": workers.batch_size,
        "maxBatchDelay": workers.batch_delay_ms,
        "responseTimeout": workers.response_timeout_s,
        "startupTimeout": 300,
        # it gives up workers that it could not start for five minutes, and no one else would start them
        "maxRetryTimeoutInSec": 7 * 24 * 3600,
        "handler": deployment.model_dump(mode="json", exclude_none=True),
    }
    return yaml.safe_dump(document, sort_keys=False)


def server_properties(name: str, deployment: Deployment, host: str = "127.0.0.1") -> dict[str, str]:
    """Entries of `config.properties`.

    Args:
        name: of the archive.
        deployment: whose limits hold for requests.
        host: to listen at. Anything but the machine itself belongs behind a proxy with encryption.
    """
    return {
        "inference_address": f"http://{host}:8080",
        # `xfr serve` puts it on a socket that only its user can open
        "management_address": "http://127.0.0.1:8081",
        "metrics_address": "http://127.0.0.1:8082",
        "grpc_inference_address": host,
        "grpc_inference_port": "7070",
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": "7071",
        "load_models": f"{name}.mar",
        # callers must bring the token of key_file.json
        "disable_token_authorization": "false",
        "token_expiration_min": "525600",
        # archives come from the model store only: no URL matches
        "allowed_urls": "none",
        "enable_model_api": "false",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "max_request_size": str(deployment.limits.json_bytes),
        "max_response_size": str(deployment.limits.answer_bytes + MESSAGE_OVERHEAD),
        "limit_max_image_pixels": "true",
        # bodies reach the service as they came, so that its own limits hold
        "decode_input_request": "false",
        "job_queue_size": "256",
        # Java takes a tenth of a second to unpack a large form: few other connections wait for the same thread
        "number_of_netty_threads": "32",
        "default_response_timeout": "120",
        "metrics_mode": "prometheus",
        "metrics_config": "metrics.yaml",
        "disable_system_metrics": "true",
        "async_logging": "true",
        # a small machine's Java: one collector thread; the second compiler, which takes as long as what is served
        # for thousands of requests, only for what is hot indeed, as the loops that unpack large forms
        "vmargs": "-XX:+UseSerialGC -Xmx512m -XX:Tier4InvocationThreshold=100000 "
        "-XX:Tier4MinInvocationThreshold=20000 -XX:Tier4CompileThreshold=200000",
    }


def properties_text(properties: Mapping[str, str]) -> str:
    """Text of `config.properties`."""
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def read_properties(path: Path) -> dict[str, str]:
    """Entries of a `config.properties`.

    Raises:
        InputError: it cannot be read, or names an entry twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: run `xfr package --out {path.parent}` first") from error
    pairs = [line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    entries: dict[str, str] = {}
    for name, value in ((name.strip(), value.strip()) for name, _, value in pairs):
        if name in entries:
            raise InputError(f"{path}: {name} is given twice")
        entries[name] = value
    return entries


def write_model_store(folder: Path, name: str, deployment: Deployment, workers: Workers) -> None:
    """Write configuration and README beside an archive; each file whole or not at all.

    Raises:
        ResultError: the folder cannot be written to.
    """
    files = {
        "config.properties": properties_text(server_properties(name, deployment)),
        "model-config.yaml": model_config(deployment, workers),
        "metrics.yaml": metrics_config(),
        "README.md": _README.format(name=name, recognizer=deployment.recognizer, **workers.model_dump()),
    }
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_text(folder / file, text)


def metrics_config() -> str:
    """Text of `metrics.yaml`: TorchServe's request metrics, and those of the service."""
    frontend: dict[str, Any] = {
        "counter": [_metric(f"Requests{kind}XX", "Count", ["Level", "Hostname"]) for kind in (2, 4, 5)]
        + [
            _metric("ts_inference_requests_total", "Count", ["model_name", "model_version", "hostname"]),
            _metric(
                "ts_inference_latency_microseconds",
                "Microseconds",
                ["model_name", "model_version", "hostname"],
            ),
            _metric(
                "ts_queue_latency_microseconds", "Microseconds", ["model_name", "model_version", "hostname"]
            ),
        ],
        "gauge": [
            _metric("QueueTime", "Milliseconds", ["Level", "Hostname"]),
            _metric("WorkerThreadTime", "Milliseconds", ["Level", "Hostname"]),
            _metric("WorkerLoadTime", "Milliseconds", ["WorkerName", "Level", "Hostname"]),
        ],
    }
    backend = {
        "counter": [_metric(name, "count", _DIMENSIONS) for name in COUNTERS],
        "gauge": [_metric(name, unit, _DIMENSIONS) for name, unit in GAUGES.items()]
        + [_metric("PredictionTime", "ms", ["ModelName", "Level"])],
    }
    return yaml.safe_dump(
        {"dimensions": [], "ts_metrics": frontend, "model_metrics": backend}, sort_keys=False
    )


def _metric(name: str, unit: str, dimensions: list[str]) -> dict[str, Any]:
    return {"name": name, "unit": unit, "dimensions": list(dimensions)}


_README = """# Model store

Written by `xfr package`. `{name}.mar` answers who is who, and why, with the recognizer `{recognizer}`.

- `xfr serve --model-store .` starts it, and prints where it listens and where its token is.
- Without `xfr`: `torchserve --start --foreground --ncs --model-store . --ts-config config.properties`.
- `config.properties` listens on this machine only, asks for a token, and loads archives from this folder only.
- `model-config.yaml` is a copy of what the archive holds: {workers} workers, batches of up to {batch_size}, for which
  they wait {batch_delay_ms} ms. To change it, package again.
- `metrics.yaml` names the metrics. They hold times and counts, and nothing about anybody.
"""
