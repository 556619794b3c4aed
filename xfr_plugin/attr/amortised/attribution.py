"""The fast form of leaving one region out: what it would show, read off the recognizer's feature maps in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr._base.pair import Pair
from xfr_plugin.attr._base.perturbation import PERTURBATIONS_PER_EVAL, _picked
from xfr_plugin.attr._base.prepared import Prepared
from xfr_plugin.attr._base.regional import RegionalAnswer, RegionsFrom
from xfr_plugin.attr.amortised.model import (
    EvidenceModel,
    EvidenceSource,
    evidence_file,
    find_evidence,
    load_evidence,
)
from xfr_plugin.attr.amortised.network import region_features
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.intervention.effects import FaceEffects
from xfr_plugin.attr.intervention.level import Level, expected_of, region_shares
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap
from xfr_plugin.recognition.features import FaceFeatures, extract
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.swaps.regions import FaceRegions

__all__ = ["Amortised"]


@attribution_method(
    name="amortised",
    title="Leave one region out, amortised",
    paper="ours",
    year=2026,
    needs="evidence",
    cost="2 forward",
    relative_cost=2,
    caveat="a network trained for this recognizer predicts what leaving out each region would show, without leaving "
    "it out: where a face is unlike those that it was taught by, leave_one_out says it and this does not",
    batchable=True,
    compared=True,
)
class Amortised(RegionIntervention):
    """Regions argue for or against a match by what the score would lose without them, as predicted; Σ S = s − τ.

    `LeaveOneOut` changes the faces and asks the recognizer 100 times. What it finds of one face against any partner
    follows from what each region does to the face's embedding (`FaceEffects`, R×D). Here a small network, trained
    for the recognizer (`training.evidence`), predicts these effects from the recognizer's own feature maps, averaged
    over each region. Nothing about pairs is learned, so that a pair, a stored embedding and a gallery are one
    product each. Values become evidence as those of `LeaveOneOut` do.

    It was taught by what leaving out regions of training people's faces did to their embeddings, and by nothing else;
    a third of these faces had random shapes on them. Standard errors of its values are those of people who were held
    out: they say how far predictions are off, for such faces.

    This is ours; amortised explanation is after Jethani et al. (FastSHAP, ICLR 2022, arXiv 2107.07436) and Covert et
    al. (stochastic amortisation, NeurIPS 2024, arXiv 2401.15866).

    Args:
        forward_func: a `Recognizer`, or another module whose feature maps `network` was trained for.
        threshold: see `PairAttribution`.
        network: see `EvidenceSource`.
        regions: `found` on each face (`faces.outlines`), or of the `template`.
        level: what evidence sums to: s − τ (`threshold`), 0 (`score`), or Σφ (`none`).

    Raises:
        InputError: an unknown option, no module, or no evidence network for it.
        WeightsError: the network's file cannot be used.

    Example:
        >>> amortised = Amortised(recognizer)
        >>> maps, delta = amortised.attribute((probe, reference), return_convergence_delta=True)
        >>> maps[0].shape
        torch.Size([1, 3, 112, 112])
        >>> bool(delta.abs() < 1e-4)  # each map sums to s − τ
        True
    """

    shares_under = "leave_one_out"

    @classmethod
    def available_for(cls, recognizer: Recognizer) -> bool:
        """Whether an evidence network ships for a recognizer."""
        return evidence_file(recognizer) is not None

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        threshold: float | None = None,
        *,
        network: EvidenceSource = None,
        regions: RegionsFrom = "found",
        level: Level = "threshold",
    ) -> None:
        super().__init__(forward_func, threshold, regions=regions, level=level)
        if not isinstance(forward_func, nn.Module):
            raise InputError(
                "amortised evidence reads feature maps: pass a Recognizer or another torch module"
            )
        self.network = _opened(network, forward_func)

    @property
    def layers(self) -> tuple[str, ...]:
        """See `PairAttribution.layers`."""
        return self.network.layers

    def effects(self, images: Tensor, regions: Sequence[RegionMap] | None = None) -> list[FaceEffects]:
        """Predicted effects of the regions of faces N×C×H×W on their embeddings: for galleries, see `FaceEffects`."""
        pair = self._read((images,), (images.new_ones(1, self.network.card.embedding_dim),))  # of anybody
        own = self._players(pair.images, regions)
        features = self._extracted(pair, PERTURBATIONS_PER_EVAL)
        predicted = self.network.effects(region_features(features, own))
        return [
            FaceEffects(face.names, effects, unit.to(effects))
            for face, effects, unit in zip(own, predicted, features.embeddings, strict=True)
        ]

    @torch.no_grad()
    def _answers_of(
        self,
        pair: Pair,
        sides: int,
        limit: int = PERTURBATIONS_PER_EVAL,
        show_progress: bool = False,
        regions: Sequence[RegionMap] | None = None,
    ) -> tuple[list[RegionalAnswer], ...]:
        with self._shown(len(pair.images) // sides, show_progress) as bar:
            features = self._extracted(pair, limit)
            bar.update(len(pair.images) // sides)
        return self._predicted(pair, sides, features, regions)

    def _answers_prepared(
        self, pair: Pair, sides: Sequence[Prepared], regions: Sequence[RegionMap] | None
    ) -> tuple[list[RegionalAnswer], ...]:
        features = _known(sides, self.layers)
        if features is None:
            return self._answers_of(pair, len(sides), regions=regions)
        return self._predicted(pair, len(sides), features, regions)

    @torch.no_grad()
    def _predicted(
        self, pair: Pair, sides: int, features: FaceFeatures, regions: Sequence[RegionMap] | None
    ) -> tuple[list[RegionalAnswer], ...]:
        """Answers of each side, from what is known of all faces."""
        own = self._players(pair.images, regions)
        effects = self.network.effects(region_features(features, own))
        units = features.embeddings.double()
        partners = pair.partners_of(units)
        scores = (units * partners).sum(dim=1).tolist()
        values = torch.einsum("nrd,nd->nr", effects, partners.to(effects))
        answers = [self._answer(*face) for face in zip(own, values[:, None], scores, strict=True)]
        count = len(answers) // sides
        return tuple(answers[start : start + count] for start in range(0, len(answers), count))

    def _answer(self, regions: FaceRegions, values: Tensor, score: float) -> RegionalAnswer:
        """Evidence from values 1×R; its errors follow from those of the values, which do not depend on each other."""
        answer = super()._answer(regions, values, score)
        known = [self.network.card.errors.get(name, torch.nan) for name in regions.names]
        errors = torch.tensor(known, dtype=torch.float64) * torch.from_numpy(regions.present)
        if self.level != "none":
            expected = expected_of(region_shares(self.forward_func, self.shares_under), regions)
            variances = (errors / expected.gain).square()
            shares = expected.shares
            errors = (variances * (1 - 2 * shares) + shares.square() * variances.sum()).clamp_min(0).sqrt()
        return RegionalAnswer(answer.regions, answer.evidence, errors.to(values), answer.margin, score)

    def _extracted(self, pair: Pair, limit: int) -> FaceFeatures:
        """What the recognizer computes of all faces, so many at a time."""
        count, found = len(pair.images), []
        for some in torch.arange(count, device=pair.images.device).split(limit):
            arguments = _picked(pair.forward_args, some, count)
            found.append(extract(self.forward_func, pair.images[some], self.layers, *arguments))
        maps = zip(*(part.maps for part in found), strict=True)
        return FaceFeatures(
            tuple(torch.cat(parts) for parts in maps), torch.cat([part.embeddings for part in found])
        )


def _known(sides: Sequence[Prepared], layers: Sequence[str]) -> FaceFeatures | None:
    """The features of all faces, if they are known."""
    units = [side.units for side in sides if side.units is not None]
    if len(units) < len(sides) or any(name not in side.maps for side in sides for name in layers):
        return None
    maps = tuple(torch.cat([side.maps[name] for side in sides]) for name in layers)
    return FaceFeatures(maps, torch.cat(units))


def _opened(source: EvidenceSource, function: nn.Module) -> EvidenceModel:
    if isinstance(source, EvidenceModel):
        return source
    recognizer = function if isinstance(function, Recognizer) else None
    if source is not None:
        return load_evidence(source, recognizer, "cpu" if recognizer is None else recognizer.device)
    if recognizer is None:
        raise InputError("pass network=…: only for a Recognizer is one looked up")
    return find_evidence(recognizer)
