"""A malicious coordinator puts together sets and votes for one honest trustee."""

from __future__ import annotations

from attack_cases import Attempt, attack
from attack_field import Field
from guard_switch import Guard, Instead
from known_guards import DIFFERENCE, EPHEMERAL, MEMBERS, OPENINGS, ORDER, PLAN, ROSTER, SIGNATURE, TAG, TRUSTED, VOTES

from bedside.core.securesum import keys, messages, trustee
from bedside.core.securesum.messages import words_digest
from bedside.core.signing import trust
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.trustee_pb2 import HeaderSet
from bedside.trustee import duty
from bedside.trustee.duty import Duty


@attack("T3", "bad-signature", SIGNATURE, ROSTER)
def a_sybil_without_the_sites_countersignature(field: Field) -> Attempt:
    sybil = field.enrol("birch", authority=field.world.coordinator)
    begun = field.begin(devices=[*field.world.devices, sybil])
    return lambda: field.seal(begun)


@attack("T3", "not-on-roster", ROSTER)
def a_device_that_its_site_never_listed(field: Field) -> Attempt:
    begun = field.begin(devices=[*field.world.devices, field.enrol("birch")])
    return lambda: field.seal(begun)


@attack("T3", "min-trusted", TRUSTED, MEMBERS)
def fakes_of_a_bad_site_around_one_victim(field: Field) -> Attempt:
    """The site's own authority signs as many fakes as it likes; they are on its roster."""
    fakes = [field.enrol("cedar") for _ in range(6)]
    field.world.sites["cedar"].devices.extend(fakes)
    field.policy = {"trusted_sites": '["birch"]'}
    victim = field.world.sites["alder"].devices[0]
    begun = field.begin(devices=[victim, *fakes])
    return lambda: field.seal(begun)


@attack("T3", "min-trusted", TRUSTED, MEMBERS)
def a_set_below_min_trusted(field: Field) -> Attempt:
    field.policy = {"min_trusted": "5", "trusted_sites": '["birch"]'}
    mine, theirs = field.world.sites["alder"].devices, field.world.sites["birch"].devices
    begun = field.begin(devices=[*mine[:2], *theirs[:2], *field.world.sites["cedar"].devices])
    return lambda: field.seal(begun)


@attack("T3", "set-too-small", Guard(trustee._check_size, "set-too-small"), TRUSTED, MEMBERS)
def a_set_of_two(field: Field) -> Attempt:
    begun = field.begin()
    return lambda: field.seal(begun, begun.entries[:2])


@attack("T1", "set-too-large", Guard(trustee._check_size, "set-too-large"))
def a_set_larger_than_the_ring_was_made_for(field: Field) -> Attempt:
    begun = field.begin(field.plan(max_contributors=7))
    return lambda: field.seal(begun)


@attack("T1", "set-order", ORDER, EPHEMERAL)
def one_header_twice(field: Field) -> Attempt:
    begun = field.begin()
    doubled = sorted([*begun.entries, begun.entries[0]], key=lambda e: digest(e.credential.payload))
    return lambda: field.seal(begun, headers=HeaderSet(entries=doubled))


@attack("T1", "set-order", ORDER)
def two_headers_of_one_device(field: Field) -> Attempt:
    begun = field.begin()
    again = field.entry(begun.plan, begun.openings, field.world.devices[0])
    return lambda: field.seal(begun, [*begun.entries, again])


@attack("T1", "repeated-ephemeral", EPHEMERAL)
def two_devices_that_share_one_ephemeral_key(field: Field) -> Attempt:
    """As two clones of one image with one broken generator would; both hold the key, so that both tags are right."""
    begun = field.begin()
    one, other = field.world.devices[3:5]
    field.world.entropy._count = 1_000
    other.secret, one.sequence = one.secret, 40
    other.sequence = 40
    words = field.world.random_words(begun.plan, 1)
    first, _ = field.world.contribute(begun.plan, begun.openings, one, words)
    field.world.entropy._count = 1_000
    second, _ = field.world.contribute(begun.plan, begun.openings, other, words)
    rest = [entry for place, entry in enumerate(begun.entries) if place not in (3, 4)]
    return lambda: field.seal(begun, [*rest, first, second])


@attack("T1", "other-plan", PLAN, OPENINGS, TAG)
def a_header_of_another_plan(field: Field) -> Attempt:
    begun = field.begin()
    other = field.plan(task="other")
    openings, _ = field.world.open_round(other)
    stray = field.entry(other, openings, field.world.devices[0])
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "other-openings", OPENINGS, TAG)
def a_header_made_for_other_openings(field: Field) -> Attempt:
    begun = field.begin()
    openings, _ = field.world.open_round(begun.plan)
    stray = field.entry(begun.plan, openings, field.world.devices[0])
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "other-cohort", Guard(messages._open, "other-cohort"))
def a_header_of_another_cohort(field: Field) -> Attempt:
    begun = field.begin()
    stray = field.resigned(begun.entries[0], field.world.devices[0], cohort=1)
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "wrong-sender", Guard(messages._open, "wrong-sender"))
def a_header_that_names_another_devices_credential(field: Field) -> Attempt:
    begun = field.begin()
    other = field.world.devices[1].credential.digest
    stray = field.resigned(begun.entries[0], field.world.devices[0], credential_digest=other)
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T3", "wrong-site", Guard(messages.open_header, "wrong-site"))
def a_header_that_names_another_site(field: Field) -> Attempt:
    begun = field.begin()
    stray = field.resigned(begun.entries[4], field.world.devices[4], site="alder")
    return lambda: field.seal(begun, [stray, *begun.entries[:4], *begun.entries[5:]])


@attack("T1", "bad-tag", TAG)
def a_wrong_confirmation_tag(field: Field) -> Attempt:
    begun = field.begin()
    tags = [bytes(16), *round_pb2.Header.FromString(begun.entries[0].header.payload).tags[1:]]
    stray = field.resigned(begun.entries[0], field.world.devices[0], tags=tags)
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "bad-tag", TAG, EPHEMERAL)
def a_copied_ephemeral_key(field: Field) -> Attempt:
    """Another device puts its name to the victim's keys, hoping for the victim's mask."""
    begun = field.begin()
    attacker = field.world.devices[4].credential
    stray = field.resigned(
        begun.entries[0], field.world.devices[4], credential_digest=attacker.digest, site=attacker.site
    )
    return lambda: field.seal(begun, [stray, *begun.entries[:4], *begun.entries[5:]])


@attack("T1", "bad-tag", TAG)
def a_ciphertext_that_was_made_up(field: Field) -> Attempt:
    """ML-KEM decapsulates it to something all the same; only the tag shows that nobody holds the key."""
    begun = field.begin()
    header = round_pb2.Header.FromString(begun.entries[0].header.payload)
    made_up = [b"c" * 1_088, *header.mlkem_ciphertexts[1:]]
    stray = field.resigned(begun.entries[0], field.world.devices[0], mlkem_ciphertexts=made_up)
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "bad-round-key", Instead(keys, "_exchange", lambda *_: bytes(32)), TAG)
def an_ephemeral_key_of_low_order(field: Field) -> Attempt:
    begun = field.begin()
    stray = field.resigned(begun.entries[0], field.world.devices[0], x25519_pk=bytes(32))
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T1", "bad-header", Guard(messages.open_header, "bad-header"))
def a_header_of_an_over_long_vector(field: Field) -> Attempt:
    begun = field.begin()
    stray = field.resigned(begun.entries[0], field.world.devices[0], upload_bytes=1_000_000)
    return lambda: field.seal(begun, [stray, *begun.entries[1:]])


@attack("T3", "wrong-role", Guard(trust.Trust.credential, "wrong-role"))
def a_trustee_as_a_device(field: Field) -> Attempt:
    begun = field.begin(devices=[*field.world.devices, field.world.sites["birch"].trustee])
    return lambda: field.seal(begun)


@attack("T1", "not-among-openings")
def a_set_beside_openings_that_are_not_this_trustees(field: Field) -> Attempt:
    begun = field.begin()
    begun.openings, _ = field.world.open_round(begun.plan)
    return lambda: field.seal(begun)


@attack("T4", "set-differs-too-little", DIFFERENCE)
def the_same_inputs_again_without_one_device(field: Field) -> Attempt:
    """Two sums without noise, one device apart: their difference is its update. The second plan has another name."""
    bench, first = field.bench(), field.begin()
    field.reveal(first, bench.others_vote(first, field.seal(first)))
    again = field.begin(field.plan(task="renamed"))
    return lambda: field.seal(again, again.entries[1:])


@attack("T4", "set-differs-too-little", DIFFERENCE)
def the_same_inputs_again_after_a_power_cut(field: Field) -> Attempt:
    bench, first = field.bench(), field.begin()
    field.reveal(first, bench.others_vote(first, field.seal(first)))
    bench.restart(reboot=True)
    again = field.begin(field.plan(task="renamed"))
    return lambda: field.seal(again, again.entries[1:])


@attack("T3", "one-site-dominates", MEMBERS)
def a_set_that_one_site_fills(field: Field) -> Attempt:
    field.policy = {"max_share_one_site": "0.5"}
    begun = field.begin()
    return lambda: field.seal(begun, begun.entries[:4])


# Two sets


@attack("T1", "second-set", Guard(Duty.seal, "second_set"))
def two_sets_to_one_trustee(field: Field) -> Attempt:
    begun = field.begin()
    field.seal(begun)
    return lambda: field.seal(begun, begun.entries[1:])


@attack("T1", "second-set", Guard(Duty.seal, "second_set"))
def a_second_set_after_the_answer(field: Field) -> Attempt:
    bench, begun = field.bench(), field.begin()
    field.reveal(begun, bench.others_vote(begun, field.seal(begun)))
    return lambda: field.seal(begun, begun.entries[1:])


@attack("T1", "votes-differ", VOTES)
def two_sets_to_two_trustees(field: Field) -> Attempt:
    begun = field.begin(real=True)
    votes = [field.seal(begun).signed, field.seal(begun, begun.entries[1:], site="birch").signed]
    votes.append(field.seal(begun, site="cedar").signed)
    return lambda: field.reveal(begun, votes)


@attack("T1", "bad-signature", SIGNATURE, Guard(messages._open, "wrong-sender"))
def one_vote_in_the_name_of_all(field: Field) -> Attempt:
    begun = field.begin()
    vote = field.seal(begun)
    return lambda: field.reveal(begun, [vote.signed] * 3)


@attack("T1", "votes-incomplete", Instead(duty, "open_votes", lambda votes, *_: words_digest(votes)))
def an_answer_before_all_have_voted(field: Field) -> Attempt:
    bench, begun = field.bench(), field.begin()
    votes = bench.others_vote(begun, field.seal(begun))
    return lambda: field.reveal(begun, votes[:2])


@attack("T1", "other-plan", PLAN)
def votes_of_another_round(field: Field) -> Attempt:
    bench = field.bench()
    begun = field.begin()
    told = round_pb2.Vote.FromString(field.seal(begun).signed.payload)
    votes = bench.others_vote(begun, bench.seal(begun))
    told.plan_digest = bytes(32)
    told.credential_digest = begun.openings[1].credential.digest
    votes[1] = sign_message("vote", told, field.world.sites["birch"].trustee.key)
    return lambda: field.reveal(begun, votes)
