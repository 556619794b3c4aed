"""Every error that `xfr_plugin` raises on purpose.

::

    XfrError
     ├── InputError               an argument of the wrong type, shape or range (also a ValueError)
     │    └── UnknownNameError    a recognizer, method, region ... that does not exist
     ├── PhotoError               a photo that cannot be used
     │    ├── PhotoNotFoundError  no such file (also a FileNotFoundError)
     │    ├── PhotoFormatError    not an image, truncated, or of a kind that cannot be read
     │    └── PhotoTooLargeError  more pixels or bytes than the limit
     ├── FaceError                a photo whose faces cannot be used
     │    └── NoFaceError         no face found
     ├── ExplanationError         a pair that a method cannot explain: its maps would be no evidence
     ├── DeadlineError            work that was not done in time, and was stopped
     ├── WeightsError             a weight file that cannot be used
     │    ├── ChecksumError       the file is not the one that was published
     │    └── LayoutError         the weights belong to another architecture
     ├── ResultError              a saved result that cannot be read back
     └── OutputError              a file or folder that cannot be written (also an OSError)

Messages say what was wrong and what to do; they fit on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "ChecksumError",
    "DeadlineError",
    "ExplanationError",
    "FaceError",
    "FaceWarning",
    "InputError",
    "LayoutError",
    "NoFaceError",
    "OutputError",
    "PhotoError",
    "PhotoFormatError",
    "PhotoNotFoundError",
    "PhotoTooLargeError",
    "ResultError",
    "UnknownNameError",
    "WeightsError",
    "XfrError",
]


class XfrError(Exception):
    """The root of all errors of this package."""


class InputError(XfrError, ValueError):
    """An argument has the wrong type, shape or range."""


_SHOWN = 40


class UnknownNameError(InputError):
    """A name (of a recognizer, method, region ...) that is not in its list."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Build the message, with the nearest known names first."""
        names = sorted(known)
        name = name if len(name) <= 80 else f"{name[:80]}…"
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return cls(f"unknown {kind} {name!r}: {hint}known are {', '.join(names[:_SHOWN]) or 'none'}{more}")


class PhotoError(XfrError):
    """A photo cannot be used."""


class PhotoNotFoundError(PhotoError, FileNotFoundError):
    """There is no such file."""


class PhotoFormatError(PhotoError):
    """The data is not an image, is truncated, or is of a kind that cannot be read."""


class PhotoTooLargeError(PhotoError):
    """The photo has more pixels or bytes than the limit."""


class FaceError(XfrError):
    """The faces of a photo cannot be used."""


class NoFaceError(FaceError):
    """No face was found in the photo."""


class ExplanationError(XfrError):
    """A method cannot explain a pair: its map is not finite, or no gradient reaches the pixels."""


class DeadlineError(XfrError):
    """Work that was not done in time was stopped."""


class WeightsError(XfrError):
    """A weight file cannot be used."""


class ChecksumError(WeightsError):
    """The file is not the one that was published."""


class LayoutError(WeightsError):
    """The weights belong to another architecture: keys or shapes differ."""


class ResultError(XfrError):
    """A saved result cannot be read back."""


class OutputError(XfrError, OSError):
    """A file or folder cannot be written."""


class FaceWarning(UserWarning):
    """The answer may be less reliable: several faces, a tiny face, an approximate alignment."""


def first_fault(error: ValidationError, whole: str = "") -> str:
    """The first of the faults that pydantic found, and where it is: in `whole` if in no part of it."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


def in_one_line(error: Exception) -> str:
    """An error as one line: the message of ours, and for any other its type too."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, (InputError, ExplanationError)) else f"{type(error).__name__}: {text}"
