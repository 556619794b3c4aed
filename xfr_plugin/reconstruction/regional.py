"""Regional evidence: the share of a score that each region of the face is answerable for, from embeddings alone.

Single channels of an embedding are not local: ablating one changes the whole reconstruction. Directions are. When a
region r of face A is exchanged for B's, the embedding moves by about W_r (b − a), with one matrix W_r for all
people, found by ridge regression over exchanges between training people. Made symmetric and completed to Σ_r W_r = I,
these matrices divide the cosine among the regions,

    q_r = aᵀW_r b − λ (aᵀW_r a + bᵀW_r b),    Σ_r q_r = s − 2λ,

by product (λ = 0), by distance (λ = ½), or between. What pairs of score t have on average is μ_r(t) = α_r + γ_r t,
with Σ_r μ_r(t) = t − 2λ. The evidence of a region is what it has beyond other pairs of this score, and its share A_r
of the face's area of the decision margin: c_r = q_r − μ_r(s) + A_r (s − τ), which sums to s − τ. (Or q_r − μ_r(τ),
which sums to the same: the margin then lies where it usually does.) Where on the face a region's evidence is shown is
the decoder's answer: where reconstructions change when an embedding moves by W_r (b − a).

This is ours, after the idea of Xu, Lu and Ebrahimi (MMSP 2023, arXiv 2306.00402).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError

__all__ = ["MOMENTS", "RegionalEvidence", "Spread"]

Spread: TypeAlias = Literal["even", "typical"]
"""How the margin lies on the face, apart from what regions have beyond other pairs: evenly, or as it usually does."""

MOMENTS = (
    "product_at_0",
    "product_slope",
    "self_at_0",
    "self_slope",
    "product_var",
    "covariance",
    "self_var",
)
"""Columns of `RegionalEvidence.moments`: over training pairs of score t, aᵀW_r b is about `product_at_0` +
`product_slope`·t, and aᵀW_r a + bᵀW_r b about `self_at_0` + `self_slope`·t; the last three are the (co)variances of
what is left."""


class RegionalEvidence(nn.Module):
    """Divides the score of a pair among the regions of the face.

    Args:
        shifts: W_r, R×D×D, as regressed.
        moments: R×7, see `MOMENTS`.
        maps: R×h×w ≥ 0, where on the face each region's evidence is shown; each sums to one.
        areas: share of the face that each map stands for, R; they sum to one.

    Raises:
        InputError: shapes that do not fit each other.
    """

    shifts: Tensor
    moments: Tensor
    maps: Tensor
    areas: Tensor
    forms: Tensor

    def __init__(self, shifts: Tensor, moments: Tensor, maps: Tensor, areas: Tensor) -> None:
        super().__init__()
        regions, dim = shifts.shape[:2]
        wanted = ((regions, dim, dim), (regions, len(MOMENTS)), (regions, *maps.shape[1:]), (regions,))
        found = tuple(tuple(value.shape) for value in (shifts, moments, maps, areas))
        if maps.ndim != 3 or found != wanted:
            raise InputError(f"regional evidence of shapes {found} does not fit together: expected {wanted}")
        self.register_buffer("shifts", shifts.float())
        self.register_buffer("moments", moments.float())
        self.register_buffer("maps", maps.float() / maps.float().sum(dim=(1, 2), keepdim=True))
        self.register_buffer("areas", areas.float() / areas.float().sum())
        self.register_buffer("forms", _completed(self.shifts, self.areas), persistent=False)

    def terms(self, probe: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Products aᵀW_r b, which sum to the score, and self terms aᵀW_r a + bᵀW_r b, which sum to 2; N×R each."""
        forms = self.forms.to(probe)
        product = torch.einsum("nd,rde,ne->nr", probe, forms, reference)
        own = [torch.einsum("nd,rde,ne->nr", x, forms, x) for x in (probe, reference)]
        return product, own[0] + own[1]

    def evidence(
        self,
        probe: Tensor,
        reference: Tensor,
        level: float | Tensor,
        distance: float = 0.3,
        standardised: bool = False,
        spread: Spread = "even",
    ) -> Tensor:
        """Evidence of each region, N×R; it sums to s − `level`.

        Args:
            probe: unit embeddings, N×D.
            reference: unit embeddings of the partners, N×D.
            level: score that regions are measured against: a number (τ), or one for each pair (their own scores).
            distance: 0, product evidence, …, 1, distance evidence (λ = ½).
            standardised: measure each region in deviations of its own evidence among pairs of one score, so
                that small regions count as large ones do; what that leaves of the margin is spread evenly.
            spread: see `Spread`.
        """
        weight = distance / 2
        product, own = self.terms(probe, reference)
        moments = self.moments.to(probe)
        at_zero = moments[:, 0] - weight * moments[:, 2]
        slope = moments[:, 1] - weight * moments[:, 3]
        reached = torch.as_tensor(level, dtype=probe.dtype, device=probe.device).reshape(-1, 1)
        score = (probe * reference).sum(dim=1, keepdim=True)
        evidence = product - weight * own - at_zero - slope * (score if spread == "even" else reached)
        margin = score - reached
        areas = self.areas.to(probe)
        areas = areas / areas.sum()  # to one in the probe's precision
        if standardised:
            evidence = evidence * self._precision(weight).to(probe)
        rest: Tensor = margin - evidence.sum(dim=1, keepdim=True)
        return evidence + rest * areas

    def _precision(self, weight: float) -> Tensor:
        """Area over deviation of each region, R, with mean one."""
        product, mixed, own = self.moments[:, 4:].unbind(dim=1)
        deviation = (product - 2 * weight * mixed + weight**2 * own).clamp_min(1e-12).sqrt()
        precision = self.areas / deviation
        return precision / precision.mean()


def _completed(shifts: Tensor, areas: Tensor) -> Tensor:
    """Symmetric matrices that sum to the identity: what the regression leaves open goes to all by area."""
    symmetric = (shifts + shifts.transpose(1, 2)) / 2
    identity = torch.eye(shifts.shape[1], dtype=shifts.dtype, device=shifts.device)
    return symmetric + areas[:, None, None] * (identity - symmetric.sum(dim=0))
