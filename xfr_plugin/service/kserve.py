"""KServe's bodies: version 1 (`instances`), and version 2, the open inference protocol (`inputs`).

Version 1: every instance is a request; the answers come as `predictions` or `explanations`.

Version 2: tensors `probe` and `reference` hold images (BYTES, base64) or embeddings (FP32 or FP64, N×D); `gallery`
holds N×D embeddings for one probe. What else a request has goes into `parameters`. With N probes there are N pairs.
The output `answer` holds N JSON documents; `score` and `match` repeat what most callers want.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from xfr_plugin.service.answers import Answer, Reply
from xfr_plugin.service.errors import ErrorBody, ServiceError
from xfr_plugin.service.limits import Limits

__all__ = ["is_v1", "is_v2", "read_v1", "read_v2", "write_v1", "write_v2"]


def is_v1(document: Any) -> bool:
    """Whether a parsed body is of version 1."""
    return isinstance(document, dict) and "instances" in document


def is_v2(document: Any) -> bool:
    """Whether a parsed body is of version 2."""
    return isinstance(document, dict) and "inputs" in document


def read_v1(document: dict[str, Any], limits: Limits) -> list[Any]:
    """Documents of the requests.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    return _counted(document["instances"], "instances", limits)


def read_v2(document: dict[str, Any], limits: Limits) -> list[Any]:
    """Documents of the requests, see the module.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    tensors = {}
    for tensor in _counted(document["inputs"], "inputs", limits):
        if not isinstance(tensor, dict) or tensor.get("name") not in ("probe", "reference", "gallery"):
            raise ServiceError("malformed", "inputs: must be tensors named probe, reference or gallery")
        if tensor["name"] in tensors:
            raise ServiceError("malformed", f"inputs: two tensors are named {tensor['name']}")
        tensors[tensor["name"]] = _rows(tensor, limits)
    shared = document.get("parameters") or {}
    if not isinstance(shared, dict):
        raise ServiceError("malformed", "parameters: must be an object")
    for name in shared:
        if name in tensors or (name == "id" and "id" in document):
            raise ServiceError("malformed", f"{name} is given twice: in parameters, too")
    shared = {**shared, **({"id": document["id"]} if "id" in document else {})}
    if isinstance(shared.get("returns"), str):
        shared["returns"] = [part.strip() for part in shared["returns"].split(",") if part.strip()]
    probes = _counted(tensors.pop("probe", []), "probe", limits)
    if "gallery" in tensors:
        gallery = {"embeddings": tensors.pop("gallery"), **_taken(shared, ("ids", "top"))}
        return [{**shared, "probe": probe, "gallery": gallery} for probe in probes]
    references = tensors.pop("reference", [])
    if len(probes) != len(references):
        raise ServiceError(
            "malformed", f"inputs: {len(probes)} probes and {len(references)} references are no pairs"
        )
    return [{**shared, "probe": a, "reference": b} for a, b in zip(probes, references, strict=True)]


def write_v1(explain: bool) -> Callable[[Sequence[Reply]], str]:
    """Writer of version 1's answers."""
    name = "explanations" if explain else "predictions"
    return lambda replies: f'{{"{name}": [{", ".join(reply.model_dump_json() for reply in replies)}]}}'


def write_v2(document: dict[str, Any]) -> Callable[[Sequence[Reply]], str]:
    """Writer of version 2's answers to a body."""
    given = document.get("id")

    def write(replies: Sequence[Reply]) -> str:
        answers = [reply for reply in replies if isinstance(reply, Answer)]
        if not answers:
            error = replies[0]
            assert isinstance(error, ErrorBody)  # it is no answer
            return _text({"error": error.message, "detail": error.model_dump(mode="json")})
        scores = [r.decision.score if isinstance(r, Answer) else None for r in replies]
        matches = [r.decision.match if isinstance(r, Answer) else None for r in replies]
        outputs = [
            _tensor("answer", "BYTES", [reply.model_dump_json() for reply in replies]),
            _tensor("score", "FP32", scores),
            _tensor("match", "BOOL", matches),
        ]
        named = {"id": given} if isinstance(given, str) else {}
        return _text(
            {"model_name": "xfr", "model_version": answers[0].versions.package, **named, "outputs": outputs}
        )

    return write


def _text(document: dict[str, Any]) -> str:
    """Documents within a document: what is no ASCII stays as it is, and not six bytes for one."""
    return json.dumps(document, ensure_ascii=False)


def _tensor(name: str, datatype: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}


def _counted(value: Any, name: str, limits: Limits) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ServiceError("malformed", f"{name}: must be a list that is not empty")
    if len(value) > limits.instances:
        raise ServiceError("too_large", f"{name}: {len(value)} of them, the limit is {limits.instances}")
    return value


def _rows(tensor: dict[str, Any], limits: Limits) -> list[Any]:
    """Images of a tensor, as base64 text; or its embeddings, whatever the nesting of its data."""
    name, data, shape = tensor["name"], tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list) or not isinstance(shape, list) or len(shape) not in (1, 2):
        raise ServiceError("malformed", f"inputs: {name} needs data, and a shape of one or two dimensions")
    wrong = ServiceError("malformed", f"inputs: the data of {name} does not have its shape")
    if not all(type(size) is int and size > 0 for size in shape):
        raise wrong
    if tensor.get("datatype") == "BYTES":
        if len(data) != math.prod(shape):
            raise wrong
        return data
    if tensor.get("datatype") not in ("FP32", "FP64"):
        raise ServiceError("malformed", f"inputs: {name} must be BYTES, FP32 or FP64")
    count, length = shape[0] if len(shape) == 2 else 1, shape[-1]
    most = limits.gallery if name == "gallery" else limits.instances
    if count > most:  # before as many lists are made
        raise ServiceError("too_large", f"{name}: more than {most} of them, which is the limit")
    is_nested = bool(data) and isinstance(data[0], list)
    if len(data) != (count if is_nested else count * length):
        raise wrong
    return data if is_nested else [data[at : at + length] for at in range(0, len(data), length)]


def _taken(shared: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: shared.pop(name) for name in names if name in shared}
