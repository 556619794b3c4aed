"""From two photos to the decision and its reasons: pipeline, explanation, check, comparison, pictures."""

from xfr_plugin import _moved

__getattr__ = _moved.getattr_of("explanation")
