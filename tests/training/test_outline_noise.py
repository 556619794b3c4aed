"""Outlines that are a little off."""

from __future__ import annotations

import torch

from xfr_plugin.faces import template_regions
from xfr_plugin.swaps.regions import region_index
from xfr_plugin.training.engine import step_generator
from xfr_plugin.training.outline_noise import wobbled


def test_outlines_are_bent_and_no_further_than_asked() -> None:
    index = region_index([template_regions((112, 112))] * 3)
    pixels = torch.tensor([0.0, 1.5, 6.0])
    bent = wobbled(index, pixels, step_generator(0, 4))
    assert torch.equal(bent[0], index[0])
    apart = (bent != index).float().mean(dim=(1, 2))
    assert 0.005 < float(apart[1]) < float(apart[2]) < 0.5
    assert bent.dtype == index.dtype
