"""Options of methods: every one on real faces, small; wrong ones refused; seeds, and parts for and against."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xfr_plugin.attr import METHODS, CorrRise, PerturbationPairAttribution
from xfr_plugin.errors import InputError
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
    ("integrated_gradients", {"n_steps": 2, "baseline": "blur", "method": "riemann_middle"}),
    ("input_x_gradient", {"batch_size": 1}),
    ("smoothgrad", {"n_samples": 2, "noise": 0.1, "gradient": "absolute", "noise_type": "smoothgrad_sq"}),
    ("deeplift", {"baseline": "mean", "batch_size": 1}),
    ("occlusion", {"window": 56, "stride": 56, "baseline": "grey"}),
    ("lime", {"parts": "regions", "n_samples": 16, "alpha": 0.1, "kernel_width": 1.0, "spread": "share"}),
    ("kernel_shap", {"n_parts": 8, "n_samples": 20, "baseline": "blur", "seed": 1}),
    ("gradcam", {}),
    ("gradcam", {"layer": "network.front.0", "batch_size": 1}),
    ("gradcam_plus_plus", {"arguments": "against"}),
    ("gradcam_plus_plus", {"places": "all"}),
    ("score_cam", {"max_channels": 4}),
    ("score_cam", {"max_channels": 4, "weights": "increase", "batch_size": 2}),
    ("fame", {"steps": 2}),
    ("fame", {"steps": 2, "clip": True, "arguments": "for", "blur": None, "batch_size": 1}),
    ("fame", {"steps": 2, "step_size": 0.01, "arguments": "against", "blur": (5, 2)}),
]

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("fggb", {"embedding": "half", "gradient": "none", "level": "tau", "chunk_size": 0, "blur": (24, 5)}),
    ("fggb", {"chunk_size": "many"}),
    ("xssab", {"blur": (25, 0), "arguments": "both"}),
    ("corrrise", {"n_masks": 1, "n_patches": 0, "patch_size": 0, "correlation": "kendall", "blur": (4, 1)}),
    ("corrrise", {"fill": "white"}),
    ("corrrise", {"fill": True}),
    ("srise", {"n_masks": 1, "grid": 0, "keep_probability": 1.0, "level": "score"}),
    ("xface", {"pairing": "cross", "patch_sizes": (), "stride": 0, "blur": "patch"}),
    ("xface", {"patch_sizes": (7, 0)}),
    ("mery_avg", {"strategy": "minus", "sigma": 0, "stride": 0}),
    ("minplus", {"rounds": 0}),
    (
        "integrated_gradients",
        {"baseline": "white", "n_steps": 0, "method": "simpson", "internal_batch_size": 0},
    ),
    ("input_x_gradient", {"batch_size": 0}),
    ("smoothgrad", {"noise": 0.0, "noise_type": "mean", "gradient": "none", "n_samples": 0}),
    ("deeplift", {"baseline": None}),
    ("occlusion", {"window": 113, "stride": 15}),
    ("lime", {"parts": "squares", "spread": "none", "alpha": -1.0, "kernel_width": 0.0}),
    ("kernel_shap", {"n_samples": 0, "n_parts": 0}),
    ("gradcam", {"arguments": "both", "batch_size": 0}),
    ("gradcam_plus_plus", {"places": "negative"}),
    ("score_cam", {"weights": "sum", "max_channels": 0}),
    ("fame", {"steps": 0, "step_size": 0.0, "arguments": "both", "blur": (4, 1.0), "batch_size": 0}),
    (
        "channel_relevance",
        {"part": "all", "normalization": "max", "level": "tau", "chunk_size": 0, "blur": (4, 1)},
    ),
    ("ebp", {"contrast": "both", "arguments": "all", "truncation": 1.0, "blur": (24, 5)}),
    ("ebp", {"truncation": -0.1}),
]
"""Values of options, each of which is wrong by itself."""


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


@pytest.mark.parametrize(
    ("name", "option", "value"), [(name, *one) for name, options in WRONG for one in options.items()]
)
def test_wrong_options_are_refused(name: str, option: str, value: object, recognizer: Recognizer) -> None:
    with pytest.raises(InputError):
        METHODS[name].cls(recognizer, 0.2, **{option: value})


@pytest.mark.parametrize("name", ["smoothgrad", "lime", "kernel_shap", "corrrise", "srise"])
def test_random_numbers_are_seeded_and_the_global_ones_left_alone(
    name: str, recognizer: Recognizer, pair: tuple[Tensor, Tensor]
) -> None:
    before = torch.random.get_rng_state()
    count = {"n_masks" if "n_masks" in METHODS[name].options() else "n_samples": 20}
    maps = [METHODS[name].build(recognizer, 0.2, seed=s, **count).attribute(pair)[0] for s in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("ebp", {"contrast": contrast}) for contrast in ("none", "contrastive", "truncated")),
        *((name, {}) for name in ("gradcam", "gradcam_plus_plus", "score_cam")),
        ("fame", {"steps": 5}),
    ],
)
def test_arguments_are_the_parts_of_the_whole(
    name: str, options: dict[str, Any], recognizer: Recognizer, pair: tuple[Tensor, Tensor]
) -> None:
    similar, dissimilar, both = (
        METHODS[name].build(recognizer, 0.2, arguments=arguments, **options).attribute(pair)[0]
        for arguments in ("for", "against", "combined")
    )
    assert bool((similar >= 0).all())
    assert bool((dissimilar <= 0).all())
    torch.testing.assert_close(similar + dissimilar, both)
