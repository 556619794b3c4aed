"""Many pairs: lists of them, explained by any number of processes, and what comes out of it.

The room is called `bulk` and not `batch` because `xfr_plugin.batch` is a function.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
