"""What `bedside site privacy` shows: the ledger's charges by task, and together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bedside.core.policy.site_policy import SitePolicy
from bedside.core.privacy.accounting import Spending
from bedside.core.privacy.gaussian import ONE_E6
from bedside.service.output import Table
from bedside.trustee.budget import checked_entries
from bedside.trustee.ledger import Charge, ledger_head
from bedside.trustee.store import TrusteeStore

ALL_TASKS: Final = "all"
_COLUMNS: Final = ("task", "sums", "without noise", "multiplier", "epsilon")


@dataclass(frozen=True, slots=True)
class TaskSpending:
    """One task, or all of them.

    Attributes:
        task: its id, or `all`.
        sums: charged, whether they were opened or not.
        without_noise: how many of them had none.
        noise_multipliers: each that was used, in order; 0 for none.
        epsilon: the bound at the policy's delta; None when it is infinite.
    """

    task: str
    sums: int
    without_noise: int
    noise_multipliers: list[float]
    epsilon: float | None


@dataclass(frozen=True, slots=True)
class SpendingReport:
    """The ledger of one site.

    Attributes:
        site: whose.
        delta: of the policy.
        max_epsilon: of the policy; 0 for no bound.
        noise_multiplier: of the policy.
        ledger_head: digest of the last entry, which the trustee's signed words carry.
        restored: the store was once older than the trustee's own chain: charges may be missing.
        total: all tasks together.
        tasks: each alone.
    """

    site: str
    delta: float
    max_epsilon: float
    noise_multiplier: float
    ledger_head: str
    restored: bool
    total: TaskSpending
    tasks: list[TaskSpending]

    def table(self) -> Table:
        """How people see it."""
        bound = f"at most {self.max_epsilon:g} by the policy" if self.max_epsilon else "no bound in the policy"
        warning = "; the store was restored, charges may be missing" if self.restored else ""
        title = f"site {self.site}: epsilon at a delta of {self.delta:g}, {bound}{warning}"
        rows = [_row(one) for one in (*self.tasks, self.total)] if self.tasks else []
        return Table(_COLUMNS, rows, title=title, right=frozenset(_COLUMNS[1:]), empty="no sum was voted for yet")


def read_spending(store: TrusteeStore, policy: SitePolicy, site: str) -> SpendingReport:
    """Add the ledger up.

    Raises:
        StoreError: `ledger-broken`.
    """
    charges = checked_entries(store)
    tasks = sorted({charge.task for charge in charges})
    return SpendingReport(
        site=site,
        delta=policy.delta,
        max_epsilon=policy.max_epsilon,
        noise_multiplier=policy.noise_multiplier,
        ledger_head=ledger_head(store.database.connection).hex(),
        restored=store.has_forgotten(),
        total=_spent(ALL_TASKS, charges, policy.delta),
        tasks=[_spent(task, (charge for charge in charges if charge.task == task), policy.delta) for task in tasks],
    )


def _spent(task: str, charges: Iterable[Charge], delta: float) -> TaskSpending:
    multipliers_e6 = [charge.noise_multiplier_e6 for charge in charges]
    spending = Spending.of(multipliers_e6)
    epsilon = spending.epsilon(delta)
    used = sorted({multiplier_e6 / ONE_E6 for multiplier_e6 in multipliers_e6})
    known = None if math.isinf(epsilon) else epsilon
    return TaskSpending(task, spending.rounds, spending.unprotected, used, known)


def _row(one: TaskSpending) -> list[str]:
    used = " ".join(f"{multiplier:g}" for multiplier in one.noise_multipliers)
    epsilon = "no bound" if one.epsilon is None else f"{one.epsilon:.3f}"
    return [one.task, str(one.sums), str(one.without_noise), used, epsilon]
