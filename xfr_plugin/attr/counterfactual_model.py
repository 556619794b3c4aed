"""From readings of interventions to the evidence of each region, by what known evidence taught.

Two stories are told of every pair. *Dissimilar*: the faces are one person's but for one region; *similar*: two
people's but for one region. For each story, plantings among training people (one region exchanged, or none) taught a
multinomial logistic regression with few weights: nearly the same for all regions, on readings standardised by region,
with an intercept for each region and one for "none of them". Its posterior p_r, times the mean effect e_r of such a
planting on the score, is what the score is expected to owe to the region:

    b_r = p_r(similar) · e_r(similar) − p_r(dissimilar) · e_r(dissimilar).
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import Tensor

from xfr_plugin.attr._interventions import ALONE_READINGS, PAIR_READINGS, REGIONS
from xfr_plugin.errors import WeightsError

__all__ = [
    "READINGS",
    "CounterfactualModel",
    "Form",
    "Story",
    "StoryModel",
    "parse_model",
    "shipped_model",
]

Form: TypeAlias = Literal["pair", "alone"]
"""Which readings there are: of both faces, or of a face against an embedding."""

Story: TypeAlias = Literal["dissimilar", "similar"]

READINGS: dict[Form, tuple[str, ...]] = {"pair": PAIR_READINGS, "alone": ALONE_READINGS}


class StoryModel(BaseModel):
    """One story of one form; R regions, F readings.

    Attributes:
        mean: R×F, of regions that were not planted.
        spread: R×F, their standard deviation.
        weights: R×F, of standardised readings.
        bias: R, of the regions.
        none: of the answer that no region was planted.
        effect: R, ≥ 0, mean change of the score by a planting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    none: float
    effect: tuple[float, ...]

    def expected(self, readings: Tensor, present: Tensor) -> Tensor:
        """Expected effect …×R from readings …×R×F, of the regions that are present (R)."""
        mean, spread, weights, bias, effect = (
            readings.new_tensor(value)
            for value in (self.mean, self.spread, self.weights, self.bias, self.effect)
        )
        logits = ((readings - mean) / spread * weights).sum(dim=-1) + bias
        logits = logits.masked_fill(~present, -torch.inf)
        none = torch.full_like(logits[..., :1], self.none)
        posterior = torch.cat((logits, none), dim=-1).softmax(dim=-1)[..., :-1]
        return posterior * effect


class CounterfactualModel(BaseModel):
    """Both stories, for both forms.

    Attributes:
        format: of the document.
        regions: names, in order.
        stories: by form and story.
        training: what it was fitted on, in words and numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["xfr-counterfactual/1"] = "xfr-counterfactual/1"
    regions: tuple[str, ...] = REGIONS
    stories: dict[Form, dict[Story, StoryModel]]
    training: dict[str, str | int | float] = {}

    @model_validator(mode="after")
    def _check_shapes(self) -> CounterfactualModel:
        if self.regions != REGIONS:
            raise ValueError(f"regions must be {', '.join(REGIONS)}")
        for form, readings in READINGS.items():
            for story in ("dissimilar", "similar"):
                model = self.stories.get(form, {}).get(story)
                if model is None:
                    raise ValueError(f"no {story} story of form {form}")
                rows = {len(row) for row in (*model.mean, *model.spread, *model.weights)}
                columns = {
                    len(x) for x in (model.mean, model.spread, model.weights, model.bias, model.effect)
                }
                if rows != {len(readings)} or columns != {len(REGIONS)}:
                    raise ValueError(f"the {story} story of form {form} has another shape")
        return self

    def evidence(self, form: Form, readings: Tensor, present: Tensor) -> Tensor:
        """What the score is expected to owe to each region beyond what is usual, …×R, from readings …×R×F."""
        stories = self.stories[form]
        return stories["similar"].expected(readings, present) - stories["dissimilar"].expected(
            readings, present
        )


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
    """The model that comes with the package; see docs/models/counterfactual.md."""
    source = resources.files("xfr_plugin") / "models" / "counterfactual.json"
    return parse_model(source.read_text(encoding="utf-8"), "counterfactual.json")
