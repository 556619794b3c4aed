"""Measuring regional evidence: exchanges between training people, regression, and the decoder's maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfr_plugin.channels.decoded import normalised_maps
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.folding import folded_recognizer
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.reconstruction.regional import RegionalEvidence
from xfr_plugin.swaps.exchange import exchanged_embeddings

__all__ = ["fit_regional"]

_RIDGE = 0.1
"""Of the regression, in units of the mean variance of b − a. Between .001 and .5 it makes no difference."""

_SHARPNESS = 3
"""Power of the decoder's change in a region before it is compared with the other regions'."""

_MAP_PAIRS = 200


def fit_regional(
    recognizer: Recognizer,
    decoder: nn.Module,
    images: Tensor,
    people: Tensor,
    embeddings: Tensor,
    *,
    exchanges: int = 3000,
    seed: int = 0,
) -> RegionalEvidence:
    """Measure regional evidence on training faces; the same seed gives the same.

    Args:
        recognizer: embeds the faces with exchanged regions.
        decoder: maps N×D to N×3×h×w.
        images: 8-bit RGB faces at the recognizer's input size, N×3×H×W.
        people: a number for each face; equal numbers, same person.
        embeddings: of the faces and of their mirror images, N×2×D.
        exchanges: pairs of different people whose regions are exchanged; each costs one forward pass for each of
            the eight regions, and two more.
        seed: of the draw.

    Raises:
        InputError: fewer than two people.
    """
    generator = torch.Generator().manual_seed(seed)
    faces, donors = _different_people(people, exchanges, generator)
    a, b, blends = (
        torch.cat(units).float()
        for units in zip(
            *exchanged_embeddings(folded_recognizer(recognizer), images[faces], images[donors]), strict=True
        )
    )
    shifts = _regress((b - a).double(), (blends - a[:, None]).double())
    change = _decoder_changes(decoder, a[:_MAP_PAIRS], b[:_MAP_PAIRS], shifts.float())
    sharp = change**_SHARPNESS
    shares = sharp / sharp.sum(dim=0).clamp_min(torch.finfo(sharp.dtype).tiny)
    areas = shares.mean(dim=(1, 2))
    blank = torch.zeros(len(shifts), 7)
    fitted = RegionalEvidence(shifts, blank, normalised_maps(shares), areas)
    moments = _moments(fitted, *_labelled_pairs(people, embeddings, exchanges, generator))
    return RegionalEvidence(shifts, moments, normalised_maps(shares), areas)


def _different_people(people: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if len(people.unique()) < 2:
        raise InputError("regional evidence needs faces of at least two people, one folder each")
    first, second = torch.randint(len(people), (2, 4 * count), generator=generator)
    differ = people[first] != people[second]
    return first[differ][:count], second[differ][:count]


def _labelled_pairs(
    people: Tensor, embeddings: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Embeddings of impostor pairs and as many genuine ones; an only photo is paired with its mirror image."""
    first, second = _different_people(people, count, generator)
    anyone = torch.randint(len(people), (len(first),), generator=generator)
    mates = [_mate(people, int(i), generator) for i in anyone]
    genuine = torch.stack([embeddings[i, 0 if i != j else 1] for i, j in zip(mates, anyone, strict=True)])
    probes = torch.cat((embeddings[first, 0], embeddings[anyone, 0]))
    return probes, torch.cat((embeddings[second, 0], genuine))


def _mate(people: Tensor, index: int, generator: torch.Generator) -> int:
    same = torch.nonzero(people == people[index]).flatten()
    others = same[same != index]
    return int(others[torch.randint(len(others), (1,), generator=generator)]) if len(others) else index


def _regress(moves: Tensor, responses: Tensor) -> Tensor:
    """Ridge regression of each region's responses N×R×D on moves N×D: matrices R×D×D."""
    gram = moves.T @ moves
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    cross = torch.einsum("nd,nre->rde", moves, responses)
    solved: Tensor = torch.linalg.solve(gram, cross).transpose(1, 2)
    return solved


@torch.no_grad()
def _decoder_changes(decoder: nn.Module, faces: Tensor, donors: Tensor, shifts: Tensor) -> Tensor:
    """Mean L1-normalised change of reconstructions as their embeddings move by W_r (b − a), R×h×w."""
    total = torch.zeros(())
    for a, b in zip(faces, donors, strict=True):
        moved = functional.normalize(a + shifts @ (b - a), dim=1)
        images = decoder(torch.cat((a[None], moved)))
        total = total + normalised_maps((images[1:] - images[:1]).abs().mean(dim=1)).double()
    return total.float() / len(faces)


def _moments(fitted: RegionalEvidence, probes: Tensor, references: Tensor) -> Tensor:
    """Regress products and self terms of pairs on their scores; see `MOMENTS`."""
    product, own = (term.double() for term in fitted.terms(probes, references))
    scores = (probes * references).sum(dim=1).double()
    design = torch.stack((torch.ones_like(scores), scores), dim=1)
    of_product, of_own = (torch.linalg.lstsq(design, term).solution for term in (product, own))
    left, right = product - design @ of_product, own - design @ of_own
    spread = torch.stack([(x * y).mean(dim=0) for x, y in ((left, left), (left, right), (right, right))])
    return torch.cat((of_product, of_own, spread)).T.float()
