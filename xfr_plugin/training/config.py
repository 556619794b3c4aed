"""Training configurations: one TOML or JSON file, checked strictly, with overrides from the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, Field, ValidationError

from xfr_plugin.base.documents import Document, read_json
from xfr_plugin.errors import InputError, first_fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["EngineConfig", "load_config", "make_config"]


class EngineConfig(Document):
    """What every training needs. Trainings add their own fields by inheriting.

    Attributes:
        run: folder of the checkpoint, the log, the curve and the best weights.
        seed: of initial weights, order of examples and augmentation.
        epochs: how many times validation happens.
        batch_size: examples a step.
        epoch_steps: steps between validations; one pass over the examples, if left out.
        learning_rate: the highest, reached after the warm-up; then it falls as a half cosine.
        final_share: learning rate of the last step as a share of the highest.
        warmup: share of all steps in which the learning rate rises linearly.
        weight_decay: AdamW's, on weights of two and more dimensions only.
        clip_norm: gradients are scaled down to this L2 norm; 0 never.
        ema_decay: weights are averaged exponentially and the average is validated and kept; 0 switches off.
        patience: validations without improvement after which training ends early; 0 never.
        stop_after: validations after which training ends although the schedule is longer, say for lack of time.
        checkpoint_minutes: a checkpoint is written at each validation, and this often between.
        device: where to compute.
        threads: CPU threads; torch's own choice, if left out. Sums are rounded differently with other numbers
            of threads, so a resumption is exact to the bit only with the same number.
        mixed_precision: compute in 16 bits on CUDA devices; without effect elsewhere.
        progress: show progress bars on standard error.
    """

    may_change: ClassVar[frozenset[str]] = frozenset(
        [
            "run",
            "device",
            "threads",
            "mixed_precision",
            "progress",
            "checkpoint_minutes",
            "patience",
            "stop_after",
        ]
    )
    """Fields that may differ between a run and its resumption: no step that is done twice gives another result."""

    run: Path
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=64, gt=0)
    epoch_steps: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_share: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float = Field(default=5.0, ge=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    stop_after: int | None = Field(default=None, gt=0)
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    device: str = "cpu"
    threads: int | None = Field(default=None, gt=0)
    mixed_precision: bool = True
    progress: bool = True

    def defining_fields(self) -> dict[str, Any]:
        """The fields that decide what is computed, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.may_change))


Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration file (`.toml` or `.json`), apply overrides, and check the result.

    Args:
        kind: the configuration class.
        path: the file; every field has its default, if left out.
        overrides: fields by name; those that are None are ignored.

    Raises:
        InputError: the file is missing or damaged, a key is unknown, or a value is out of range.
    """
    values = {} if path is None else _read(path)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return make_config(kind, {**values, **given}, path.name if path else "the training configuration")


def make_config(kind: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Check values against a configuration class; `source` names them in messages.

    Raises:
        InputError: a key is unknown or missing, or a value is out of range.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        is_unknown = error.errors()[0]["type"] == "extra_forbidden"
        known = f"; known keys are {', '.join(kind.model_fields)}" if is_unknown else ""
        raise InputError(f"{source}: {first_fault(error)}{known}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no configuration file at {path}: check the path")
    try:
        content = _parse(path)
    except ValueError as error:  # both parsers' errors are ValueErrors
        raise InputError(f"{path.name} is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} must hold keys and values, not a {type(content).__name__}")
    return content


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return read_json(text)
    if path.suffix != ".toml":
        raise InputError(f"{path.name}: configurations are .toml or .json files")
    return tomllib.loads(text)
