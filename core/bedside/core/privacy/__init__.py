"""Differential privacy: the noise that a trustee adds to its answer, and what the rounds of a site cost together."""

from bedside.core.privacy.accounting import Spending, zcdp_epsilon
from bedside.core.privacy.gaussian import ONE_E6
from bedside.core.privacy.mechanism import check_ring, multiplier_e6, noise_tails, segment_sigmas_e6
from bedside.core.privacy.noise import add_noise, noise_key

__all__ = [
    "ONE_E6",
    "Spending",
    "add_noise",
    "check_ring",
    "multiplier_e6",
    "noise_key",
    "noise_tails",
    "segment_sigmas_e6",
    "zcdp_epsilon",
]
