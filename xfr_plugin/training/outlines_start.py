"""Going on from an outline finder that knows fewer points: what it draws stays, new points follow from the old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xfr_plugin.errors import InputError
from xfr_plugin.faces.outline_network import OutlineFinder
from xfr_plugin.faces.outlines import Outliner

__all__ = ["start_from"]

_OWN = ("mean", "basis", "reach")


def start_from(
    network: OutlineFinder,
    finder: Outliner,
    features: Mapping[str, Sequence[int]],
    shapes: Tensor,
    coefficients: Tensor,
) -> None:
    """Let a network draw what a finder draws: its weights, the last layer translated to the new shape model.

    Args:
        network: has its own shape model already.
        finder: of the same width.
        features: of the network.
        shapes: N×K×2, on which the translation is fitted.
        coefficients: of these shapes in the network's shape model, N×C.

    Raises:
        InputError: the finder is wider or narrower, or has outlines that the network has not.
    """
    known = finder.network
    places = _places(finder.features, features)
    if known.width != network.width or set(places) != set(range(known.points)):
        raise InputError(
            "training can go on only from a finder of the same width, whose outlines are among those to be found"
        )
    basis = known.basis.flatten(1).double()
    flat = (shapes[:, [places[i] for i in range(known.points)]] - known.mean).flatten(1).double()
    theirs = flat @ torch.linalg.pinv(basis)
    ones = torch.ones(len(flat), 1, dtype=torch.float64)
    fitted = torch.linalg.lstsq(torch.cat([theirs, ones], 1), coefficients.double()).solution
    state = {name: value for name, value in known.state_dict().items() if name not in _OWN}
    weight, bias = state["coefficients.weight"].double(), state["coefficients.bias"].double()
    state["coefficients.weight"] = (fitted[:-1].T @ weight).float()
    state["coefficients.bias"] = (fitted[:-1].T @ bias + fitted[-1]).float()
    network.load_state_dict({**network.state_dict(), **state})


def _places(theirs: Mapping[str, Sequence[int]], ours: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """Number of each point of a finder among ours, by the features that both have."""
    return {
        old: new
        for name in theirs.keys() & ours.keys()
        for old, new in zip(theirs[name], ours[name], strict=True)
    }
