"""What networks return, and where in it the embedding is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xfr_plugin.base.replicas import in_evaluation
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.black_boxes import Gives, depends_on

__all__ = ["Part", "check_units", "embedding_in", "giving_embeddings", "tensor_in"]

_USUAL = ("embedding", "embeddings", "image_embeds", "pooler_output")
"""Names of the embedding where networks return several things, the most telling first."""

_Place: TypeAlias = int | str | None
"""Index, key or attribute of a part of what is returned; None for the whole."""


def embedding_in(output: object, count: int, name: str) -> Tensor:
    """Find the embeddings, N×D, in what a network returned for N images.

    They may be returned alone or as a part of a tuple, list, dictionary or object: under a usual name, or as the
    only tensor of that shape. N×D×1×1 is as good as N×D, and so is D for a single image. Half precision and whole
    numbers become float32.

    Args:
        output: of the network.
        count: N.
        name: of the recognizer, for messages.

    Raises:
        InputError: there is none, or it is not clear which; the message says what was returned.
    """
    place = _place(output, count, name)
    found = _as_rows(dict(_parts(output))[place], count)
    assert found is not None  # made sure by _place
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


def tensor_in(output: object, count: int, network: object) -> Tensor:
    """What a network that is no recognizer returned for N images: a tensor as it is, or else the embedding in it.

    Raises:
        InputError: see `embedding_in`.
    """
    return output if isinstance(output, Tensor) else embedding_in(output, count, type(network).__name__)


def check_units(units: Tensor, name: str) -> Tensor:
    """Return normalised embeddings N×D if all are of length one.

    Raises:
        InputError: one was zero or not finite before, so that it has no direction, and no pair of it a score.
    """
    lengths = units.double().norm(dim=1)
    wrong = ~((lengths - 1).abs() < 0.01)
    if not bool(wrong.any()):
        return units
    index = int(wrong.nonzero()[0, 0])
    if float(lengths[index]) < 0.99:
        raise InputError(
            f"{name} gives a zero embedding for face {index} of {len(units)}, which is like no face and every face: "
            "check the photo, mean and std, and that the network is trained"
        )
    raise InputError(
        f"{name} gives an embedding that is not a number or infinite for face {index} of {len(units)}: "
        "check its weights, and compute in float32 (`recognizer.float()`)"
    )


def giving_embeddings(network: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, Gives]:
    """The network itself if it returns a tensor N×D, else with modules behind it that take the embedding out.

    It is tried on two grey images. A network that cannot be tried, or in whose output no embedding is found, is
    left as it is: using it gives the error.

    Returns:
        The network, and whether it gives a gradient: one that detaches, or leaves torch on the way, gives none.
    """
    like = next(filter(Tensor.is_floating_point, network.parameters()), torch.zeros(()))
    images = torch.full((2, 3, *size), 0.5, device=like.device, dtype=like.dtype)
    gives: Gives = "gradient"
    try:
        output, place = _tried(network, images.requires_grad_())
    except Exception:  # foreign code, tried on what it may not be made for
        try:
            output, place = _tried(network, images.detach())
            gives = "embeddings"  # as where images become arrays, which those with a gradient cannot
        except Exception:  # as above
            return network, "gradient"
    found = dict(_parts(output))[place]
    if images.requires_grad and not depends_on(found, images):
        gives = "embeddings"
    behind: list[nn.Module] = [] if place is None else [Part(place)]
    if found.ndim > 2:
        behind.append(nn.Flatten())
    return (nn.Sequential(network, *behind).train(network.training) if behind else network), gives


def _tried(network: nn.Module, images: Tensor) -> tuple[object, _Place]:
    """What a network returns for two images, and where the embedding is in it."""
    with torch.set_grad_enabled(images.requires_grad):
        output = in_evaluation(network)(images)
    return output, _place(output, 2, "")


class Part(nn.Module):
    """Takes a part, by its index, key or attribute, out of what the module before returned."""

    def __init__(self, place: int | str) -> None:
        super().__init__()
        self.place = place

    def forward(self, output: Any) -> Any:
        """The part."""
        by_name = isinstance(self.place, str) and not isinstance(output, Mapping)
        return getattr(output, str(self.place)) if by_name else output[self.place]


def _place(output: object, count: int, name: str) -> _Place:
    parts = dict(_parts(output))
    rows = {place: _as_rows(part, count) for place, part in parts.items()}
    columns = {place: part.shape[1] for place, part in rows.items() if part is not None}
    # beside an embedding, a column is its quality or its norm
    fitting = [place for place, width in columns.items() if width > 1] or list(columns)
    usual = [place for place in _USUAL if place in fitting]
    if usual or len(fitting) == 1:
        return (usual or fitting)[0]
    returned = ", ".join(
        f"{'' if place is None else f'{place}: '}{tuple(part.shape)}" for place, part in parts.items()
    )
    many = "more than one tensor that could be the embedding; " if fitting else ""
    raise InputError(
        f"the network of {name} returned {many}{type(output).__name__} of shape {returned or 'unknown'} for {count} "
        "images; an embedding must be N×D: return it alone"
    )


def _parts(output: object) -> Iterator[tuple[_Place, Tensor]]:
    if isinstance(output, Tensor):
        yield None, output
        return
    if isinstance(output, Mapping):
        parts: Any = output.items()
    elif isinstance(output, (tuple, list)):
        parts = enumerate(output)
    else:
        parts = getattr(output, "__dict__", {}).items()
    yield from ((place, part) for place, part in parts if isinstance(part, Tensor))


def _as_rows(part: Tensor, count: int) -> Tensor | None:
    """N×D, or None if the tensor is none."""
    if part.ndim == 1 and count == 1:
        part = part[None]
    if part.ndim < 2 or len(part) != count or set(part.shape[2:]) - {1}:
        return None
    return part.flatten(1)
