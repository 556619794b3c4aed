"""Lists that fill themselves: an entry is made where its class or function is defined, and a new file is enough."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from xfr_plugin.errors import InputError

__all__ = ["Names", "Registry"]

Entry = TypeVar("Entry", bound="Named")
Kept = TypeVar("Kept")
P = ParamSpec("P")


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """Its key."""


class Keeping(Protocol):
    """A decorator that returns what it is given."""

    def __call__(self, described: Kept, /) -> Kept:
        """Take note of a class or function."""


class Registry(Mapping[str, Entry]):
    """Name → entry. All modules of a package are imported when it is first read.

    Entries of other packages join when they are imported. They are listed in the order of their modules' names, and
    of a module as they stand there.

    Args:
        kind: of the entries, for messages.
        package: dotted name of a package or module; private modules are left alone.
        order: sort key of an entry, before the name of its module.
    """

    def __init__(self, kind: str, package: str, order: Callable[[Entry], Any] = lambda _: 0) -> None:
        self._kind = kind
        self._package = package
        self._order = order
        self._entries: dict[str, tuple[str, Entry]] = {}  # with the module's name
        self._complete = False

    def describing(self, make: Callable[Concatenate[Any, P], Entry]) -> Callable[P, Keeping]:
        """A decorator with the arguments of an entry's maker, but for the first: the class or function itself."""

        def decorator(*arguments: P.args, **options: P.kwargs) -> Keeping:
            def describe(described: Kept, /) -> Kept:
                self._add(make(described, *arguments, **options), str(getattr(described, "__module__", "")))
                return described

            return describe

        return decorator

    def _add(self, entry: Entry, module: str) -> None:
        known = self._entries.get(entry.name)
        if known is not None and known[0] != module:
            raise InputError(
                f"{self._kind} {entry.name!r} is in {known[0]} and again in {module}: give one of them another name"
            )
        self._entries[entry.name] = (module, entry)

    def __getitem__(self, name: str) -> Entry:
        return self._filled()[name][1]

    def __iter__(self) -> Iterator[str]:
        filled = self._filled()
        return iter(sorted(filled, key=lambda name: (self._order(filled[name][1]), filled[name][0])))

    def __len__(self) -> int:
        return len(self._filled())

    def names(self, chosen: Callable[[Entry], bool]) -> Names[Entry]:
        """Names of some entries; nothing is imported before they are read."""
        return Names(self, chosen)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Look for new modules again, and forget what is added within, so that an entry can be tried out."""
        before = dict(self._filled())
        self._complete = False
        try:
            yield
        finally:
            self._entries = before

    def _filled(self) -> dict[str, tuple[str, Entry]]:
        if not self._complete:
            _import_all(self._package)
            self._complete = True
        return self._entries


class Names(Sequence[str], Generic[Entry]):
    """Names of those entries of a registry that a condition holds for, in its order."""

    def __init__(self, registry: Registry[Entry], chosen: Callable[[Entry], bool]) -> None:
        self._registry = registry
        self._chosen = chosen

    def _tuple(self) -> tuple[str, ...]:
        return tuple(name for name, entry in self._registry.items() if self._chosen(entry))

    def __getitem__(self, index: Any) -> Any:
        return self._tuple()[index]

    def __len__(self) -> int:
        return len(self._tuple())

    def __repr__(self) -> str:
        return repr(self._tuple())


def _import_all(package: str) -> None:
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            importlib.import_module(found.name)
