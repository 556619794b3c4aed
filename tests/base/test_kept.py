"""What was made of a network serves as long as the network is as it was, and goes with it."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from xfr_plugin.base.kept import kept


class Thing:
    """Something that was made."""


def test_a_thing_is_made_once_for_each_key_and_state() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    first = kept(network, "a", Thing)
    assert kept(network, "a", Thing) is first
    assert kept(network, "b", Thing) is not first
    assert kept(nn.Sequential(*network), "a", Thing) is not first
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1
    assert kept(network, "a", Thing) is not first


def test_it_is_freed_with_the_network() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    network.own = network[0].forward  # refers to a part of the network
    alive = weakref.ref(kept(network, "a", Thing))
    assert alive() is not None
    del network
    gc.collect()
    assert alive() is None
