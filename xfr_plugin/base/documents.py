"""What is read from JSON and written to it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

__all__ = ["Document", "RepeatedKeyError", "check_keys", "read_json", "with_keys_once"]

_LONGEST = 40
Text = TypeVar("Text", bound="str | bytes | bytearray")


class RepeatedKeyError(ValueError):
    """An object names a key twice: readers differ in which of them counts."""


class Document(BaseModel):
    """Checked when it is made, never changed, and with no fields but those that it names, each once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Read from JSON; raises pydantic's ValidationError, for a key that is given twice, too."""
        return super().model_validate_json(with_keys_once(json_data, cls.__name__), **options)


def with_keys_once(text: Text, title: str) -> Text:
    """The text of a document; raises pydantic's ValidationError for a key that is given twice."""
    try:
        check_keys(text)
    except RepeatedKeyError as error:
        problem = PydanticCustomError("repeated_key", "{reason}", {"reason": str(error)})
        told = InitErrorDetails(type=problem, loc=(), input=None)
        raise ValidationError.from_exception_data(title, [told], "json") from None
    return text


def read_json(text: str | bytes | bytearray) -> Any:
    """Read JSON in which no key is given twice.

    Raises:
        RepeatedKeyError: one is.
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_object)


def check_keys(text: str | bytes | bytearray) -> None:
    """Refuse a key that is given twice; nothing else that may be wrong. Numbers are passed over, not read.

    Raises:
        RepeatedKeyError: an object names a key twice.
    """
    try:
        text = text if isinstance(text, str) else bytes(text).decode()
        json.loads(text, object_pairs_hook=_object, parse_float=len, parse_int=len, strict=False)
    except RepeatedKeyError:
        raise
    except (ValueError, RecursionError):
        return  # whoever reads it will say so


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        shown = twice if len(twice) <= _LONGEST else f"{twice[:_LONGEST]}…"
        raise RepeatedKeyError(f"the key {shown!r} is given twice")
    return found
