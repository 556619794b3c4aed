"""Many pairs: lists of them, explained by any number of processes, and what comes out of it."""

from .api import batch
from .pairs import PairTable, read_pair_table
from .progress import Step
from .results import BatchResults
from .selection import selected
from .summary import Decided, RegionRow, Summary, summarise

__all__ = [
    "BatchResults",
    "Decided",
    "PairTable",
    "RegionRow",
    "Step",
    "Summary",
    "batch",
    "read_pair_table",
    "selected",
    "summarise",
]
