"""What leaves the device when it says no: rules and codes, never its own numbers."""

from __future__ import annotations

import pytest

from bedside.agent.rounds.journal import Contribution, Journal
from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.offer import check_plan
from bedside.agent.rounds.refusals import Refusals
from bedside.core.errors import ConfigError, MalformedError, RefusedError, UnavailableError
from bedside.core.securesum.device import ContributionState
from bedside.core.signing import digest
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Refusal
from bedside.service.platform import SystemClock
from enrolled import enrol

SECRETS = (
    RefusedError("too-few-examples", "271 examples give 270 steps; the plan wants at least 300"),
    UnavailableError("child-died", "the child ended (status 1): File /opt/ward/agent.py, window 271"),
    RefusedError("count-out-of-range", "271 is above the cap"),
    MalformedError("delta-not-finite", "sample 271 of /var/lib/bedside is not a number"),
)


class Desk:
    """Refusals of one device, and what they made of it."""

    def __init__(self, device, world) -> None:
        identity = enrol(device, world)
        self.journal = Journal.open(device.path / "state")
        self.refusals = Refusals(identity, self.journal, identity.sequence(), SystemClock())

    def told(self) -> Refusal:
        ((_, signed),) = self.journal.unsent_refusals()
        return Refusal.FromString(Signed.FromString(signed).payload)

    def take(self, offer, task="watch") -> Contribution:
        taken = Contribution(
            digest(offer.plan.payload), task, 1, ContributionState.TRAINING, offer.SerializeToString(), "", ""
        )
        self.journal.accept(taken, Seen(), now_ns=1)
        return taken


@pytest.fixture
def desk(device, world):
    made = Desk(device, world)
    yield made
    made.journal.close()


@pytest.mark.parametrize("error", SECRETS, ids=lambda error: error.code)
def test_what_a_child_found_out_stays_here_and_its_code_is_told(offering, desk, error) -> None:
    taken = desk.take(offering.make())
    desk.refusals.decline(taken, error)
    told = desk.told()
    assert told.code == ("not-enough-here" if error.code == "too-few-examples" else error.code)
    assert desk.journal.find(taken.plan_digest).code == error.code
    assert told.sentence
    assert not [word for word in ("271", "270", "300", "/opt", "/var", "status") if word in told.sentence]
    assert desk.journal.find(taken.plan_digest).sentence == error.sentence


def test_what_depends_on_counts_is_told_alike_and_kept_apart(offering, desk) -> None:
    unaffordable = ("unaffordable-memory", "unaffordable-time")
    codes = ("too-few-examples", "too-few-sessions", *unaffordable, "child-timeout", "diverged")
    said = set()
    for number, code in enumerate(codes, start=1):
        taken = desk.take(offering.make(task=f"task-{number}"), f"task-{number}")
        desk.refusals.decline(taken, RefusedError(code, "271 windows"))
        assert desk.journal.find(taken.plan_digest).code == code
        ((_, signed),) = desk.journal.unsent_refusals()
        told = Refusal.FromString(Signed.FromString(signed).payload)
        said.add((told.code, told.sentence))
        desk.journal.refusal_sent(taken.plan_digest)
    assert len(said) == 1


def test_a_judgement_tells_its_rule(offering, desk) -> None:
    offer = offering.make()
    signed_plan = check_plan(offer, offering.standing(), Seen(), now_s=None)
    desk.refusals.refuse(offer, signed_plan, RefusedError("task-not-allowed", "site alder takes part in gait only"))
    assert desk.told().sentence == "site alder takes part in gait only"


def test_a_mistake_in_a_file_of_this_machine_is_not_told(offering, desk) -> None:
    desk.refusals.refuse(offering.make(), None, ConfigError("policy", "/etc/bedside/policy.toml:3: no such key"))
    assert "/etc" not in desk.told().sentence
    assert "/etc" in desk.journal.newest().sentence
