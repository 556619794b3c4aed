"""Insertion for verification: the most salient pixels come first."""

from __future__ import annotations

from typing import ClassVar

from xfr_plugin.evaluation.protocols._masking import MaskingProtocol

__all__ = ["Insertion"]


class Insertion(MaskingProtocol):
    """Only the top P percent of the pixels are kept, P = 0 … 100, and the pair is verified at the fixed threshold.

    What is kept is evidence for the truth, so the better the map, the sooner decisions become right: higher areas
    are better. Sources as of `deletion`; see `MaskingProtocol` for what is measured and for the options.

    2 + 10 forwards a pair for each variant that masks one face, 2 + 20 with both; 22 by default.
    """

    name = "insertion"
    title = "Insertion"
    higher_is_better: ClassVar[dict[str, bool]] = {"accuracy_auc": True, "margin_auc": True}
    along = "pixels kept, %"
    removes = False
