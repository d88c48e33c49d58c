"""What this site may still spend: the ledger's charges, the rounds that are open, and the policy's bound (rule T5).

The bound is the trustee's own arithmetic (`core.privacy.accounting`) over its own ledger; no library and nobody's word
enters it. A round is judged when it is opened, together with the other open rounds, because each may be charged; and
again when it is charged, because the policy may have changed.
"""

from __future__ import annotations

import math

from bedside.core.errors import RefusedError, StoreError
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.privacy.accounting import Spending
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.trustee import TrusteeState
from bedside.core.signing.envelope import parse_strict
from bedside.proto.v1 import round_pb2
from bedside.trustee.ledger import Charge, check_ledger, entries
from bedside.trustee.store import RoundKey, TrusteeStore


def affordable_noise(store: TrusteeStore, plan: CheckedPlan, policy: SitePolicy, trustees: int) -> int:
    """The noise multiplier that an opening promises: the larger of policy and plan, if ring and budget hold it.

    In millionths. The other trustees add at least what the plan asks; what they promise beyond is judged at the vote.

    Raises:
        ProtocolError: `ring-overflow` or `noise-too-large`.
        RefusedError, StoreError: as `check_budget`.
    """
    multiplier_e6 = max(policy.noise_multiplier_e6, plan.noise_multiplier_e6)
    plan.check_ring([multiplier_e6, *[plan.noise_multiplier_e6] * (trustees - 1)])
    check_budget(store, policy, multiplier_e6)
    return multiplier_e6


def check_budget(
    store: TrusteeStore, policy: SitePolicy, multiplier_e6: int, *, besides: RoundKey | None = None
) -> None:
    """Refuse a charge that would pass the policy's bound.

    Args:
        store: with the ledger and the open rounds.
        policy: as it stands.
        multiplier_e6: of the sum that would be opened.
        besides: the open round that it belongs to, which is not to be counted twice; None before it is open.

    Raises:
        RefusedError: `privacy-budget`.
        StoreError: `ledger-broken`.
    """
    if not policy.max_epsilon:
        return
    if store.has_forgotten():
        raise _over(
            policy, "the trustee's store was restored from an older copy, and what it forgot may have been spent"
        )
    charged = [charge.noise_multiplier_e6 for charge in checked_entries(store)]
    after = Spending.of([*charged, *_reserved(store, besides), multiplier_e6])
    epsilon = after.epsilon(policy.delta)
    if epsilon <= policy.max_epsilon:
        return
    if not multiplier_e6:
        why = "a sum without noise costs infinitely much"
    elif math.isinf(epsilon):
        why = f"{after.unprotected} earlier sums had no noise and cost infinitely much"
    else:
        why = f"it would bring epsilon to {epsilon:.3g} at a delta of {policy.delta:g}"
    raise _over(policy, why)


def checked_entries(store: TrusteeStore) -> list[Charge]:
    """The ledger's charges, oldest first, once all its links hold and its end is that of the trustee's last word.

    Raises:
        StoreError: `ledger-broken`.
    """
    listed, said = store.database.run_tx("read ledger", lambda tx: (entries(tx), store.last_link()))
    head = check_ledger(listed)
    if said is not None and said.ledger_head != head:
        raise StoreError(
            "ledger-broken",
            "the privacy ledger does not end where this trustee's last signed word says it does",
            remedy="restore nothing over it; keep the file for an audit, and let the site decide what counts as spent",
        )
    return [charge for charge, _ in listed]


def _over(policy: SitePolicy, why: str) -> RefusedError:
    return RefusedError(
        "privacy-budget",
        f"the site's policy allows an epsilon of {policy.max_epsilon:g} for all its sums: {why}",
        remedy="raise noise_multiplier or max_epsilon in the site's policy, or stop here",
    )


def _reserved(store: TrusteeStore, besides: RoundKey | None) -> list[int]:
    """Multipliers of the rounds that were opened and are not charged yet."""
    reserved = []
    for stored in store.rounds(TrusteeState.OPEN):
        opening = store.word(stored.key, "opening")
        if stored.key != besides and opening is not None:
            reserved.append(parse_strict(round_pb2.Opening, opening.signed.payload).noise_multiplier_e6)
    return reserved
