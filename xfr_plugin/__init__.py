"""Explain face verification: which regions of two faces argue for a match, which against, and how much.

The photo-to-answer calls are `verify`, `explain` and `compare`; attribution classes for use where Captum
is used are in `xfr_plugin.attr`.
"""

import lazy_loader as lazy

from xfr_plugin._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
