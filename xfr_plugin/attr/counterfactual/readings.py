"""What a score does when regions are exchanged, replaced and transplanted: the readings of counterfactual evidence.

For faces A and B of a pair, faces P_1 … P_K of nobody, and each region r, `X{r←Y}` is X with the region taken from Y.
Nothing is asked of the recognizer but scores s(·, ·) of faces. The readings of face A are

    exchange            s(A{r←B}, B) − s(A, B)      how much alike it becomes with the partner's region
    exchange_partner    s(B{r←A}, A) − s(A, B)
    intrusion           s(A{r←B}, A) − 1            how much the partner's region makes it another face
    intrusion_partner   s(B{r←A}, B) − 1
    removal             ⟨s(A{r←P}, B)⟩ − s(A, B)    how much is lost with the region
    removal_partner     ⟨s(B{r←P}, A)⟩ − s(A, B)
    both                ⟨s(A{r←P}, B{r←P})⟩ − s(A, B)
    transplant          ⟨s(P{r←A}, B) − s(P, B)⟩    how near to the partner the region alone brings nobody
    transplant_partner  ⟨s(P{r←B}, A) − s(P, A)⟩
    kinship             intrusion − (⟨s(A{r←P}, A)⟩ − 1)    whether the partner's is less foreign than anybody's
    kinship_partner     intrusion_partner − (⟨s(B{r←P}, B)⟩ − 1)

with ⟨·⟩ the mean over the K faces of nobody. Against a partner that is only an embedding, `removal` and `transplant`
can be read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xfr_plugin.attr._base.regional import Comparer
from xfr_plugin.swaps.exchange import exchange_regions
from xfr_plugin.swaps.masks import FeatheredMasks
from xfr_plugin.swaps.regions import FaceRegions

__all__ = ["ALONE_READINGS", "PAIR_READINGS", "alone_readings", "pair_readings"]


PAIR_READINGS = (
    "exchange",
    "exchange_partner",
    "intrusion",
    "intrusion_partner",
    "removal",
    "removal_partner",
    "both",
    "transplant",
    "transplant_partner",
    "kinship",
    "kinship_partner",
)

ALONE_READINGS = ("removal", "transplant")


def pair_readings(
    comparer: Comparer,
    faces: tuple[Tensor, Tensor],
    regions: tuple[FaceRegions, FaceRegions],
    donors: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Read a pair.

    Args:
        comparer: scores faces.
        faces: A and B, each C×H×W.
        regions: of A and of B.
        donors: faces of nobody, K×C×H×W.

    Returns:
        The score s(A, B), and the readings of A and of B, each R×F×K: of every region, every one of
        `PAIR_READINGS`, and every face of nobody, over which they are to be averaged.
    """
    a, b = faces
    union = FeatheredMasks.of(regions[0].grown | regions[1].grown)
    own = [comparer.rows(face[None])[0] for face in faces]
    exchanged = [
        comparer.rows(exchange_regions(face[None], other[None], union)[0]) for face, other in ((a, b), (b, a))
    ]
    nobody = comparer.rows(donors)[:, None]
    removed, planted = [], []
    for face, own_regions in zip(faces, regions, strict=True):
        masks, many = FeatheredMasks.of(own_regions.grown), face[None].expand_as(donors)
        removed.append(comparer.rows(exchange_regions(many, donors, masks)))  # K×R×…
        planted.append(comparer.rows(exchange_regions(donors, many, masks)))
    score = comparer.scores(own[0][None], own[1][None])[0]
    both = comparer.scores(*removed) - score
    sides = []
    for i, j in ((0, 1), (1, 0)):
        intrusion = comparer.scores(exchanged[i], own[i][None]) - 1
        sides.append(
            {
                "exchange": comparer.scores(exchanged[i], own[j][None]) - score,
                "intrusion": intrusion,
                "removal": comparer.scores(removed[i], own[j][None, None]) - score,
                "transplant": comparer.scores(planted[i], own[j][None, None])
                - comparer.scores(nobody, own[j][None, None]),
                "kinship": intrusion - (comparer.scores(removed[i], own[i][None, None]) - 1),
            }
        )
    return score, _stacked(sides[0], sides[1], both), _stacked(sides[1], sides[0], both)


def alone_readings(
    comparer: Comparer, face: Tensor, partner: Tensor, regions: FaceRegions, donors: Tensor
) -> tuple[Tensor, Tensor]:
    """Read a face against a partner of whom only the row is known; see `pair_readings`, and `ALONE_READINGS`."""
    masks, many = FeatheredMasks.of(regions.grown), face[None].expand_as(donors)
    own = comparer.rows(face[None])[0]
    removed = comparer.rows(exchange_regions(many, donors, masks))
    planted = comparer.rows(exchange_regions(donors, many, masks))
    score = comparer.scores_against(own[None], partner)[0]
    start = comparer.scores_against(comparer.rows(donors)[:, None], partner)
    readings = (
        comparer.scores_against(removed, partner) - score,
        comparer.scores_against(planted, partner) - start,
    )
    return score, torch.stack([reading.T for reading in readings], dim=1)


def _stacked(own: dict[str, Tensor], partner: dict[str, Tensor], both: Tensor) -> Tensor:
    """R×F×K of readings K×R, or R where they do not depend on the face of nobody."""
    named = own | {f"{name}_partner": value for name, value in partner.items()} | {"both": both}
    return torch.stack([named[name].expand_as(both).T for name in PAIR_READINGS], dim=1)
