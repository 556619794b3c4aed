"""Channel evidence and the saliency rule, written once for every source of channel maps.

For unit embeddings a, b of N channels and a threshold τ, channel k contributes the similarity v_k = a_k · b_k to the
score s = Σ v_k, and the evidence c_k = v_k − τ/N to the decision margin: Σ c_k = s − τ. Positive evidence speaks
for a match, negative evidence against. A channel map M_k says where on the face channel k lives; the saliency of a
face is S = Σ_k c_k · M_k (after Xu, Lu and Ebrahimi, MMSP 2023, arXiv 2306.00402).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from xfr_plugin.errors import InputError

__all__ = ["EvidenceLevel", "channel_evidence", "channel_similarity", "weigh_channel_maps"]

EvidenceLevel: TypeAlias = Literal["threshold", "score"]
"""What a channel is compared with: its share of the threshold, τ/N, or of the pair's own score, s/N.

With `threshold` the evidence sums to the margin s − τ; with `score` it sums to 0 and shows which regions are more
or less alike than the pair is on the whole."""


def channel_similarity(probe: Tensor, reference: Tensor) -> Tensor:
    """Per-channel similarity v = a·b, M×D, of unit embeddings M×D; its sum over channels is the cosine."""
    return probe * reference


def channel_evidence(
    probe: Tensor, reference: Tensor, threshold: float, level: EvidenceLevel = "threshold"
) -> Tensor:
    """Evidence of each channel for (positive) or against (negative) a match, M×D.

    Args:
        probe: unit embeddings, M×D.
        reference: unit embeddings of the partners, M×D.
        threshold: decision threshold τ on the cosine.
        level: see `EvidenceLevel`.

    Raises:
        InputError: an unknown level.
    """
    similarity = channel_similarity(probe, reference)
    if level == "threshold":
        return similarity - threshold / similarity.shape[1]
    if level == "score":
        return similarity - similarity.mean(dim=1, keepdim=True)
    raise InputError(f"level must be 'threshold' or 'score', got {level!r}")


def weigh_channel_maps(evidence: Tensor, maps: Tensor) -> Tensor:
    """The saliency rule for a chunk of channels: Σ_k evidence M×K · maps K×M×(shape) → M×(shape)."""
    return torch.einsum("mk,km...->m...", evidence, maps)
