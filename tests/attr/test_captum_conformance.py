"""Every registered method through Captum's own configurations and tools; see captum_checks.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.testing.attr.helpers.test_config import config as captum_configs
from helpers import captum_channel_checks
from helpers.captum_checks import CHECKS, Subject, outcome, subjects
from helpers.captum_toys import NotApplicable, pair_configs
from torch import Tensor

from xfr_plugin.attr import Xssab
from xfr_plugin.attr._base.pair import Pair

SUBJECTS = subjects()
CHANNEL_SUBJECTS = captum_channel_checks.subjects()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_conformance(name: str, check: str) -> None:
    try:
        CHECKS[check](SUBJECTS[name])
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("check", captum_channel_checks.CHANNEL_CHECKS)
@pytest.mark.parametrize("name", CHANNEL_SUBJECTS)
def test_conformance_of_channel_classes(name: str, check: str) -> None:
    captum_channel_checks.CHANNEL_CHECKS[check](CHANNEL_SUBJECTS[name])


class _FirstPartnerForAll(Xssab):
    def _attribute_pair(self, pair: Pair) -> Tensor:
        units = self._embed(pair)(pair.images).detach()
        return super()._attribute_pair(replace(pair, partners=pair.partners_of(units)[:1]))


class _LeavesHooks(Xssab):
    def _attribute_pair(self, pair: Pair) -> Tensor:
        self.forward_func.conv1.register_forward_hook(lambda *_: None)
        return super()._attribute_pair(pair)


class _InSinglePrecision(Xssab):
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return tuple(side.float() for side in super().attribute(*args, **kwargs))


class _DifferentEachTime(Xssab):
    def _attribute_pair(self, pair: Pair) -> Tensor:
        return super()._attribute_pair(pair) * (1 + torch.rand_like(pair.images))


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (_FirstPartnerForAll, "own partner each"),
        (_LeavesHooks, "hooks removed"),
        (_InSinglePrecision, "float64 and float32"),
        (_DifferentEachTime, "sensitivity_max"),
        (_DifferentEachTime, "Captum's NoiseTunnel configurations"),
    ],
)
def test_the_checks_catch_what_they_are_for(cls: type[Xssab], check: str) -> None:
    passed, why = outcome(Subject("broken", cls, "gradient"), CHECKS[check])
    assert passed is False, why


def test_every_configuration_of_captum_is_run_or_declined_with_a_reason() -> None:
    """A configuration that a later Captum adds must not be passed over silently."""
    configs, reasons = pair_configs()
    assert {config.name for config in configs} | reasons.keys() == {
        config["name"] for config in captum_configs
    }
    assert sum("layer" not in config for config in captum_configs) - len(configs) == sum(
        "layer" not in config and config["name"] in reasons for config in captum_configs
    )
    assert len(configs) >= 18
    assert all(reasons.values())
