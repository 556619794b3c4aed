"""The command line."""

from xfr_plugin import _moved

__getattr__ = _moved.getattr_of("cli")
