"""What any method must beat: maps that know nothing of the pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfr_plugin.swaps.planted_pairs import PlantedPairs

__all__ = ["average_maps", "centre_prior", "random_maps"]

Maps = NDArray[np.float32]


def random_maps(pairs: PlantedPairs, seed: int = 0) -> Maps:
    """White noise, N×H×W."""
    height, width = pairs.probes.shape[2:]
    noise = np.random.default_rng(seed).standard_normal((len(pairs), height, width))
    return noise.astype(np.float32)


def centre_prior(pairs: PlantedPairs) -> Maps:
    """A Gaussian bump in the middle of the crop (σ a quarter of each side), salient in whichever game: N×H×W."""
    height, width = pairs.probes.shape[2:]
    rows = np.exp(-(((np.arange(height) + 0.5) / height - 0.5) ** 2) / (2 * 0.25**2))
    columns = np.exp(-(((np.arange(width) + 0.5) / width - 0.5) ** 2) / (2 * 0.25**2))
    bump = np.outer(rows, columns)
    signs = np.array([1.0 if planting.game == "similar" else -1.0 for planting in pairs.plantings])
    maps: Maps = (signs[:, None, None] * bump).astype(np.float32)
    return maps


def average_maps(maps: Maps, pairs: PlantedPairs) -> Maps:
    """Each map replaced by the method's mean map of that game: what it shows whatever the pair."""
    games = np.array([planting.game for planting in pairs.plantings])
    averages = {game: maps[games == game].mean(axis=0) for game in set(games)}
    return np.stack([averages[game] for game in games]).astype(np.float32)
