"""Attributions that see scores only, on real faces: every option once, with few masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xfr_plugin.attr import METHODS, CorrRise, PerturbationPairAttribution
from xfr_plugin.recognition import Recognizer, load_recognizer

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("corrrise", {"n_masks": 16, "n_patches": 2, "patch_size": 24, "seed": 1}),
    ("corrrise", {"n_masks": 16, "correlation": "spearman", "fill": "blur", "blur": (9, 2.0)}),
    ("srise", {"n_masks": 16, "grid": 5, "keep_probability": 0.6, "seed": 1}),
    ("srise", {"n_masks": 16, "level": "threshold", "fill": "mean", "blur": (9, 2.0)}),
    ("srise", {"n_masks": 16, "level": "none", "fill": 0.5}),
    ("xface", {"patch_sizes": (28,), "stride": 28}),
    ("xface", {"patch_sizes": (28, 56), "stride": 28, "pairing": "same", "fill": "mean", "blur": None}),
    ("xface", {"patch_sizes": (28,), "stride": 28, "pairing": "all", "fill": "blur", "blur": (9, 2.0)}),
    ("xface", {"patch_sizes": (28,), "stride": 28, "form": "released"}),
    ("mery_avg", {"stride": 28, "sigma": 14}),
    ("mery_avg", {"stride": 28, "strategy": "removal", "fill": "blur"}),
    ("minplus", {"stride": 37, "rounds": 2, "sigma": 14}),
    ("minplus", {"stride": 37, "strategy": "aggregation", "fill": "mean", "blur": (9, 2.0)}),
    ("leave_one_out", {"donors": 1}),
    ("leave_one_out", {"regions": "template", "donors": 2, "players": "grid7"}),
    ("leave_one_out", {"operator": "partner", "level": "score"}),
    ("amortised", {"regions": "template", "level": "score"}),
    ("shapley", {"donors": 1, "samples": 24, "players": "superpixels", "seed": 1, "level": "none"}),
    ("shapley", {"donors": 1, "samples": 24, "index": "banzhaf", "operator": "blur", "regions": "template"}),
]


@pytest.fixture(scope="module")
def real_recognizer() -> Recognizer:
    return load_recognizer("xfr_compact128")


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_every_option_gives_maps_that_vary_over_the_face(
    name: str, options: dict[str, Any], real_recognizer: Recognizer, real_pair: tuple[Tensor, Tensor]
) -> None:
    attribution = METHODS[name].build(real_recognizer, 0.3, **options)
    for side in attribution.attribute(real_pair):
        saliency = side[0].sum(dim=0)
        assert bool(torch.isfinite(saliency).all())
        assert float(saliency.std()) > 0


def test_every_option_is_exercised() -> None:
    """But for those that take an image, faces or a model, which the methods' own tests hand over."""
    elsewhere = {"fill", "blur", "population", "model", "network"}
    used: dict[str, set[str]] = {}
    for name, options in OPTIONS:
        used.setdefault(name, set()).update(options)
    for name, method in METHODS.items():
        if issubclass(method.cls, PerturbationPairAttribution):
            assert used[name] >= set(method.options()) - elsewhere


@pytest.mark.real_data
def test_the_middle_of_a_matching_face_argues_for_it(
    real_recognizer: Recognizer, real_pair: tuple[Tensor, Tensor]
) -> None:
    """Where the eyes and the nose are, against the border of the crop."""
    maps = CorrRise(real_recognizer, n_masks=100).attribute(real_pair)
    for side in maps:
        saliency = side[0].sum(dim=0)
        assert float(saliency[40:80, 30:82].mean()) > float(saliency[:12].mean())
        assert float(saliency[40:80, 30:82].mean()) > 0
