"""Disks that are copied back, machines that are switched off, and papers that ran out."""

from __future__ import annotations

from attack_cases import Attempt, attack
from attack_field import NOW_S, Field
from guard_switch import Guard, Instead
from known_guards import EXPIRY, ROSTER, VOTES

from bedside.proto.v1.identity_pb2 import ROLE_TRUSTEE
from bedside.trustee.duty import Duty
from bedside.trustee.keys import RoundKeys
from bedside.trustee.store import check_floor


@attack("T2", "second-set", Guard(RoundKeys.lock, "second_set"))
def a_key_tied_to_a_root_is_asked_for_another(field: Field) -> Attempt:
    """What a store looks like that was copied back under a running machine, were the chain not in RAM."""
    begun = field.begin()
    bench = field.bench()
    bench.keys.lock(begun.plan.digest, 0, bench.root(begun.entries))
    return lambda: field.seal(begun, begun.entries[1:])


@attack("T2", "closed-lost", Instead(RoundKeys, "chain_seen", lambda self: None), Guard(RoundKeys.lock, "second_set"))
def a_restored_disk_votes_for_a_second_set(field: Field) -> Attempt:
    begun = field.begin()
    restore = field.snapshot()
    field.seal(begun)

    def attempt() -> object:
        restore()
        return field.seal(begun, begun.entries[1:])

    return attempt


@attack("T2", "closed-lost", Instead(RoundKeys, "destroy", lambda *_: None))
def a_restored_disk_answers_again(field: Field) -> Attempt:
    bench, begun = field.bench(), field.begin()
    votes = bench.others_vote(begun, field.seal(begun))
    restore = field.snapshot()

    def attempt() -> object:
        field.reveal(begun, votes)
        restore()
        return field.reveal(begun, votes)

    return attempt


@attack("T2", "closed-lost", Instead(Duty, "_secret", lambda *_: object()))
def a_restored_disk_without_its_ram_signs_burned(field: Field) -> Attempt:
    begun = field.begin()
    field.seal(begun)
    restore = field.snapshot()

    def attempt() -> object:
        restore(reboot=True)
        return field.burned(begun)

    return attempt


@attack("T1", "votes-differ", VOTES)
def a_disk_restored_with_its_ram_answers_another_set(field: Field) -> Attempt:
    """Nothing on the machine itself can notice; the other trustees' votes are on the first set."""
    begun = field.begin(real=True)
    restore = field.snapshot(ram=True)
    votes = [field.seal(begun, site=site).signed for site in ("alder", "birch", "cedar")]
    field.reveal(begun, votes)
    restore()
    second = field.seal(begun, begun.entries[1:]).signed
    return lambda: field.reveal(begun, [second, *votes[1:]], begun.entries[1:])


@attack("T2", "closed-lost", Instead(Duty, "_secret", lambda *_: object()))
def burned_is_asked_for_after_a_reboot(field: Field) -> Attempt:
    begun = field.begin()

    def attempt() -> object:
        field.bench().restart(reboot=True)
        return field.burned(begun)

    return attempt


@attack("T2", "answered")
def burned_is_asked_for_after_the_answer(field: Field) -> Attempt:
    bench, begun = field.bench(), field.begin()
    field.reveal(begun, bench.others_vote(begun, field.seal(begun)))
    return lambda: field.burned(begun)


# Papers that ran out


@attack("T6", "not-on-roster", ROSTER)
def a_device_revoked_before_the_vote(field: Field) -> Attempt:
    begun = field.begin()
    gone = field.world.sites["birch"].devices[0]
    rosters = field.rosters(versions={"birch": 2}, without=[gone])
    return lambda: field.seal(begun, rosters=rosters)


@attack("T6", "not-on-roster", ROSTER)
def a_trustee_revoked_before_the_vote(field: Field) -> Attempt:
    begun = field.begin()
    rosters = field.rosters(versions={"birch": 2}, without=[field.world.sites["birch"].trustee])
    return lambda: field.seal(begun, rosters=rosters)


@attack("T6", "credential-expired", EXPIRY)
def a_device_whose_credential_ran_out_before_the_vote(field: Field) -> Attempt:
    field.world.sites["birch"].devices[0] = field.enrol("birch", not_after_s=NOW_S + 300)
    begun = field.begin()
    field.bench().clock.now_s = NOW_S + 301
    return lambda: field.seal(begun)


@attack("T6", "credential-expired", EXPIRY)
def a_trustee_whose_credential_ran_out_before_the_vote(field: Field) -> Attempt:
    field.world.sites["birch"].trustee = field.enrol("birch", role=ROLE_TRUSTEE, not_after_s=NOW_S + 300)
    begun = field.begin()
    field.bench().clock.now_s = NOW_S + 301
    return lambda: field.seal(begun)


@attack("T6", "opening-expired", Guard(Duty._vote, "opening-expired"))
def a_vote_after_the_openings_time(field: Field) -> Attempt:
    begun = field.begin()
    field.bench().clock.now_s = begun.plan.plan.close_at_s + 86_401
    return lambda: field.seal(begun)


@attack("T8", "roster-rollback", Guard(check_floor, "-rollback"))
def an_older_roster_at_the_vote(field: Field) -> Attempt:
    begun = field.begin()
    field.bench().open(field.plan(task="second"), rosters=field.rosters(versions={"birch": 7}))
    return lambda: field.seal(begun, rosters=field.rosters(versions={"birch": 6}))


@attack("T8", "header-sequence-rollback", Guard(check_floor, "-rollback"))
def a_header_of_a_cloned_device_behind_the_first(field: Field) -> Attempt:
    """Two machines of one identity: the copy of a card image goes on from where it was taken."""
    bench, device = field.bench(), field.world.devices[0]
    device.sequence = 50
    first = field.begin()
    field.reveal(first, bench.others_vote(first, field.seal(first)))
    device.sequence = 7
    again = field.begin(field.next_plan())
    return lambda: field.seal(again)
