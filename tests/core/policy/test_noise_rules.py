"""What a site may write about noise."""

from __future__ import annotations

import math

import pytest

from bedside.core.policy import SitePolicy


@pytest.mark.parametrize(
    "rules",
    [
        {"noise_multiplier": -0.1},
        {"noise_multiplier": 1_000.1},
        {"noise_multiplier": math.nan},
        {"max_epsilon": -1.0},
        {"max_epsilon": math.inf},
        {"max_epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"delta": math.nan},
    ],
)
def test_a_policy_that_makes_no_sense_of_noise_is_refused(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(rules))):
        SitePolicy(**rules)


def test_by_default_there_is_no_noise_and_no_bound() -> None:
    policy = SitePolicy()
    assert (policy.noise_multiplier_e6, policy.max_epsilon, policy.delta) == (0, 0, 1e-5)
    assert SitePolicy(noise_multiplier=0.3).noise_multiplier_e6 == 300_000
