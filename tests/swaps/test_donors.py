"""Faces of nobody: the same every time, different from each other, faces."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from xfr_plugin.faces.outlines import find_outlines
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.swaps.donors import synthetic_faces


@pytest.mark.parametrize("size", [(112, 112), (56, 48)])
def test_synthetic_faces_are_faces_of_that_size(size: tuple[int, int]) -> None:
    faces = synthetic_faces(4, size)
    assert faces.shape == (4, 3, *size)
    assert faces.dtype == torch.float32
    assert 0 <= float(faces.min()) < float(faces.max()) <= 1
    assert all(face.found for face in find_outlines(faces))


def test_a_seed_gives_the_same_people_whatever_the_count() -> None:
    """But for a rounding step, since decoding sums in another order."""
    many = synthetic_faces(5, seed=3)
    for count in (1, 2, 4):
        assert float((synthetic_faces(count, seed=3) - many[:count]).abs().max()) <= 1.01 / 255
    assert float((synthetic_faces(5, seed=4) - many).abs().mean()) > 0.01


def test_they_are_different_people() -> None:
    """The recognizer whose embeddings were decoded takes hardly two of them for one person."""
    model = load_recognizer("xfr_compact128")
    units = model.embed(synthetic_faces(8))
    others = (units @ units.T)[~torch.eye(8, dtype=torch.bool)]
    assert float(others.median()) < model.threshold


def test_the_global_random_state_is_left_alone() -> None:
    """Also the first time, when networks are loaded: hence a process of its own."""
    script = (
        "import torch\n"
        "from xfr_plugin.swaps.regions import face_regions\n"
        "from xfr_plugin.swaps.donors import synthetic_faces\n"
        "torch.manual_seed(1)\n"
        "state = torch.random.get_rng_state()\n"
        "face_regions(synthetic_faces(2), True)\n"
        "assert torch.equal(torch.random.get_rng_state(), state)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
