"""Random numbers from a seed that leave the global generators alone, which all threads share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

__all__ = ["seeded"]

_DRAWING: frozenset[Callable[..., Any]] = frozenset(
    (
        *(
            torch.bernoulli,
            torch.multinomial,
            torch.normal,
            torch.rand,
            torch.randint,
            torch.randn,
            torch.randperm,
        ),
        *(Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_),
        *(Tensor.log_normal_, Tensor.multinomial, Tensor.normal_, Tensor.random_, Tensor.uniform_),
        *(init.uniform_, init.normal_, init.trunc_normal_, init.kaiming_uniform_, init.kaiming_normal_),
        *(init.xavier_uniform_, init.xavier_normal_, init.orthogonal_, init.sparse_),
    )
)


class seeded(TorchFunctionMode):  # noqa: N801 - used like a function, as torch's own modes of this kind
    """Let this thread's code draw from generators of its own, in a `with` block.

    For code that takes no generator. It draws what it would draw after `torch.manual_seed`; other threads notice
    nothing.

    Args:
        seed: of the generators, one for each device.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, with a generator if it draws."""
        options = dict(kwargs or {})
        if func in _DRAWING and options.get("generator") is None:
            options["generator"] = self._generator(_device(args, options))
        return func(*args, **options)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def _device(arguments: tuple[Any, ...], options: dict[str, Any]) -> torch.device:
    """Where a function draws."""
    tensors = (value for value in (*arguments, *options.values()) if isinstance(value, Tensor))
    first = next(tensors, None)
    return torch.device(options.get("device") or "cpu") if first is None else first.device
