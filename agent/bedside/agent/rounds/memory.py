"""What a device has seen, so that nothing older is believed again: freshness without a clock (rule T8).

Invariants:
    * Federation, rosters, rounds of a task, the own trustee's chain and the coordinator's log only ever move forward.
    * The same point may be shown again only as the same bytes; two different things at one point are a fork.
    * The own site's trustee is the one that was seen first, until the site's own roster no longer lists it.

Source: DESIGN section 5, rules T6 and T8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from bedside.core.errors import TrustError
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Chain


@dataclass(frozen=True, slots=True)
class ChainPoint:
    """The newest link of a trustee's chain that was seen.

    Attributes:
        index: its place, from 1.
        digest: BLAKE2b-256 of the payload that carried it.
    """

    index: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class RoundPoint:
    """The newest round of a task that was seen, and the one plan that it may have."""

    round_number: int
    plan_digest: bytes


@dataclass(frozen=True, slots=True)
class TrusteePin:
    """The own site's trustee; `credential_digest` is of the credential that it showed last."""

    subject: str
    credential_digest: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything remembered; a new object for every step forward."""

    federation_version: int = 0
    log_size: int = 0
    log_root: bytes = b""
    rosters: Mapping[str, int] = field(default_factory=dict)
    rounds: Mapping[str, RoundPoint] = field(default_factory=dict)
    chains: Mapping[str, ChainPoint] = field(default_factory=dict)
    results: Mapping[str, int] = field(default_factory=dict)
    """Task to the round whose checkpoint serves, or served, last."""
    trustee: TrusteePin | None = None

    def with_plan(self, plan: Plan, plan_digest: bytes) -> Seen:
        """Step to a plan whose signature holds.

        Raises:
            TrustError: `round-rollback`, `round-fork`, `log-rollback` or `log-fork`.
        """
        last = self.rounds.get(plan.task, RoundPoint(0, b""))
        if plan.round_number < last.round_number:
            raise _backwards(
                "round", f"round {plan.round_number} of {plan.task}", f"round {last.round_number} was seen before"
            )
        if plan.round_number == last.round_number and plan_digest != last.plan_digest:
            raise _fork("round", f"round {plan.round_number} of {plan.task} has two different plans")
        if plan.log_size < self.log_size:
            raise _backwards(
                "log", f"the coordinator's log of size {plan.log_size}", f"size {self.log_size} was seen before"
            )
        if plan.log_size == self.log_size and self.log_root and plan.log_root != self.log_root:
            raise _fork("log", f"the coordinator's log of size {plan.log_size} has two different roots")
        point = RoundPoint(plan.round_number, plan_digest)
        return replace(self, log_size=plan.log_size, log_root=plan.log_root, rounds={**self.rounds, plan.task: point})

    def with_trustee(self, subject: str, credential_digest: bytes, own_roster: Collection[bytes]) -> Seen:
        """Step to the own site's trustee, as its site's newest roster has it.

        Raises:
            TrustError: `other-trustee`: it is not the one that was seen first, and the site still lists that one.
        """
        pin = self.trustee
        if pin is not None and pin.subject != subject and pin.credential_digest in own_roster:
            raise TrustError(
                "other-trustee",
                f"this site's trustee would be {subject}, but {pin.subject} was seen before and is on the roster still",
                remedy="a trustee that the site did not make opens its sums: ask the site's admin; to replace a trustee"
                " the site revokes the old one first",
            )
        return replace(self, trustee=TrusteePin(subject, credential_digest))

    def with_chain(self, trustee: str, chain: Chain, payload_digest: bytes) -> Seen:
        """Step to a signed link of the own trustee's chain. The index goes on over restarts of its machine.

        Raises:
            TrustError: `chain-rollback` or `chain-fork`.
        """
        last = self.chains.get(trustee, ChainPoint(0, b""))
        if last.index and chain.index == last.index + 1 and chain.previous_digest != last.digest:
            raise _fork("chain", f"link {chain.index} of {trustee} does not follow the one seen before it")
        return self.with_link(trustee, chain.index, payload_digest)

    def with_link(self, trustee: str, index: int, payload_digest: bytes) -> Seen:
        """Step to link `index` of a trustee's chain; raises as `with_chain`."""
        last = self.chains.get(trustee, ChainPoint(0, b""))
        if index < last.index:
            raise _backwards("chain", f"{trustee}'s chain at link {index}", f"link {last.index} was seen before")
        if index == last.index and payload_digest != last.digest:
            raise _fork("chain", f"{trustee} signed two different links {index}")
        return replace(self, chains={**self.chains, trustee: ChainPoint(index, payload_digest)})

    def with_roster(self, site: str, version: int) -> Seen:
        """Step to a verified roster."""
        return replace(self, rosters={**self.rosters, site: max(version, self.rosters.get(site, 0))})

    def with_result(self, task: str, round_number: int) -> Seen:
        """Step to the result of a round whose checkpoint serves from now on."""
        return replace(self, results={**self.results, task: max(round_number, self.results.get(task, 0))})

    def with_federation(self, version: int) -> Seen:
        """Step to a verified federation document."""
        return replace(self, federation_version=max(version, self.federation_version))


def _backwards(what: str, shown: str, seen: str) -> TrustError:
    return TrustError(
        f"{what}-rollback",
        f"{shown} went back: {seen}",
        remedy="somebody restored an old copy; ask who runs it, and continue with the newer one",
    )


def _fork(what: str, sentence: str) -> TrustError:
    return TrustError(f"{what}-fork", sentence, remedy="keep both as evidence and ask who runs it")
