"""What an operator decides: models, limits, and what callers may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from xfr_plugin.attr.registry import METHODS, get_method
from xfr_plugin.base.documents import Document
from xfr_plugin.errors import InputError, first_fault
from xfr_plugin.service.limits import Limits

__all__ = ["QUICK", "Deployment", "Limits", "Workers", "read_deployment"]

QUICK: Sequence[str] = METHODS.names(lambda method: method.quick or method.preferred is not None)
"""Methods that answer within some ten forward passes, and the default: allowed unless the operator says otherwise."""


class Workers(Document):
    """How a server runs the models; times as TorchServe's `model-config.yaml` has them.

    Attributes:
        workers: processes, each with a copy of the models; best is one more than cores, as one is kept free of slow
            requests.
        batch_size: requests that a worker takes at once, at most.
        batch_delay_ms: how long it waits for more of them.
        response_timeout_s: after which a worker that has not answered is replaced.
    """

    workers: int = Field(default=3, ge=1)
    batch_size: int = Field(default=4, ge=1)
    batch_delay_ms: int = Field(default=1, ge=1)
    response_timeout_s: int = Field(default=120, ge=1)


class Deployment(Document):
    """A deployment of the service.

    Attributes:
        recognizer: name, path of a weight or model file or of a card, or `module:factory`; see `load_recognizer`.
        architecture: of a weight file; found from its keys, if left out.
        decoder: name or path; the one that ships for the recognizer, if left out.
        evidence: path of an evidence network; the one that ships for the recognizer, if left out.
        methods: that callers may ask for.
        method: what `auto` stands for; the registry's default for the recognizer, if left out.
        threshold: default threshold (a cosine, unless the recognizer gives scores only); its own, if left out …
        fmr: … or the one calibrated for this false match rate.
        callers_choose_threshold: whether requests may bring a threshold or an FMR of their own.
        detector: whether faces are looked for; else all images are taken as aligned crops.
        faithfulness: whether the check may be asked for: 66 forward passes.
        reconstructions: whether likenesses may be decoded from embeddings. They are personal data.
        embeddings: whether embeddings may be returned, to be stored. They are personal data.
        thrifty: whether methods answer in fewer passes where they can; else as `xfr explain` does.
        limits: of a request.
        threads: of a worker's computations.
    """

    recognizer: str = "xfr_compact128"
    architecture: str | None = None
    decoder: str | None = None
    evidence: str | None = None
    methods: tuple[str, ...] = Field(default_factory=lambda: tuple(QUICK))
    method: str | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    fmr: float | None = Field(default=None, gt=0, lt=1)
    callers_choose_threshold: bool = True
    detector: bool = True
    faithfulness: bool = True
    reconstructions: bool = False
    embeddings: bool = False
    thrifty: bool = True
    limits: Limits = Limits()
    threads: int = Field(default=1, ge=1)

    @field_validator("methods", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        named: Literal["all"] = "all"
        return tuple(METHODS) if value == named else value

    @model_validator(mode="after")
    def _known(self) -> Deployment:
        for name in self.methods:
            get_method(name)  # or it is an error
        if self.method is not None and self.method not in self.methods:
            raise ValueError(f"the default method {self.method!r} is not among the allowed ones")
        if self.threshold is not None and self.fmr is not None:
            raise ValueError("give either a threshold or an fmr")
        return self


def read_deployment(settings: Mapping[str, Any] | None) -> Deployment:
    """Read the settings of an operator, as YAML holds them.

    Raises:
        InputError: a setting that does not exist, or of the wrong type or range.
    """
    try:
        return Deployment.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise InputError(f"deployment: {first_fault(error, 'the deployment')}") from error
