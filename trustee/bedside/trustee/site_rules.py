"""The site's policy in force: what this trustee opens, and which sets it votes for, in view of what it did before.

The rules are pure and stand in `core.policy`; here they meet the policy file, the clock and the store's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from bedside.core.errors import RefusedError, TrustError
from bedside.core.policy.case import noise_covers
from bedside.core.policy.history import DAY_S, inputs_of, judge_history
from bedside.core.policy.judge import judge_plan
from bedside.core.policy.lineage import open_previous
from bedside.core.policy.sets import (
    GUARDED_ANSWERS,
    EarlierSet,
    Members,
    judge_difference,
    judge_set_members,
    members_by_site,
)
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.policy.verdict import Verdict
from bedside.core.securesum.messages import CheckedOpening
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.trustee import CheckedSet
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.plan_pb2 import PURPOSE_TRAIN
from bedside.proto.v1.round_pb2 import COHORT_OUTCOME_OPENED
from bedside.proto.v1.trustee_pb2 import OpenRequest
from bedside.service.platform import local_minute
from bedside.trustee.past import DEVICE_NAME_BYTES, opened_plan, past_rounds, sets_of_inputs, sets_of_task
from bedside.trustee.policy_file import LoadedPolicy, PolicyFile
from bedside.trustee.store import TrusteeStore


class SiteRules:
    """Judges for one trustee. Reads the policy file anew for every judgement."""

    def __init__(self, policy: PolicyFile, store: TrusteeStore, site: str) -> None:
        self._policy = policy
        self._connection = store.database.connection
        self._site = site

    @property
    def policy(self) -> SitePolicy:
        """As the file stands now."""
        return self._policy.current().policy

    def judge_opening(self, plan: CheckedPlan, request: OpenRequest, now_s: int) -> LoadedPolicy:
        """Step 2: whether this plan may be opened; returns the policy by which it may.

        Raises:
            RefusedError: the code of the rule that says no.
            TrustError: `result-fork`: the result before it is not that of the round that this trustee saw.
        """
        loaded = self._policy.current()
        previous = request.previous_result if request.HasField("previous_result") else None
        verdict = judge_plan(
            plan,
            loaded.policy,
            request.manifest,
            own_site=self._site,
            previous=previous,
            now_s=now_s,
            local_minute=local_minute(now_s),
        )
        _enforce(verdict)
        self._check_previous(plan, previous)
        past = past_rounds(self._connection, now_s - DAY_S, plan.plan.checkpoint.digest)
        _enforce(judge_history(plan, loaded.policy, past, now_s=now_s))
        return loaded

    def judge_vote(self, plan: CheckedPlan, checked: CheckedSet, own: CheckedOpening) -> Members:
        """Step 4: whether this set may be voted for; returns who is in it, to be stored with the vote.

        Raises:
            RefusedError: `min-trusted`, `one-site-dominates` or `set-differs-too-little`.
        """
        policy = self.policy
        listed = [(m.header.credential.site, m.header.credential.digest[:DEVICE_NAME_BYTES]) for m in checked.members]
        members = members_by_site(listed)
        _enforce(judge_set_members(members, policy, self._site))
        if not (noise_covers(policy) and own.opening.noise_multiplier_e6 > 0):
            _enforce(judge_difference(members, self._earlier(plan, policy), policy, self._site))
        return members

    def _earlier(self, plan: CheckedPlan, policy: SitePolicy) -> Iterable[EarlierSet]:
        repeats = sets_of_inputs(self._connection, inputs_of(plan))
        if not policy.guard_membership or plan.plan.purpose != PURPOSE_TRAIN:
            return repeats
        return chain(repeats, sets_of_task(self._connection, plan.plan.task, GUARDED_ANSWERS))

    def _check_previous(self, plan: CheckedPlan, previous: Signed | None) -> None:
        """The coordinator's word on the last round agrees with what this trustee saw of it."""
        result = open_previous(plan, previous)
        seen = opened_plan(self._connection, plan.plan.task, plan.plan.round_number - 1)
        if result is None or seen is None:
            return
        plan_digest, checkpoint = seen
        opened = any(cohort.outcome == COHORT_OUTCOME_OPENED for cohort in result.cohorts)
        if result.plan_digest != plan_digest or (not opened and result.checkpoint.digest != checkpoint):
            raise TrustError(
                "result-fork",
                f"the result of round {result.round_number} of {plan.plan.task} is not of the round opened here",
                remedy="keep both as evidence and ask who runs the coordinator",
            )


def _enforce(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise RefusedError(verdict.code, verdict.sentence)
