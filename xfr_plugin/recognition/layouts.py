"""Whose weights these are: the architecture, and the part of a checkpoint, whose keys and shapes fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

from xfr_plugin.base.weights import check_layout
from xfr_plugin.errors import LayoutError
from xfr_plugin.recognition.networks import ARCHITECTURES, Architecture, build_network, get_architecture

__all__ = ["fit_architecture"]

_DEEPEST_PREFIX = 4

Layout = dict[str, torch.Size]
"""Shapes by key."""


def fit_architecture(
    state: Mapping[str, Tensor], source: str, architecture: str | None = None
) -> tuple[str, dict[str, Tensor]]:
    """Find the architecture of weights, and the weights under the names of that architecture.

    Networks are often saved as a part of a larger module, so that their keys begin with `backbone.`, `model.` or the
    like, beside keys of other parts. Any beginning will do under which keys and shapes are exactly those of an
    architecture.

    Args:
        state: a state dict.
        source: names the weights in messages.
        architecture: look for this one alone.

    Raises:
        UnknownNameError: no such architecture.
        LayoutError: the weights fit none; the message names the nearest, and what differs.
    """
    names = [architecture] if architecture else list(ARCHITECTURES)
    nearest, fewest = (names[0], dict(state)), (0, len(state))
    fitting: dict[str, tuple[str, dict[str, Tensor]]] = {}
    for beginning, part in _parts(state):
        for name in names:
            matching, different = _compared(_layout(get_architecture(name)), part)
            if not different:
                fitting[beginning] = name, part
            if (-matching, different) < fewest:
                nearest, fewest = (name, part), (-matching, different)
        if "" in fitting:
            break
    if len(fitting) > 1:
        raise LayoutError(
            f"{source} holds several networks ({', '.join(fitting)}): save the one that you mean alone"
        )
    if fitting:
        return next(iter(fitting.values()))
    raise _misfit(*nearest, source, known=architecture is not None, alike=fewest[0] < 0)


def _misfit(name: str, part: Mapping[str, Tensor], source: str, *, known: bool, alike: bool) -> LayoutError:
    """What differs, in words: from the architecture asked for, or from the nearest."""
    own = f"the weights in {source} fit none of our architectures ({', '.join(ARCHITECTURES)})"
    advice = "if they are of another network, build it yourself and wrap it in `Recognizer(network, …)`"
    if not known and not alike:
        return LayoutError(f"{own}: {advice}")
    with torch.device("meta"):
        network = build_network(name)
    try:
        check_layout(network, part, source)
    except LayoutError as error:
        return error if known else LayoutError(f"{own}; the nearest is {name}: {error}; {advice}")
    raise AssertionError(f"{source} fits {name}")


def _parts(state: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The whole state dict, then each beginning of its keys and what lies under it."""
    yield "", dict(state)
    paths = [key.split(".")[:-1][:_DEEPEST_PREFIX] for key in state]
    beginnings = {".".join(path[: i + 1]) + "." for path in paths for i in range(len(path))}
    for beginning in sorted(beginnings, key=lambda text: (text.count("."), text)):
        part = {
            key.removeprefix(beginning): value for key, value in state.items() if key.startswith(beginning)
        }
        yield beginning, part


@cache
def _layout(architecture: Architecture) -> Layout:
    with torch.device("meta"):
        state = architecture().state_dict()
    return {key: value.shape for key, value in state.items()}


def _compared(layout: Layout, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many keys agree in shape; and how many do not, are unknown or missing (BatchNorm's counters may be)."""
    shared = layout.keys() & state.keys()
    matching = sum(layout[key] == state[key].shape for key in shared)
    missing = sum(not key.endswith("num_batches_tracked") for key in layout.keys() - shared)
    return matching, len(shared) - matching + missing + len(state) - len(shared)
