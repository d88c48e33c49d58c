"""A malicious coordinator, a restored disk and a lost machine against one trustee's duty."""

import asyncio
import shutil

import numpy as np
import pytest

from bedside.core.errors import StoreError
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.ring import reduce_in_place, word_dtype
from bedside.core.securesum.trustee import TrusteeState
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.trustee_pb2 import HeaderSet
from bedside.trustee.ledger import check_ledger, entries


def test_a_whole_round_opens_exactly_the_sum(bench):
    begun = bench.begin()
    vote = bench.seal(begun)
    answer = bench.reveal(begun, bench.others_vote(begun, vote))
    total = Aggregate(begun.plan.layout, 16)
    expected = np.zeros(begun.plan.vector_words, word_dtype(16))
    for words, packed in begun.uploads.values():
        total.add_upload(packed)
        expected += words
    for packed in [bench.duty.answer_words(answer.signed), *bench.peers_answer(begun)]:
        total.subtract_answer(packed)
    reduce_in_place(expected, 16)
    assert np.array_equal(total.opened(8, 3), expected)
    assert bench.said(vote).trusted_size == 8
    assert bench.secret(begun) is None


def test_every_word_is_a_link_of_one_chain(bench):
    begun = bench.begin()
    vote = bench.seal(begun)
    answer = bench.reveal(begun, bench.others_vote(begun, vote))
    second = bench.open(bench.plan(round_number=2, previous_result_digest=b"r" * 32))
    opening = bench.store.word(bench.key(begun), "opening")
    words = [opening, vote, answer, second]
    chains = [bench.said(word).chain for word in words]
    assert [chain.index for chain in chains] == [1, 2, 3, 4]
    assert [chain.previous_digest for chain in chains] == [b"", *(digest(w.signed.payload) for w in words[:-1])]
    assert {chain.boot_id for chain in chains} == {bench.keys.boot_id}


def test_the_ledger_is_charged_at_the_vote_and_every_later_word_names_its_head(bench):
    begun = bench.begin()
    assert entries(bench.store.database.connection) == []
    vote = bench.seal(begun)
    ((charged, head),) = entries(bench.store.database.connection)
    assert (charged.set_size, charged.noise_multiplier_e6, charged.set_root) == (8, 0, bench.root(begun.entries))
    assert bench.said(vote).chain.ledger_head == head == check_ledger([(charged, head)])


def test_an_altered_ledger_is_noticed(bench):
    bench.seal(bench.begin())
    bench.store.database.connection.execute("UPDATE ledger SET set_size = 7")
    with pytest.raises(StoreError) as caught:
        check_ledger(entries(bench.store.database.connection))
    assert caught.value.code == "ledger-broken"


def test_asked_again_it_says_the_same_bytes(bench):
    begun = bench.begin()
    assert bench.open(begun.plan).signed == begun.openings[0].signed
    vote = bench.seal(begun)
    assert bench.seal(begun) == vote
    votes = bench.others_vote(begun, vote)
    answer = bench.reveal(begun, votes)
    packed = bench.duty.answer_words(answer.signed)
    assert bench.reveal(begun, votes) == answer
    assert bench.duty.answer_words(answer.signed) == packed
    assert bench.seal(begun) == vote
    assert bench.store.chain_head()[0] == 3


# T1: one set, one answer


def test_a_second_set_is_refused_after_the_vote(bench):
    begun = bench.begin()
    bench.seal(begun)
    assert bench.code(bench.seal, begun, begun.entries[1:]) == "second-set"


def test_a_second_set_is_refused_after_the_answer(bench):
    begun = bench.begin()
    bench.reveal(begun, bench.others_vote(begun, bench.seal(begun)))
    assert bench.code(bench.seal, begun, begun.entries[1:]) == "second-set"


def test_a_store_restored_from_before_the_vote_cannot_vote_for_another_set(bench, tmp_path):
    begun = bench.begin()
    bench.store.close()
    shutil.copy(bench.paths.database, tmp_path / "backup.db")
    bench.start()
    bench.seal(begun)
    bench.store.close()
    for old in bench.paths.directory.glob("trustee.db*"):
        old.unlink()
    shutil.copy(tmp_path / "backup.db", bench.paths.database)
    bench.start()
    assert [bench.said(word).reason for word in bench.recovered] == [round_pb2.CLOSE_REASON_LOST]
    assert bench.seal(begun, begun.entries[1:]).kind == "closed"


def test_a_key_that_is_tied_to_a_root_votes_for_no_other(bench):
    """The second line of defence, where the chain's head in RAM was not newer than the restored store."""
    begun = bench.begin()
    bench.keys.lock(begun.plan.digest, 0, bench.root(begun.entries))
    assert bench.code(bench.seal, begun, begun.entries[1:]) == "second-set"
    assert bench.seal(begun).kind == "vote"


def test_votes_for_different_roots_release_nothing(bench):
    begun = bench.begin()
    vote = bench.seal(begun)
    votes = bench.others_vote(begun, vote, root=bench.root(begun.entries[1:]))
    assert bench.code(bench.reveal, begun, votes) == "votes-differ"
    assert bench.code(bench.reveal, begun, votes[:2]) == "votes-incomplete"
    assert bench.code(bench.reveal, begun, [votes[0], votes[0], votes[0]]) == "bad-signature"
    assert list(bench.paths.answers.iterdir()) == []
    assert bench.secret(begun) is not None


def test_no_answer_without_an_own_vote(bench):
    begun = bench.begin()
    vote = round_pb2.Vote(set_root=bench.root(begun.entries))
    signed = sign_message("vote", vote, bench.site.trustee.key)
    assert bench.code(bench.reveal, begun, [signed] * 3) == "not-voted"


# The set


def test_a_header_that_stands_twice_is_refused(bench):
    begun = bench.begin()
    doubled = HeaderSet(entries=sorted([*begun.entries, begun.entries[0]], key=lambda e: digest(e.credential.payload)))
    assert bench.code(bench.seal, begun, headers=doubled) == "set-order"


def test_headers_of_another_plan_or_opening_are_refused(bench, world):
    begun = bench.begin()
    other_plan = world.plan(**bench.fields, task="other")
    openings, _ = world.open_round(other_plan)
    stray, _ = world.contribute(other_plan, openings, world.devices[0], world.random_words(other_plan, 1))
    assert bench.code(bench.seal, begun, [stray, *begun.entries[1:]]) == "other-plan"
    openings, _ = world.open_round(begun.plan)
    stray, _ = world.contribute(begun.plan, openings, world.devices[0], world.random_words(begun.plan, 1))
    assert bench.code(bench.seal, begun, [stray, *begun.entries[1:]]) == "other-openings"


def test_a_header_of_another_cohort_is_refused(bench, world):
    begun = bench.begin()
    header = round_pb2.Header.FromString(begun.entries[0].header.payload)
    header.cohort = 1
    entry = type(begun.entries[0])(
        header=sign_message("header", header, world.devices[0].key), credential=begun.entries[0].credential
    )
    assert bench.code(bench.seal, begun, [entry, *begun.entries[1:]]) == "other-cohort"


def test_a_wrong_confirmation_tag_is_refused(bench, world):
    begun = bench.begin()
    header = round_pb2.Header.FromString(begun.entries[0].header.payload)
    header.tags[0] = bytes(16)
    entry = type(begun.entries[0])(
        header=sign_message("header", header, world.devices[0].key), credential=begun.entries[0].credential
    )
    assert bench.code(bench.seal, begun, [entry, *begun.entries[1:]]) == "bad-tag"


def test_a_device_without_the_sites_countersignature_is_refused(bench, world):
    sybil = world.enrol("birch", world.new_key())
    begun = bench.begin(devices=[*world.devices, sybil])
    assert bench.code(bench.seal, begun) == "bad-signature"


def test_a_device_that_was_revoked_before_the_vote_is_refused(bench, world):
    begun = bench.begin()
    bench.register.revoke(world.devices[0].credential.credential.subject, bench._sign_own_roster, at_s=1)
    assert bench.code(bench.seal, begun) == "not-on-roster"
    assert bench.seal(begun, begun.entries[1:]).kind == "vote"


def test_a_set_that_is_too_small_is_refused_and_a_larger_one_may_follow(bench):
    begun = bench.begin()
    own = [entry for entry in begun.entries if site_of(entry) == "alder"]
    assert bench.code(bench.seal, begun, own[:2]) == "set-too-small"
    assert bench.seal(begun, own).kind == "vote"


def test_untrusted_sites_do_not_count(bench, world):
    bench.write_policy(trusted_sites="[]", min_trusted="4")
    begun = bench.begin()
    assert bench.code(bench.seal, begun) == "min-trusted"
    assert bench.store.round(bench.key(begun)).code == "min-trusted"


def test_the_own_opening_must_be_among_the_openings(bench, world):
    begun = bench.begin()
    openings, _ = world.open_round(begun.plan)
    begun.openings = openings
    assert bench.code(bench.seal, begun) == "not-among-openings"


def test_a_set_of_a_round_that_was_never_opened_is_refused(bench, world):
    begun = bench.begin()
    begun.plan = bench.plan(task="other")
    assert bench.code(bench.seal, begun) == "not-opened"


@pytest.mark.parametrize("name", [b"", b"x" * 31, b"x" * 200])
def test_a_set_whose_name_is_no_digest_is_refused(bench, name):
    begun = bench.begin()
    request = bench.seal_request(begun, bench.world.header_set(begun.entries))
    request.headers.digest = name

    async def fetch(ref):
        raise AssertionError("nothing is fetched")

    assert bench.code(asyncio.run, bench.duty.seal(request, fetch)) == "bad-headers"


@pytest.mark.parametrize("changes", [{"round_number": 1 << 63}, {"log_size": 1 << 63}, {"close_at_s": (1 << 64) - 1}])
def test_a_plan_whose_numbers_no_database_holds_is_refused_without_a_trace(bench, world, changes):
    message = world.plan_message(**bench.fields)
    for name, value in changes.items():
        setattr(message, name, value)
    plan = sign_message("plan", message, world.coordinator)
    request = bench.open_request(bench.plan())
    request.plan.CopyFrom(plan)
    assert bench.code(bench.duty.open, request) == "bad-message"
    assert bench.store.rounds(*TrusteeState) == []


def test_no_vote_after_the_openings_validity(bench):
    begun = bench.begin()
    bench.clock.now_s = begun.plan.plan.close_at_s + 86_401
    assert bench.code(bench.seal, begun) == "opening-expired"


# The plan


def test_a_plan_signed_by_a_stranger_is_refused_without_a_trace(bench, world):
    signed = sign_message("plan", bench.plan().plan, world.author)
    request = bench.open_request(bench.plan())
    request.plan.CopyFrom(signed)
    assert bench.code(bench.duty.open, request) == "stranger-plan"
    assert bench.store.rounds(*TrusteeState) == []


def test_a_refused_plan_stays_refused_with_the_same_words(bench):
    bench.write_policy(min_contributors="4")
    plan = bench.plan()
    refusal = bench.open(plan)
    assert bench.said(refusal).code == "too-few-contributors"
    bench.write_policy(min_contributors="3")
    assert bench.open(plan) == refusal
    (stored,) = bench.store.rounds(TrusteeState.REFUSED)
    assert (stored.code, stored.plan.payload) == ("too-few-contributors", b""), "the plan itself is not kept"
    assert bench.open(bench.plan(round_number=2, previous_result_digest=b"r" * 32)).kind == "opening"


def test_refused_plans_are_kept_in_a_bounded_number(bench, monkeypatch):
    monkeypatch.setattr("bedside.trustee.store.MAX_REFUSED_ROUNDS", 3)
    bench.write_policy(min_contributors="4")
    for number in range(5):
        assert bench.open(bench.plan(task=f"task-{number}")).kind == "refusal"
    kept = bench.store.rounds(TrusteeState.REFUSED)
    assert [stored.task for stored in kept] == ["task-2", "task-3", "task-4"]
    assert len(bench.store.undelivered()) == 3


def test_round_numbers_never_go_back(bench):
    bench.close(bench.begin(bench.plan(round_number=3, previous_result_digest=b"r" * 32)))
    again = bench.plan(round_number=3, previous_result_digest=b"s" * 32)
    older = bench.plan(round_number=2, previous_result_digest=b"r" * 32)
    assert bench.said(bench.open(again)).code == "round-number-fork"
    assert bench.said(bench.open(older)).code == "round-number-rollback"


def test_the_log_never_shrinks_or_forks(bench):
    bench.close(bench.begin(bench.plan(log_size=9)))
    shorter = bench.plan(round_number=2, previous_result_digest=b"r" * 32, log_size=8)
    forked = bench.plan(round_number=2, previous_result_digest=b"r" * 32, log_size=9, log_root=b"x" * 32)
    assert bench.said(bench.open(shorter)).code == "log-size-rollback"
    assert bench.said(bench.open(forked)).code == "log-size-fork"


def test_a_plan_or_roster_that_goes_back_draws_no_round_key(bench):
    bench.close(bench.begin(bench.plan(log_size=9)))
    bench.open(bench.plan(task="roster", log_size=9), rosters=bench.rosters(versions={"birch": 5}))
    before = bench.keys.stored()
    drawn = []
    bench.keys.create = lambda *key: drawn.append(key)
    newest = bench.rosters(versions={"birch": 5})
    back = bench.open(bench.plan(round_number=2, previous_result_digest=b"r" * 32, log_size=8), rosters=newest)
    assert bench.said(back).code == "log-size-rollback"
    back = bench.open(bench.plan(task="third", log_size=9), rosters=bench.rosters(versions={"birch": 4}))
    assert bench.said(back).code == "roster-rollback"
    assert (drawn, bench.keys.stored()) == ([], before)


def test_one_open_plan_per_task(bench):
    begun = bench.begin()
    second = bench.plan(round_number=2, previous_result_digest=b"r" * 32)
    assert bench.said(bench.open(second)).code == "round-still-open"
    assert bench.open(bench.plan(task="another")).kind == "opening"
    bench.close(begun)
    assert bench.open(bench.plan(round_number=3, previous_result_digest=b"r" * 32)).kind == "opening"


def test_a_plan_that_names_another_sites_trustee_instead_of_this_one_is_refused(bench, world):
    plan = bench.plan()
    cohort = plan_pb2.Cohort()
    cohort.CopyFrom(plan.plan.cohorts[0])
    del cohort.trustees[0]
    assert bench.said(bench.open(bench.plan(cohorts=[cohort]))).code == "not-a-trustee"


def test_a_revoked_peer_trustee_opens_nothing(bench, world):
    rosters = bench.rosters(without=[world.sites["birch"].trustee])
    assert bench.said(bench.open(rosters=rosters)).code == "not-on-roster"


def test_this_trustee_opens_nothing_after_its_own_revocation(bench):
    subject = bench.site.trustee.credential.credential.subject
    bench.register.revoke(subject, bench._sign_own_roster, at_s=1)
    assert bench.said(bench.open()).code == "not-on-roster"


def test_a_roster_never_goes_back_or_forks(bench, world):
    bench.open(rosters=bench.rosters(versions={"birch": 5}))
    fresh = bench.plan(task="second")
    assert bench.said(bench.open(fresh, rosters=bench.rosters(versions={"birch": 4}))).code == "roster-rollback"
    forked = bench.rosters(versions={"birch": 5}, without=[world.sites["birch"].devices[0]])
    assert bench.said(bench.open(bench.plan(task="third"), rosters=forked)).code == "roster-fork"


def test_what_the_coordinator_says_about_the_own_roster_is_not_read(bench):
    stale = bench.rosters(versions={"alder": 1})
    own = bench.register.roster().version
    opening = bench.said(bench.open(rosters=bench.rosters(versions={"alder": 3})))
    assert {entry.site: entry.version for entry in opening.roster_versions}["alder"] == own == 4
    late = bench.open(bench.plan(task="second"), rosters=stale)
    assert late.kind == "opening", "a coordinator that has not heard of the newest own roster stops nothing"


def test_a_model_of_an_unknown_signer_is_refused(bench, world):
    manifest = sign_message("bundle", plan_pb2.Plan(), world.coordinator)
    assert bench.said(bench.open(manifest=manifest)).code == "unknown-signer"


def test_a_bundle_that_the_plan_does_not_name_is_refused(bench):
    plan = bench.plan(bundle=BlobRef(digest=b"z" * 32, size_bytes=1))
    assert bench.said(bench.open(plan)).code == "other-bundle"


def test_the_days_quota_of_rounds_holds(bench):
    bench.write_policy(max_rounds_per_day="1")
    assert bench.open().kind == "opening"
    assert bench.said(bench.open(bench.plan(task="second"))).code == "too-many-rounds"
    bench.clock.now_s += 86_401
    third = bench.plan(task="third", issued_at_s=bench.clock.now_s, close_at_s=bench.clock.now_s + 60)
    assert bench.open(third).kind == "opening"


def test_a_federation_that_goes_back_is_refused(bench, world):
    world.federation.version = 3
    bench.open()
    world.federation.version = 2
    request = bench.open_request(bench.plan(task="second"))
    assert bench.code(bench.duty.open, request) == "federation-rollback"


# T2: keys, restarts and reboots


def test_a_restart_keeps_the_key_and_the_boot_id(bench):
    begun = bench.begin()
    bench.restart()
    assert bench.recovered == []
    vote = bench.seal(begun)
    bench.restart()
    answer = bench.reveal(begun, bench.others_vote(begun, vote))
    assert bench.said(answer).set_root == bench.root(begun.entries)


@pytest.mark.parametrize("voted", [False, True])
def test_after_a_reboot_an_unfinished_round_is_lost_and_never_burned(bench, voted):
    begun = bench.begin()
    if voted:
        votes = bench.others_vote(begun, bench.seal(begun))
    bench.restart(reboot=True)
    (lost,) = bench.recovered
    assert bench.said(lost).reason == round_pb2.CLOSE_REASON_LOST
    assert bench.said(lost).chain.boot_id == bench.keys.boot_id
    assert bench.close(begun) == lost
    assert bench.seal(begun) == lost
    if voted:
        assert bench.reveal(begun, votes) == lost
    assert bench.open(bench.plan(round_number=2, previous_result_digest=b"r" * 32)).kind == "opening"


def test_a_restored_store_cannot_answer_again_after_the_answer(bench, tmp_path):
    """A backup from between vote and answer comes back: the key went before the answer left."""
    begun = bench.begin()
    votes = bench.others_vote(begun, bench.seal(begun))
    bench.store.close()
    shutil.copy(bench.paths.database, tmp_path / "backup.db")
    bench.start()
    bench.reveal(begun, votes)
    bench.store.close()
    for old in bench.paths.directory.glob("trustee.db*"):
        old.unlink()
    shutil.copy(tmp_path / "backup.db", bench.paths.database)
    bench.start()
    assert bench.said(bench.reveal(begun, votes)).reason == round_pb2.CLOSE_REASON_LOST
    assert bench.said(bench.recovered[0]).chain.index == 4, "the chain goes on behind what the store forgot"


def test_a_key_copied_back_under_another_boot_id_is_not_used(bench, tmp_path):
    begun = bench.begin()
    (key_file,) = bench.runtime.glob("*.key")
    shutil.copy(key_file, tmp_path / "stolen.key")
    bench.store.close()
    shutil.rmtree(bench.runtime)
    bench.runtime.mkdir(mode=0o700)
    shutil.copy(tmp_path / "stolen.key", key_file)
    bench.start()
    assert bench.said(bench.seal(begun)).reason == round_pb2.CLOSE_REASON_LOST
    assert bench.secret(begun) is None


def test_closing_burns_the_key_first_and_says_so_once(bench):
    begun = bench.begin()
    (key_file,) = bench.runtime.glob("*.key")
    burned = bench.close(begun)
    assert bench.said(burned).reason == round_pb2.CLOSE_REASON_BURNED
    assert not key_file.exists()
    assert bench.close(begun) == burned
    assert bench.seal(begun) == burned


def test_a_crash_between_burning_and_saying_so_leaves_lost(bench, monkeypatch):
    begun = bench.begin()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.store, "store_closed", crash)
    with pytest.raises(KeyboardInterrupt):
        bench.close(begun)
    bench.restart()
    assert bench.said(bench.recovered[0]).reason == round_pb2.CLOSE_REASON_LOST


def test_an_answered_round_cannot_be_closed(bench):
    begun = bench.begin()
    answer = bench.reveal(begun, bench.others_vote(begun, bench.seal(begun)))
    assert bench.close(begun) == answer


def test_the_key_is_gone_when_the_answer_comes_out(bench):
    begun = bench.begin()
    votes = bench.others_vote(begun, bench.seal(begun))
    bench.reveal(begun, votes)
    assert list(bench.runtime.glob("*.key")) == []
    assert list(bench.runtime.glob("*.root")) == []


def test_a_crash_after_the_answers_commit_destroys_the_key_at_the_next_start(bench, monkeypatch):
    begun = bench.begin()
    votes = bench.others_vote(begun, bench.seal(begun))

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.keys, "destroy", crash)
    with pytest.raises(KeyboardInterrupt):
        bench.reveal(begun, votes)
    assert len(list(bench.runtime.glob("*.key"))) == 1
    bench.restart()
    assert list(bench.runtime.glob("*.key")) == []
    (unsent,) = [word for word in bench.store.undelivered() if word.kind == "answer"]
    assert bench.reveal(begun, votes) == unsent


def test_what_was_said_but_not_delivered_is_in_the_outbox(bench):
    begun = bench.begin()
    (opening,) = bench.store.undelivered()
    bench.store.mark_delivered(opening)
    vote = bench.seal(begun)
    bench.restart()
    assert bench.store.undelivered() == [vote]


def test_a_revocation_after_the_vote_does_not_undo_the_lock(bench, world):
    begun = bench.begin()
    vote = bench.seal(begun)
    bench.register.revoke(world.devices[0].credential.credential.subject, bench._sign_own_roster, at_s=1)
    assert bench.reveal(begun, bench.others_vote(begun, vote)).kind == "answer"


def site_of(entry):
    return round_pb2.Header.FromString(entry.header.payload).site
