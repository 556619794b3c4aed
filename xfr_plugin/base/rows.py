"""Further arguments of models: those that have a row for each image follow what is done to the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from torch import Tensor
from torch.nn import functional

from xfr_plugin.errors import InputError

__all__ = ["has_rows", "of_one_length", "one_row", "partner_units", "with_rows"]


def has_rows(value: Any, count: int) -> TypeGuard[Tensor]:
    """Whether an argument has a row for each of `count` images."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def with_rows(arguments: Iterable[Any], count: int, change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Arguments of which those with a row for each of `count` images are changed; the others are as they were."""
    return tuple(change(value) if has_rows(value, count) else value for value in arguments)


def of_one_length(reference: Tensor, embeddings: Tensor) -> Tensor:
    """Reference embeddings that can be compared with others.

    Raises:
        InputError: they are of another length.
    """
    if reference.shape[-1] != embeddings.shape[-1]:
        raise InputError(
            f"the reference embedding has {reference.shape[-1]} channels, and the probe's {embeddings.shape[-1]}: is "
            "it of another recognizer?"
        )
    return reference


def partner_units(partners: Tensor, units: Tensor) -> Tensor:
    """Unit embeddings M×D of partners, M×D or one for all, for unit embeddings M×D; see `one_row`.

    Raises:
        InputError: they are of another length.
    """
    own = functional.normalize(one_row(partners, units.shape[1]), dim=1)
    return of_one_length(own, units).to(units).expand_as(units)


def one_row(row: Tensor, width: int) -> Tensor:
    """A row 1×D of `width` D, of which a tool of Captum's may have made one of k·D.

    Its tools repeat every tensor along with the images, and a vector's values for rows: each k times, or all of them
    in turn. Other rows are returned as they are.
    """
    times, rest = divmod(row.shape[1], width)
    if len(row) != 1 or times < 2 or rest:
        return row
    in_turn, each = row.view(times, width), row.view(width, times)
    if bool((in_turn == in_turn[:1]).all()):
        return in_turn[:1]
    return each[:, :1].T if bool((each == each[:, :1]).all()) else row
