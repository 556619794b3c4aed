"""What goes wrong in a request, as a code for machines, a status for HTTP, and a sentence for people."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, ValidationError

from xfr_plugin.base.documents import Document
from xfr_plugin.errors import (
    DeadlineError,
    FaceError,
    InputError,
    PhotoError,
    PhotoTooLargeError,
    XfrError,
)

__all__ = [
    "STATUS",
    "ErrorBody",
    "ErrorCode",
    "Problem",
    "ServiceError",
    "as_service_error",
    "from_validation",
]

ErrorCode: TypeAlias = Literal[
    "malformed",
    "unauthorized",
    "not_allowed",
    "not_found",
    "too_slow",
    "too_large",
    "not_an_image",
    "no_face",
    "unusable",
    "internal",
    "busy",
    "deadline",
]
"""Kinds of errors. Clients can rely on them; the sentences may change."""

STATUS: dict[ErrorCode, int] = {
    "malformed": 400,
    "unauthorized": 401,
    "not_allowed": 403,
    "not_found": 404,
    "too_slow": 408,
    "too_large": 413,
    "not_an_image": 415,
    "no_face": 422,
    "unusable": 422,
    "internal": 500,
    "busy": 503,
    "deadline": 504,
}
"""HTTP status of each kind."""

_LONGEST = 200
_MOST_PROBLEMS = 10


class Problem(Document):
    """One thing that is wrong in a request.

    Attributes:
        where: path to the field, with dots; never its value.
        what: what is wrong with it.
    """

    where: str
    what: str


class ErrorBody(Document):
    """The body of an answer that is an error.

    Attributes:
        format: of this document.
        id: of the request, as it was given.
        code: kind of error, see `ErrorCode`.
        status: HTTP status of that kind.
        message: what was wrong and what to do.
        problems: the fields that are wrong, for `malformed`.
    """

    format: Literal["xfr-error/1"] = "xfr-error/1"
    id: str | None = None
    code: ErrorCode
    status: int = Field(ge=400, le=599)
    message: str
    problems: list[Problem] = Field(default=[])


class ServiceError(XfrError):
    """A request that cannot be answered.

    Args:
        code: kind of error.
        message: what was wrong and what to do; no value of the request belongs in it.
        problems: the fields that are wrong.
    """

    def __init__(self, code: ErrorCode, message: str, problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.problems = problems or []
        self.request_id: str | None = None

    def about(self, request_id: str | None) -> ServiceError:
        """The same error of the request of this id."""
        error = ServiceError(self.code, str(self), self.problems)
        error.request_id = request_id
        return error

    @property
    def status(self) -> int:
        """HTTP status."""
        return STATUS[self.code]

    def body(self, request_id: str | None = None) -> ErrorBody:
        """The answer to send instead."""
        return ErrorBody(
            id=request_id or self.request_id,
            code=self.code,
            status=self.status,
            message=str(self),
            problems=self.problems,
        )


def as_service_error(error: Exception) -> ServiceError:
    """Find the kind of any error. What is not ours is `internal`, and only its cause may tell of the request."""
    if isinstance(error, ServiceError):
        return error
    kinds: tuple[tuple[type[Exception], ErrorCode], ...] = (
        (DeadlineError, "deadline"),
        (PhotoTooLargeError, "too_large"),
        (PhotoError, "not_an_image"),
        (FaceError, "no_face"),
        (InputError, "malformed"),
        (XfrError, "unusable"),
    )
    for kind, code in kinds:
        if isinstance(error, kind):
            return ServiceError(code, str(error))
    # torch and onnxruntime have errors of their own for it
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return ServiceError("too_large", "this request needs more memory than there is: ask for less")
    internal = ServiceError("internal", "the service failed on this request; its log names the error's type")
    internal.__cause__ = error
    return internal


def from_validation(error: ValidationError) -> ServiceError:
    """Say which fields are wrong, without their values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        Problem(where=_short(".".join(map(str, item["loc"])) or "the body"), what=_short(item["msg"]))
        for item in found[:_MOST_PROBLEMS]
    ]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return ServiceError("malformed", f"{problems[0].where}: {problems[0].what}{more}", problems)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
