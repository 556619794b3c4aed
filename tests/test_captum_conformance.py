"""Every registered method through Captum's own configurations and tools; see captum_checks.py."""

from __future__ import annotations

import pytest
from captum.testing.attr.helpers.test_config import config as captum_configs
from captum_checks import CHECKS, NotApplicable, pair_configs, subjects

SUBJECTS = subjects()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_conformance(name: str, check: str) -> None:
    try:
        CHECKS[check](SUBJECTS[name])
    except NotApplicable as reason:
        pytest.skip(str(reason))


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
