"""Epsilon of composed rounds: the bound that trustees compute, and beside it Google's dp-accounting where installed.

dp-accounting composes privacy loss distributions of the continuous Gaussian of the same multiplier: tighter, and close
to the discrete one that is used here, but not a bound for it. The zCDP figure is a bound for the discrete one itself.

dp-accounting is the extra `privacy`. It pins attrs below 24, and a resolver that gives way to a neighbour's newer attrs
silently takes an old release, hence the check of its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from bedside.core.errors import ConfigError
from bedside.core.privacy import ONE_E6
from bedside.service.installation import how_to_install

EXTRA: Final = how_to_install("bedside[privacy]")
OLDEST: Final = (0, 6)
_PACKAGE: Final = "dp-accounting"


def installed_accountant() -> str | None:
    """The version of dp-accounting; None where it is not installed.

    Raises:
        ConfigError: `old-accountant`, for a version older than 0.6.
    """
    try:
        found = version(_PACKAGE)
    except PackageNotFoundError:
        return None
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise ConfigError(
            "old-accountant",
            f"dp-accounting {found} is installed; 0.6 or newer is needed",
            remedy=f"{EXTRA} into an environment without a package that wants attrs 24 or newer",
        )
    return found


def pld_epsilon(rounds: Mapping[int, int], delta: float) -> float:
    """Epsilon at `delta` by privacy loss distributions.

    Args:
        rounds: how many rounds had each noise multiplier (millionths).
        delta: within 0 and 1.

    Returns:
        Infinity as soon as one round had no noise.
    """
    if any(count and not multiplier_e6 for multiplier_e6, count in rounds.items()):
        return float("inf")
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    for multiplier_e6, count in sorted(rounds.items()):
        accountant.compose(SelfComposedDpEvent(GaussianDpEvent(multiplier_e6 / ONE_E6), count))
    return float(accountant.get_epsilon(delta))
