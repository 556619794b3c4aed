"""Which channel stands for which region: by removal of regions, and by reconstruction. Do the two agree?

    python benchmarks/channel_effects.py --recognizer xfr_compact128 --people 60

By removal: how much of what leaving regions out does to a channel of the embedding, one region at a time, is done by
each region (absolute effects, four composite donors, regions of the template), mean over people of LFW's official
test list. By reconstruction: the share of a channel's map in the region, as in `docs/reconstruction.md`. Both are
divided by the average channel's (*lift*). Printed: correlation of the two tables (channels × regions) of log lifts
with 95 % intervals from resampling channels; and of each with itself, from two halves of the people, which bounds
what can be expected.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from xfr_plugin.attr import LeaveOneOut, region_effects
from xfr_plugin.channels import channel_regions
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.zoo import data_root
from xfr_plugin.reconstruction import find_decoder
from xfr_plugin.training.faces_data import find_faces, read_faces

DRAWS = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--people", type=int, default=60)
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    root = data_root() / "faces"
    everyone = find_faces(root / "lfw112", root / "peopleDevTest.txt")
    names = np.random.default_rng(0).permutation(sorted(everyone))[: options.people]
    faces = read_faces(root / "lfw112", {name: everyone[name][:1] for name in names}, recognizer.input_size)
    images = faces.batch(torch.arange(len(faces)))
    game = LeaveOneOut(recognizer, threshold=0.0, regions="template", level="none")
    effects = region_effects(game, images)
    removal = np.stack([face.effects.abs().T.numpy() for face in effects])  # P×D×R
    shown = removal.any(axis=(0, 1))
    removal = removal[:, :, shown] / removal.sum(axis=2, keepdims=True)
    found = channel_regions(find_decoder(recognizer), recognizer.embed(images))
    assert found.people is not None
    order = [
        found.regions.index(name)
        for name, is_shown in zip(effects[0].players, shown, strict=True)
        if is_shown
    ]
    decoded = found.people[:, :, order]
    both = [log_lift(values) for values in (removal, decoded)]
    print("removal against reconstruction:", correlated(*both))
    for name, values in (("removal", removal), ("reconstruction", decoded)):
        print(
            f"{name}, one half of the people against the other:",
            correlated(log_lift(values[::2]), log_lift(values[1::2])),
        )
    for region, column in zip(
        [effects[0].players[i] for i in np.flatnonzero(shown)], range(len(order)), strict=True
    ):
        print(f"{region:12}", correlated(both[0][:, column : column + 1], both[1][:, column : column + 1]))


def log_lift(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of shares P×D×R: log of a channel's mean share over the average channel's, D×R."""
    mean = shares.mean(axis=0)
    lift: NDArray[np.float64] = np.log(np.maximum(mean, 1e-9) / mean.mean(axis=0))
    return lift


def correlated(own: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Pearson's r of two tables D×R, with its interval."""
    random = np.random.default_rng(0)
    draws = random.integers(0, len(own), (DRAWS, len(own)))
    values = [np.corrcoef(own[some].ravel(), other[some].ravel())[0, 1] for some in draws]
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{np.corrcoef(own.ravel(), other.ravel())[0, 1]:.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
