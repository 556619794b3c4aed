"""Attribution methods for pairs of faces, after Captum's contract; one method a file.

The class of every method in `METHODS` can be imported from here. Nothing is imported before it is asked for.

The examples of the classes suppose a recognizer and two aligned faces in [0, 1]::

    recognizer = xfr_plugin.load_recognizer("xfr_compact128")
    probe, reference = torch.rand(2, 1, 3, 112, 112)  # faces, rather
"""

from typing import Any

import lazy_loader as lazy

from xfr_plugin.attr._base.method import METHODS as _METHODS

_find, _, _listed = lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Names of the stub, and classes of methods that are not in it."""
    if name == "__all__":
        return sorted({*_listed, *_classes()})
    if name in _listed or not name[:1].isupper():  # a class; submodules are asked for here, too
        return _find(name)
    return _classes().get(name) or _find(name)


def __dir__() -> list[str]:
    return sorted({*_listed, *_classes()})


def _classes() -> dict[str, type]:
    return {method.cls.__name__: method.cls for method in _METHODS.values()}
