"""Reports: the picture of an explanation, and its document."""

from xfr_plugin.report.document import read_explanation, write_explanation
from xfr_plugin.report.figure import explanation_figure

__all__ = ["explanation_figure", "read_explanation", "write_explanation"]
