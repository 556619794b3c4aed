"""A report: one file that a person can read, print and check, with everything that is known of a pair."""

from xfr_plugin.explanation.report.build import Input, Report, build_report

__all__ = ["Input", "Report", "build_report"]
