"""From readings of interventions to the evidence of each region, by what known evidence taught.

There are two hypotheses about every pair. *Dissimilar*: the faces are one person's but for one region; *similar*: two
people's but for one region. For each, plantings among training people (one region exchanged, or none) taught a
multinomial logistic regression with few weights: nearly the same for all regions, on readings standardised by region,
with an intercept for each region and one for "none of them".

With its posterior p_r, the same sharpened, h_r ~ p_r⁴ (both over the regions and "none"), the mean effect e of such a
planting on the score, and the share A_r of the face that the region covers, R regions:

    b_r = f_r(similar) e(similar) − f_r(dissimilar) e(dissimilar),    f_r = p_r / 3 + 2 h_r R A_r / 3.

The first part orders pixels by how likely each is to lie in the region that decides, which favours small regions. The
second lies densely on the region that stands out, whatever its size, and is nothing where none does.

What is left of the margin, t = s − τ − Σ b, is not owed to one region. As far as none stands out (q, the square
of the larger of the two posteriors of "none"), it is divided by what was measured, m: in proportion to the loss of
the score without the region, or, where t < 0, to the gain by the partner's (of a face against an embedding: by
nobody's). The rest of it lies evenly:

    c_r = b_r + t ((1 − q) A_r + q m_r / Σ m),    Σ c = s − τ.

The rule was chosen on people that take part neither in fitting nor in results.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

import torch
from pydantic import AliasChoices, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from xfr_plugin.attr.counterfactual.readings import ALONE_READINGS, PAIR_READINGS
from xfr_plugin.base.documents import Document
from xfr_plugin.errors import WeightsError
from xfr_plugin.swaps.regions import REGIONS

__all__ = [
    "READINGS",
    "CounterfactualModel",
    "Form",
    "Hypothesis",
    "HypothesisModel",
    "parse_model",
    "shipped_model",
]

Form: TypeAlias = Literal["pair", "alone"]
"""Which readings there are: of both faces, or of a face against an embedding."""

Hypothesis: TypeAlias = Literal["dissimilar", "similar"]

READINGS: dict[Form, tuple[str, ...]] = {"pair": PAIR_READINGS, "alone": ALONE_READINGS}

_SIGNS: dict[Hypothesis, float] = {"similar": 1.0, "dissimilar": -1.0}
_SHARPNESS = 4.0
_STANDING_OUT = 2 / 3
_EVEN = 1e-3  # where no intervention moves the score, evenly


class HypothesisModel(Document):
    """One hypothesis of one form; R regions, F readings.

    Attributes:
        mean: R×F, of regions that were not planted.
        spread: R×F, their standard deviation.
        weights: R×F, of standardised readings.
        bias: R, of the regions.
        none: of the answer that no region was planted.
        effect: ≥ 0, change of the score by a planting, mean of the regions' means.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    mean: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    none: float
    effect: float

    def logits(self, readings: Tensor, present: Tensor) -> Tensor:
        """Of each region, −∞ where it is not present (R), and of none of them, …×(R+1), from readings …×R×F."""
        mean, spread, weights, bias = (
            readings.new_tensor(value) for value in (self.mean, self.spread, self.weights, self.bias)
        )
        logits = ((readings - mean) / spread * weights).sum(dim=-1) + bias
        logits = logits.masked_fill(~present, -torch.inf)
        none = torch.full_like(logits[..., :1], self.none)
        return torch.cat((logits, none), dim=-1)


class CounterfactualModel(Document):
    """Both hypotheses, for both forms.

    Attributes:
        format: of the document.
        regions: names, in order.
        hypotheses: by form and name.
        training: what it was fitted on, in words and numbers.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    format: Literal["xfr-counterfactual/2"] = "xfr-counterfactual/2"
    regions: tuple[str, ...] = REGIONS
    hypotheses: dict[Form, dict[Hypothesis, HypothesisModel]] = Field(
        validation_alias=AliasChoices("hypotheses", "stories")  # which older files call them
    )
    training: dict[str, str | int | float] = Field(default={})

    @model_validator(mode="after")
    def _check_shapes(self) -> CounterfactualModel:
        if self.regions != REGIONS:
            raise ValueError(f"regions must be {', '.join(REGIONS)}")
        for form, readings in READINGS.items():
            for hypothesis in _SIGNS:
                model = self.hypotheses.get(form, {}).get(hypothesis)
                if model is None:
                    raise ValueError(f"no hypothesis {hypothesis!r} of form {form}")
                rows = {len(row) for row in (*model.mean, *model.spread, *model.weights)}
                columns = {len(x) for x in (model.mean, model.spread, model.weights, model.bias)}
                if rows != {len(readings)} or columns != {len(REGIONS)}:
                    raise ValueError(f"the hypothesis {hypothesis!r} of form {form} has another shape")
        return self

    def evidence(self, form: Form, readings: Tensor, areas: Tensor, margin: float) -> Tensor:
        """What each region contributes to the margin.

        Args:
            form: of the readings.
            readings: …×R×F.
            areas: pixels of each region, R; 0 of one that is absent.
            margin: s − τ.

        Returns:
            c, …×R, which sums to the margin.
        """
        shares, present = areas / areas.sum(), areas > 0
        beyond, none = torch.zeros_like(readings[..., 0]), torch.zeros_like(readings[..., :1, 0])
        for hypothesis, sign in _SIGNS.items():
            model = self.hypotheses[form][hypothesis]
            logits = model.logits(readings, present)
            likely, standing_out = logits.softmax(dim=-1), (_SHARPNESS * logits).softmax(dim=-1)
            dense = standing_out[..., :-1] * shares * present.sum()
            found = (1 - _STANDING_OUT) * likely[..., :-1] + _STANDING_OUT * dense
            beyond = beyond + sign * model.effect * found
            none = torch.maximum(none, likely[..., -1:])
        rest = margin - beyond.sum(dim=-1, keepdim=True)
        measured = _measured(form, readings, rest, shares)
        return beyond + rest * ((1 - none**2) * shares + none**2 * measured)


def _measured(form: Form, readings: Tensor, rest: Tensor, shares: Tensor) -> Tensor:
    """How what is left is divided by what single interventions did, …×R, summing to 1."""
    names = READINGS[form]
    loss = -readings[..., names.index("removal")]
    gain = readings[..., names.index("exchange")] if "exchange" in names else -loss
    moved = torch.where(rest > 0, loss, gain).clamp_min(0) * (shares > 0) + _EVEN * shares
    return moved / moved.sum(dim=-1, keepdim=True)


def parse_model(text: str, name: str) -> CounterfactualModel:
    """Read a model from JSON.

    Raises:
        WeightsError: it is no such model.
    """
    try:
        return CounterfactualModel.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise WeightsError(f"{name} is no model of counterfactual evidence: {error}") from error


@cache
def shipped_model() -> CounterfactualModel:
    """The model that comes with the package."""
    source = resources.files("xfr_plugin") / "models" / "counterfactual.json"
    return parse_model(source.read_text(encoding="utf-8"), "counterfactual.json")
