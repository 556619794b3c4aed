"""Exchange and replacement: against plain loops, as black boxes, and where nothing can be found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xfr_plugin.attr import METHODS
from xfr_plugin.attr._base.masks import gaussian_lattice
from xfr_plugin.attr.counterfactual.exchange import Exchange
from xfr_plugin.attr.counterfactual.replacement import Replacement
from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer
from xfr_plugin.swaps.donors import synthetic_faces

Images = tuple[Tensor, Tensor]
SIZES = (20.0, 40.0)


def blended(face: Tensor, other: Tensor, window: Tensor) -> Tensor:
    """Another's pixels under a window, shifted to the face's mean colour there; each C×H×W, the window H×W."""
    share = window / window.sum()
    shift = ((face - other) * share).sum(dim=(1, 2))
    return (face + window * (other - face + shift[:, None, None])).clamp(0, 1)


def by_loop(recognizer: Recognizer, face: Tensor, partner: Tensor, others: list[Tensor]) -> Tensor:
    """The map H×W of a face: one changed face at a time."""

    def score(image: Tensor) -> float:
        with torch.no_grad():
            pair = recognizer.embed(torch.stack((image, partner)))
        return float(pair[0] @ pair[1])

    height, width = face.shape[1:]
    result, clean = torch.zeros(height, width, dtype=face.dtype), score(face)
    for size in SIZES:
        windows = gaussian_lattice(size, 1.25 * size, (height, width))
        total, covered = torch.zeros_like(result), torch.zeros_like(result)
        for index in range(len(windows)):
            window = windows.draw(slice(index, index + 1), face)[0]
            gains = [score(blended(face, other, window)) - clean for other in others]
            total += window * (sum(gains) / len(gains))
            covered += window
        result -= total / covered.clamp_min(1e-6) / len(SIZES)
    return result


def test_exchange_is_a_plain_loop(recognizer: Recognizer, pair: Images) -> None:
    maps = Exchange(recognizer, sizes=SIZES).attribute(pair)
    for side, (own, partner) in enumerate((pair, pair[::-1])):
        expected = by_loop(recognizer, own[1], partner[1], [partner[1]])
        torch.testing.assert_close(maps[side][1].sum(dim=0), expected, atol=1e-10, rtol=1e-8)


def test_replacement_is_a_plain_loop(recognizer: Recognizer, pair: Images) -> None:
    donors = [donor.to(pair[0]) for donor in synthetic_faces(2, (24, 20))]
    maps = Replacement(recognizer, sizes=SIZES, donors=2).attribute(pair)
    expected = by_loop(recognizer, pair[0][1], pair[1][1], donors)
    torch.testing.assert_close(maps[0][1].sum(dim=0), expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("cls", [Exchange, Replacement])
def test_score_function_gives_the_same_maps(cls: Any, recognizer: Recognizer, pair: Images) -> None:
    plain = cls(recognizer, sizes=SIZES).attribute(pair)

    def score(probes: Tensor, references: Tensor) -> Tensor:
        return (recognizer.embed(probes) * recognizer.embed(references)).sum(dim=1)

    blind = cls.from_scores(score, recognizer.threshold, sizes=SIZES).attribute(pair)
    for side, other in zip(plain, blind, strict=True):
        torch.testing.assert_close(side, other, atol=1e-10, rtol=1e-8)
        assert float(side.abs().sum()) > 0


def test_identical_faces_have_nothing_to_exchange(recognizer: Recognizer, pair: Images) -> None:
    maps = Exchange(recognizer, sizes=SIZES).attribute((pair[0], pair[0]))
    assert all(float(side.abs().max()) < 1e-12 for side in maps)


def test_exchange_needs_both_faces(recognizer: Recognizer, pair: Images) -> None:
    with pytest.raises(InputError, match="both faces"):
        Exchange(recognizer).attribute(pair[0], additional_forward_args=recognizer.embed(pair[1]))


def test_replacement_explains_a_probe_against_an_embedding(recognizer: Recognizer, pair: Images) -> None:
    method = Replacement(recognizer, sizes=SIZES, donors=1)
    alone = method.attribute(pair[0], additional_forward_args=recognizer.embed(pair[1]).detach())
    torch.testing.assert_close(alone, method.attribute(pair)[0])


@pytest.mark.parametrize("options", [{"sizes": ()}, {"sizes": (0.5,)}, {"spacing": 0.1}])
@pytest.mark.parametrize("cls", [Exchange, Replacement])
def test_options_are_checked(cls: Any, options: dict[str, Any], recognizer: Recognizer) -> None:
    with pytest.raises(InputError):
        cls(recognizer, **options)
    assert METHODS[cls.__name__.lower()].cls is cls
