"""What `xfr package` wrote, as a server without TorchServe reads it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from xfr_plugin.base.checksums import verify_archive
from xfr_plugin.base.documents import RepeatedKeyError
from xfr_plugin.base.run_folder import check_space
from xfr_plugin.errors import InputError, first_fault
from xfr_plugin.recognition.loading import module_of
from xfr_plugin.service.deployment import Deployment, Workers
from xfr_plugin.service.serving import settings_of

__all__ = ["module_folders", "read_store"]

_CODE = (".py", ".pyi", ".so", ".pyd")
_WORKER_KEYS = {
    "minWorkers": "workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "batch_delay_ms",
    "responseTimeout": "response_timeout_s",
}


def read_store(store: Path, scratch: Path) -> tuple[Deployment, Workers]:
    """Deployment and workers of what `xfr package` wrote; the defaults, if there is no such folder.

    Weights, model files, cards and modules of the user's that are in the archive only are unpacked to `scratch`.

    Raises:
        InputError: a setting makes no sense, or `scratch` has no room.
        ChecksumError: an archive is not the one that was packaged.
    """
    file = store / "model-config.yaml"
    if not file.is_file():
        return Deployment(), Workers()
    try:
        config = dict(yaml.load(file.read_text(encoding="utf-8"), _KeysOnce))  # a SafeLoader
        numbers = {ours: config[theirs] for theirs, ours in _WORKER_KEYS.items() if theirs in config}
        workers = Workers.model_validate(numbers)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else "it cannot be read"
        fault = str(error) if isinstance(error, RepeatedKeyError) else fault
        raise InputError(f"{file}: {fault}") from error
    archives = list(store.glob("*.mar"))
    for archive in archives:
        verify_archive(archive)
        _unpack(archive, scratch, lambda name: "/" not in name and not name.endswith(_CODE))
    deployment = settings_of(config, str(scratch))
    module = module_of(deployment.recognizer)
    if module is not None:
        for archive in archives:
            _unpack(archive, scratch, lambda name: name == f"{module}.py" or name.startswith(f"{module}/"))
    return deployment, workers


class _KeysOnce(yaml.SafeLoader):
    """Refuses a key that is given twice: the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of what was read."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise RepeatedKeyError(f"the key {key!r} is given twice")
        return super().construct_mapping(node, deep)


def module_folders(deployment: Deployment, scratch: Path) -> tuple[str, ...]:
    """Where a module of the user's is looked for first: as it was packaged, then where the server was started."""
    return () if module_of(deployment.recognizer) is None else (str(scratch), os.getcwd())


def _unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = [entry for entry in packed.infolist() if wanted(entry.filename)]
        check_space(folder, sum(entry.file_size for entry in entries))
        packed.extractall(folder, entries)
