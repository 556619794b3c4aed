"""Leave one region out: the plainest intervention, and the default explanation."""

from __future__ import annotations

from xfr_plugin.attr._base.method import attribution_method
from xfr_plugin.attr.intervention.attribution import RegionIntervention
from xfr_plugin.attr.intervention.games import Game, leave_one_out
from xfr_plugin.attr.intervention.players import GROUPINGS
from xfr_plugin.swaps.regions import FINE_REGIONS

__all__ = ["LeaveOneOut"]


@attribution_method(
    name="leave_one_out",
    title="Leave one region out",
    paper="ours, after Zeiler and Fergus, arXiv 1311.2901",
    year=2026,
    needs="scores",
    cost="about 100 forward",
    relative_cost=55,
    batchable=True,
    caveat="it tells what the score loses when a region is replaced by those of faces of nobody; regions that can "
    "stand in for each other lose little one by one",
    preferred=1,
    compared=True,
    service_options={"donors": 2},
    trial_options={"donors": 1},
)
class LeaveOneOut(RegionIntervention):
    """Regions argue for or against a match by what the score loses without them; Σ S = s − τ.

    Every region r of a face, as found on that face, is replaced by those of K faces of nobody, which are moved
    onto it and take the face's colour: φ_r = s − ⟨s without r⟩. Evidence starts from what
    a genuine pair that scores τ is expected to have, τ·w_r: it is φ_r/γ − τ·w_r, and the gap s − Σφ/γ is spread in
    the same shares w_r. These and the gain γ were measured on genuine pairs of people of whom nothing was trained
    (`measure_shares`). A black box is enough: nothing is asked of the recognizer but embeddings of changed faces, or
    scores (`from_scores`).

    2 + K·(R_A + R_B) forward passes a pair, of the 14 named regions R_A and R_B that the faces show.

    To remove and look at the score is as old as occlusion (Zeiler and Fergus, 2014); here changed faces stay faces,
    the regions are what people mean, nothing was taught, and what is left is the sum rule.

    Args:
        forward_func, threshold: see `PairAttribution`.
        players: what is removed as a whole: the named `regions`, eight `coarse` ones, or cells without a meaning.
        regions: `found` on each face (`faces.outlines`), or of the `template`.
        operator: what a region is replaced by: of the `population`, of the `mean` face, its own `blur`red, the
            `partner`'s, or `black`.
        donors: K, composite faces of nobody that stand for the population.
        population: other faces instead, N×3×H×W in [0, 1], at the size of the inputs.
        level: what evidence sums to: s − τ (`threshold`), 0 (`score`), or Σφ (`none`).

    Raises:
        InputError: an unknown option.

    Example:
        >>> leave_one_out = LeaveOneOut(recognizer, threshold=0.3)
        >>> probe_map, reference_map = leave_one_out.attribute((probe, reference))
        >>> margin = float((recognizer(probe) * recognizer(reference)).sum() - 0.3)
        >>> abs(float(probe_map.sum()) - margin) < 1e-4
        True
    """

    shares_under = "leave_one_out"

    def _passes(self, faces: int) -> int:
        donors = self.donors if self.population is None else len(self.population)
        return faces * donors * len(GROUPINGS.get(self.players, FINE_REGIONS))

    def _game(self, players: int, donor: int) -> Game:
        return leave_one_out(players)
