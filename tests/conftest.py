"""Fixtures shared by all tests: real data where it is, small recognizers everywhere."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # each of the processes that share the cores computes on one
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from helpers.small_net import SmallNet, give_statistics
from numpy.typing import NDArray

from xfr_plugin.faces import load_photo
from xfr_plugin.recognition import Recognizer

XFR_DATA = Path(os.environ.get("XFR_DATA", "../shared/data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (XFR_DATA / "weights").is_dir():
        return
    skip = pytest.mark.skip(reason=f"no real weights and faces at {XFR_DATA}: set XFR_DATA")
    for item in items:
        if item.get_closest_marker("real_data"):
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What draws without a seed draws the same in whatever order tests run, and on whichever worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def xfr_data() -> Path:
    return XFR_DATA


@pytest.fixture(scope="session")
def faces_root() -> Path:
    return XFR_DATA / "faces"


@pytest.fixture
def real_pair(faces_root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Two aligned photographs of one person, 1×3×112×112 float32 in [0, 1] each; for tests marked `real_data`."""
    folder = faces_root / "lfw112" / "Abel_Pacheco"
    photos = np.stack([load_photo(folder / f"Abel_Pacheco_000{number}.jpg") for number in (1, 4)])
    probe, reference = torch.from_numpy(photos.transpose(0, 3, 1, 2)).float()[:, None] / 255
    return probe, reference


@pytest.fixture
def recognizer() -> Recognizer:
    """A small float64 recognizer with non-square input, non-trivial BatchNorm and threshold 0.2."""
    torch.manual_seed(0)
    network = SmallNet()
    give_statistics(network)
    return Recognizer(network, input_size=(24, 20), threshold=0.2, name="small").double()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Three pairs of random images for `recognizer`, N×3×24×20 float64 in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    probe, reference = torch.rand(2, 3, 3, 24, 20, generator=generator, dtype=torch.float64)
    return probe, reference


@pytest.fixture
def face_photo() -> NDArray[np.uint8]:
    """A photograph of 140×160 pixels without a face: smooth colours and some noise."""
    rows, columns = np.mgrid[:140, :160]
    noise = np.random.default_rng(0).integers(0, 20, (140, 160))
    layers = (rows + noise, columns + noise, 255 - rows - noise)
    return np.stack(layers, axis=-1).clip(0, 255).astype(np.uint8)
