"""Bodies that are forms: their fields, counted before they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from python_multipart.multipart import MultipartParser, parse_options_header

from xfr_plugin.service.errors import ServiceError
from xfr_plugin.service.limits import FIELDS

__all__ = ["fields_of"]

_BAD = ServiceError("malformed", "the body is no valid form")
_TWICE = ServiceError("malformed", "the form has a field twice: which of them is meant?")
_MOST_ESCAPES = 500_000
"""Of `%41` in a form's text: more than an image as base64 has, and no more than a fifth of a second's work."""


def fields_of(body: bytes, content_type: str) -> Mapping[str, bytes | str] | ServiceError:
    """What `service.wire.read_message` takes: fields of a form, or the body."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            return _multipart(body, content_type)
        if kind == "application/x-www-form-urlencoded":
            if body.count(b"%") > _MOST_ESCAPES:
                raise ServiceError("too_large", "the form has far too many escapes: send it as multipart")
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS)
            if len(dict(pairs)) < len(pairs):
                raise _TWICE
            return dict(pairs)
    except ServiceError as error:
        return error
    except ValueError:  # python-multipart's errors, too
        return _BAD
    return {"body": body}


def _multipart(body: bytes, content_type: str) -> dict[str, bytes | str]:
    fields: dict[str, bytes | str] = {}
    header: dict[str, bytearray] = {}
    part: dict[str, bytearray] = {}
    value = bytearray()
    ended: list[bool] = []

    def begin() -> None:
        part.clear()
        value.clear()

    def header_begin() -> None:
        header.update(field=bytearray(), value=bytearray())

    def header_end() -> None:
        part[header["field"].decode("latin-1").lower()] = header["value"]

    def end() -> None:
        options = parse_options_header(bytes(part.get("content-disposition", b"")))[1]
        if b"name" not in options or len(fields) >= FIELDS:
            raise ServiceError("malformed", f"a form has up to {FIELDS} fields, each with a name")
        name = options[b"name"].decode()
        if name in fields:
            raise _TWICE
        fields[name] = bytes(value)

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _BAD
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_part_data": lambda data, start, stop: value.extend(data[start:stop]),
            "on_part_end": end,
            "on_header_begin": header_begin,
            "on_header_field": lambda data, start, stop: header["field"].extend(data[start:stop]),
            "on_header_value": lambda data, start, stop: header["value"].extend(data[start:stop]),
            "on_header_end": header_end,
            "on_end": lambda: ended.append(True),
        },
    )
    parser.write(body)
    parser.finalize()
    if not ended:  # it breaks off: a field may be missing that changes the answer
        raise _BAD
    return fields
