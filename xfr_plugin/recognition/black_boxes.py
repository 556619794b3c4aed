"""What a recognizer gives, and functions of others in the place of its network.

A network of torch gives embeddings and their gradient; a function behind which another framework, a file or a server
is gives embeddings only, or no more than the score of two faces. Such functions are called, and never looked into:
nothing here traces, folds or copies them.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError

__all__ = ["BlackBox", "EmbeddingFunction", "Gives", "ScoreFunction", "depends_on", "scores_in"]

Gives: TypeAlias = Literal["gradient", "embeddings", "scores"]
"""What a recognizer gives: embeddings and their gradient, embeddings only, or nothing but the score of two faces."""


class BlackBox(nn.Module):
    """A network that is no network of torch: no gradient passes it.

    Args:
        identity: tells it from others; what was measured for a recognizer is found by it, see `fingerprint`.

    Attributes:
        sha256: of the file that it was read from; None of what is no file.
    """

    identity: Tensor
    gives: Gives = "embeddings"
    sha256: str | None = None

    def __init__(self, identity: bytes) -> None:
        super().__init__()
        digest = torch.tensor(list(hashlib.sha256(identity).digest()), dtype=torch.uint8)
        self.register_buffer("identity", digest)

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        """Itself: what it calls cannot be copied, and nobody changes it."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images N×3×H×W: N×D, or whatever `outputs.embedding_in` understands.

        Raises:
            InputError: a gradient is asked for.
        """
        if torch.is_grad_enabled() and images.requires_grad:
            raise InputError(
                "this recognizer gives no gradient: choose a method that needs scores only, see `xfr methods`"
            )
        return self._embed(images.detach())

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Embed images that nobody wants a gradient of."""


class EmbeddingFunction(BlackBox):
    """A function of others from images to embeddings.

    Args:
        function: from N×3×H×W, a tensor, to N×D: a tensor, an array or nested lists.
        identity: see `BlackBox`.
    """

    def __init__(self, function: Callable[[Tensor], Any], identity: bytes) -> None:
        super().__init__(identity)
        self.function = function

    def _embed(self, images: Tensor) -> Tensor:
        return _tensor(self.function(images), images, "embeddings N×D")


class ScoreFunction(BlackBox):
    """A function of others that compares faces, and gives their scores.

    Args:
        function: from probes and references, N×3×H×W each, to N scores: a tensor, an array or numbers.
        identity: see `BlackBox`.
    """

    gives = "scores"

    def __init__(self, function: Callable[[Tensor, Tensor], Any], identity: bytes) -> None:
        super().__init__(identity)
        self.function = function

    def _embed(self, images: Tensor) -> Tensor:
        raise InputError("this recognizer gives scores only, and no embeddings: compare images with it")

    def score(self, probes: Tensor, references: Tensor) -> Tensor:
        """Scores N of preprocessed images; errors of `scores_in`."""
        return scores_in(self.function(probes.detach(), references.detach()), probes)


def scores_in(values: Any, probes: Tensor) -> Tensor:
    """The scores N that a function of others gave for N probes and their references.

    Raises:
        InputError: it gave something else, another number of scores, or such as are no numbers.
    """
    scores = _tensor(values, probes, "N scores").flatten()
    if len(scores) != len(probes):
        raise InputError(
            f"the score function gave {len(scores)} scores for {len(probes)} pairs: it is given batches"
        )
    if not bool(scores.isfinite().all()):
        raise InputError("the score function gave a score that is not a number or infinite")
    return scores


def depends_on(output: Tensor, leaf: Tensor) -> bool:
    """Whether the gradient of an output reaches a leaf, by the graph that autograd keeps."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        waiting.extend(after for after, _ in node.next_functions)
    return False


def _tensor(values: Any, like: Tensor, what: str) -> Tensor:
    """What a function of others gave, as a tensor beside the images.

    Raises:
        InputError: no tensor can be made of it.
    """
    try:
        if isinstance(values, (list, tuple)) and any(isinstance(row, Tensor) for row in values):
            values = torch.stack(tuple(values))
        found = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the function gave {_described(values)}: {what} are wanted, as an array, a tensor or lists"
        ) from error
    return found.detach().to(like.device, like.dtype)


def _described(values: Any) -> str:
    if isinstance(values, (list, tuple)) and values:
        return f"a {type(values).__name__} of {type(values[0]).__name__}"
    return "None" if values is None else f"a {type(values).__name__}"
