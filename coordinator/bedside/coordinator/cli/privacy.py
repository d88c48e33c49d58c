"""`bedside privacy`: what the rounds have cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from bedside.coordinator.cli.link import CALL_TIMEOUT_S, ask, socket_option
from bedside.proto.v1.operator_pb2 import PrivacyCharge, PrivacyQuery, PrivacyReport
from bedside.service.options import FiniteRange
from bedside.service.output import Table, emit, json_option

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

ALL_TASKS = "all"
_COLUMNS = ("task", "site", "rounds", "multiplier", "epsilon (zCDP)", "epsilon (PLD)")


@click.group()
def privacy() -> None:
    """See what the rounds have cost in privacy."""


@privacy.command()
@click.option("--task", default="", help="Only this task.")
@click.option("--delta", type=FiniteRange(0, 1, min_open=True, max_open=True), default=1e-5, show_default=True)
@socket_option
@json_option
def show(task: str, delta: float, socket: str, as_json: bool) -> None:
    """Show rounds, noise multipliers and epsilon at DELTA, per task and site.

    The unit is one device's contributions: present, or saying nothing. The zCDP figure is the bound that the trustees
    compute too; the PLD figure is tighter and comes from dp-accounting, in the extra `privacy`. Both count what the
    coordinator has seen voted for; a site's own ledger (`bedside site privacy`) is the authority.
    """
    # numpy comes with these; the other commands of this part shall not wait for it.
    from bedside.coordinator.privacy.accounting import EXTRA, installed_accountant

    accountant = installed_accountant()

    async def look(stub: OperatorServiceAsyncStub) -> PrivacyReport:
        return await stub.PrivacySpent(PrivacyQuery(task=task), timeout=CALL_TIMEOUT_S)

    spent = [_spent(charges, delta, accountant) for charges in _groups(ask(socket, look).charges)]
    data = {"delta": delta, "accountant": f"dp-accounting {accountant}" if accountant else None, "spent": spent}
    if not accountant:
        data["remedy"] = EXTRA
    title = f"epsilon at a delta of {delta:g}"
    if not accountant:
        title += f"; for the PLD figure: {EXTRA}"
    table = Table(
        _COLUMNS, [_row(one) for one in spent], title=title, right=frozenset(_COLUMNS[2:]), empty="no sum yet"
    )
    emit(data, as_json, table=table)


def _groups(charges: Iterable[PrivacyCharge]) -> list[list[PrivacyCharge]]:
    """By task and site, and after them each site over all its tasks."""
    listed = list(charges)
    by_task: dict[tuple[str, str], list[PrivacyCharge]] = {}
    by_site: dict[str, list[PrivacyCharge]] = {}
    for charge in listed:
        by_task.setdefault((charge.task, charge.site), []).append(charge)
        by_site.setdefault(charge.site, []).append(charge)
    several = [group for _, group in sorted(by_site.items()) if len({charge.task for charge in group}) > 1]
    return [*by_task.values(), *several]


def _spent(charges: Sequence[PrivacyCharge], delta: float, accountant: str | None) -> dict[str, object]:
    from bedside.coordinator.privacy.accounting import pld_epsilon
    from bedside.core.privacy import ONE_E6, Spending

    rounds: Counter[int] = Counter()
    for charge in charges:
        rounds[charge.noise_multiplier_e6] += charge.rounds
    spending = Spending.of(rounds.elements())
    tasks = {charge.task for charge in charges}
    return {
        "task": tasks.pop() if len(tasks) == 1 else ALL_TASKS,
        "site": charges[0].site,
        "rounds": spending.rounds,
        "rounds_without_noise": spending.unprotected,
        "noise_multipliers": sorted(multiplier_e6 / ONE_E6 for multiplier_e6 in rounds),
        "zcdp_epsilon": _finite(spending.epsilon(delta)),
        "pld_epsilon": _finite(pld_epsilon(rounds, delta)) if accountant else None,
    }


def _finite(epsilon: float) -> float | None:
    """JSON has no infinity: null, beside `rounds_without_noise` that says why."""
    return None if math.isinf(epsilon) else epsilon


def _row(one: dict[str, object]) -> list[str]:
    multipliers = one["noise_multipliers"]
    told = " ".join(f"{value:g}" for value in multipliers) if isinstance(multipliers, list) else ""
    none = "no bound" if one["rounds_without_noise"] else "-"
    figures = [one["zcdp_epsilon"], one["pld_epsilon"]]
    cells = [f"{figure:.3f}" if isinstance(figure, float) else none for figure in figures]
    return [str(one["task"]), str(one["site"]), str(one["rounds"]), told, *cells]
