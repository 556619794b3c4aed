"""Deletion for verification: the most salient pixels go first."""

from __future__ import annotations

from typing import ClassVar

from xfr_plugin.evaluation.protocols._masking import MaskingProtocol

__all__ = ["Deletion"]


class Deletion(MaskingProtocol):
    """The top P percent of the pixels are removed, P = 0 … 100, and the pair is verified at the fixed threshold.

    What is removed is evidence for the truth, so the better the map, the sooner decisions become wrong: lower areas
    are better. Deletion is Petsiuk, Das and Saenko's (RISE, BMVC 2018); as a verification accuracy it is used by Lu
    and others (CorrRISE, arXiv 2305.08546). See `MaskingProtocol` for what is measured and for the options.

    2 + 10 forwards a pair for each variant that masks one face, 2 + 20 with both; 22 by default.
    """

    name = "deletion"
    title = "Deletion"
    higher_is_better: ClassVar[dict[str, bool]] = {"accuracy_auc": False, "margin_auc": False}
    along = "pixels removed, %"
    removes = True
