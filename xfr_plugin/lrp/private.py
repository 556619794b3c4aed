"""Rules on a network of one's own: what a composite changes, no other thread may see."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from zennit.attribution import Attributor
from zennit.core import Composite

from xfr_plugin.base.replicas import replica, state_of

__all__ = ["AttrOutput", "PrivateAttributor", "keeping", "with_rules"]

AttrOutput: TypeAlias = Tensor | Callable[[Tensor], Tensor]
"""Relevance that the output starts with, M×D, or a function from the output to it."""

_OPEN: ContextVar[tuple[AbstractContextManager[Any], ...]] = ContextVar("open attributors", default=())
"""`with` statements of this thread, the innermost last."""


@contextmanager
def with_rules(model: Any, composite: Any | None) -> Iterator[tuple[Any, Any | None]]:
    """A replica of a model that a copy of a composite is registered with, and this copy.

    The model gets no hooks and is not canonized, and the composite stays free for other models: both can be used by
    any number of threads meanwhile.

    Args:
        model: a module in any mode, the replica is in evaluation mode; or a plain function, which stays as it is.
        composite: Zennit composite; without one there is a replica all the same.
    """
    kept = _KEPT.get(composite) if isinstance(model, nn.Module) and composite is not None else None
    if kept is not None:
        with kept.lent(model, composite) as found:
            yield found
        return
    twin = replica(model) if isinstance(model, nn.Module) else model
    if composite is None:
        yield twin, None
        return
    own = _copied(composite)
    try:
        own.register(twin)
        yield twin, own
    finally:
        own.remove()  # also where registering it failed half-way


def keeping(composite: Composite) -> Composite:
    """Have `with_rules` keep the replicas that this composite was registered with, for the calls that follow.

    Reading a network and giving it rules can take longer than all that is computed with it. The composite must not be
    changed any more; the model may be, between calls.
    """
    _KEPT[composite] = _Replicas()
    return composite


class _Replicas:
    """Replicas of a model with rules that nobody uses just now; each is lent to one call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: Any = None
        self._idle: list[tuple[nn.Module, Composite]] = []

    @contextmanager
    def lent(self, model: nn.Module, composite: Composite) -> Iterator[tuple[nn.Module, Composite]]:
        """A replica of the model as it is now; given back unless the call failed."""
        state = (id(model), state_of(model))
        with self._lock:
            if self._state != state:
                self._state, self._idle = state, []
            found = self._idle.pop() if self._idle else None
        twin, own = found or (replica(model), _copied(composite))
        if found is None:
            try:
                own.register(twin)
            except BaseException:
                own.remove()
                raise
        yield twin, own
        for hook in own.hook_refs:  # what they hold of the call
            hook.remove()
        with self._lock:
            if self._state == state:
                self._idle.append((twin, own))


_KEPT: WeakKeyDictionary[Composite, _Replicas] = WeakKeyDictionary()


def _copied(composite: Composite) -> Composite:
    """A composite of the same rules, with hooks of its own."""
    own = copy.copy(composite)
    Composite.__init__(own, own.module_map, own.canonizers)
    return own


class PrivateAttributor(Attributor):  # type: ignore[misc]  # Zennit is not typed
    """Zennit's `Attributor`, whose calls give a composite's rules to a replica of the model.

    So the model can be used by other threads meanwhile, and any number of threads can call one attributor. A `with`
    statement gives an attributor whose replica and rules serve all calls in the block; it is for one thread. A
    composite that was registered beforehand is used where it is.
    """

    def __enter__(self) -> Any:
        block = self._with_rules()
        own = block.__enter__()
        _OPEN.set((*_OPEN.get(), block))
        return own

    def __exit__(self, *error: Any) -> None:
        *others, block = _OPEN.get()
        _OPEN.set(tuple(others))
        block.__exit__(None, None, None)

    def __call__(self, input: Tensor, attr_output: AttrOutput | None = None) -> tuple[Tensor, Tensor]:
        """Output and attribution; see Zennit's `Attributor`, and the class."""
        with self._with_rules() as own:
            found: tuple[Tensor, Tensor] = Attributor.__call__(own, input, attr_output)
            return found

    @contextmanager
    def _with_rules(self) -> Iterator[Any]:
        """A copy of this attributor whose model is a replica with the rules; itself, where they are registered."""
        if self.composite is not None and self.composite.handles:
            yield self
            return
        own = copy.copy(self)
        with with_rules(self.model, self.composite) as (own.model, own.composite):
            yield own
