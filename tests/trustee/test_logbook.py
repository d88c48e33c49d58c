"""The trustee reads the whole log, refuses another one, and notices what it never said."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bedside.core.errors import BedsideError, StoreError, TrustError, UnavailableError
from bedside.core.log.messages import open_cosignature, sign_checkpoint
from bedside.core.signing.envelope import digest
from bedside.proto.v1.audit_pb2 import CheckpointView
from bedside.trustee.log_store import LogStore
from bedside.trustee.logbook import PAGE_ENTRIES, LogBook
from bedside.trustee.status import read_report

sys.path.insert(0, str(Path(__file__).parent))

from coordinator_log import CoordinatorLog

NEVER, ALWAYS = 0, 1


class Draw:
    """Entropy whose draws are all the same number."""

    def __init__(self, value=0):
        self.value = value

    def token_bytes(self, count):
        return self.value.to_bytes(count, "big")


class Reader:
    """A trustee's logbook over its own file, with the duty that asks it."""

    def __init__(self, bench, world):
        self.bench = bench
        self.world = world
        self.store = LogStore(bench.store.database)
        self.draw = Draw()
        own = bench.site.trustee
        self.book = LogBook(self.store, own.credential, own.key, clock=bench.clock, entropy=self.draw)
        bench.duty._check_log = self.book.check_plan

    def follow(self, log, one_in=NEVER):
        return asyncio.run(self.book.follow(log, self.world.federation, one_in))

    def open(self, log, plan, **changes):
        """What the trustee says to a plan: the kind of its word, or the code of its refusal."""
        asyncio.run(self.book.prepare(log, self.world.federation, plan.signed, NEVER))
        word = self.bench.open(plan, **changes)
        return self.bench.said(word).code if word.kind == "refusal" else word.kind

    def code(self, log):
        with pytest.raises(BedsideError) as caught:
            self.follow(log)
        return caught.value.code


@pytest.fixture
def reader(bench, world):
    return Reader(bench, world)


@pytest.fixture
def log(world):
    made = CoordinatorLog(world.coordinator)
    for number in range(5):
        made.add("plan", digest(b"%d" % number), digest(b"%d" % number))
    return made


def test_a_log_is_read_once_in_pages_and_vouched_for(reader, log, world):
    for number in range(PAGE_ENTRIES):
        log.add("result", digest(b"r%d" % number), digest(b"p"))
    assert reader.follow(log)
    assert not reader.follow(log)
    asked = [call[1:] for call in log.calls if call[0] == "entries"]
    assert asked == [(0, PAGE_ENTRIES), (PAGE_ENTRIES, 5)]
    signed = reader.store.undelivered_cosignature()
    told = open_cosignature(signed, reader.bench.site.trustee.credential, "test")
    assert (told.size, told.root) == (len(log.leaves), log.root())
    reader.store.mark_cosignature_delivered(signed)
    assert reader.store.undelivered_cosignature() is None


def test_a_plan_in_the_log_is_opened(reader, log):
    assert reader.open(log, log.plan(reader.bench)) == "opening"


def test_a_plan_whose_log_the_trustee_has_read_past_is_opened_too(reader, log):
    plan = log.plan(reader.bench)
    log.add("plan", digest(b"later"), digest(b"later"))
    reader.follow(log)
    assert reader.open(log, plan) == "opening"


def test_without_a_look_at_the_log_nothing_is_opened(reader, log):
    plan = log.plan(reader.bench)
    word = reader.bench.open(plan)
    assert reader.bench.said(word).code == "log-inconsistent"


def test_two_trustees_that_are_shown_two_logs_never_share_a_round(bench, world, make_bench, tmp_path, reader, log):
    (tmp_path / "other").mkdir()
    other = Reader(make_bench(world, tmp_path / "other"), world)
    reader.follow(log)
    other.follow(log)
    shown_to_other = log.fork()
    log.add("result", digest(b"a"), digest(b"p"))
    shown_to_other.add("result", digest(b"b"), digest(b"p"))
    plan = log.plan(bench)
    shown_to_other.add("plan", plan.digest, plan.digest)
    assert reader.open(log, plan) == "opening"
    assert other.open(shown_to_other, plan) == "log-fork"
    # Nor does it help to show the first log now: this trustee has vouched for the other one.
    assert other.code(log) == "log-fork"
    other.bench.store.close()


def test_a_plan_that_is_not_the_entry_after_its_log_is_refused(reader, log):
    plan = log.plan(reader.bench)
    log.leaves[-1] = log.leaves[-2]
    assert reader.open(log, plan) == "log-inconsistent"


def test_a_plan_that_names_a_longer_log_than_there_is_is_refused(reader, log):
    plan = reader.bench.plan(log_size=len(log.leaves) + 7)
    assert reader.open(log, plan) == "log-inconsistent"


def test_a_log_that_shrank_changed_or_ends_early_is_not_accepted(reader, log):
    reader.follow(log)
    shrunk = log.fork()
    shrunk.leaves.pop()
    assert reader.code(shrunk) == "log-inconsistent"
    changed = log.fork()
    changed.leaves[1] = changed.leaves[2]
    assert reader.code(changed) == "log-fork"
    changed.add("result", digest(b"r"), digest(b"p"))
    assert reader.code(changed) == "log-fork"
    log.add("result", digest(b"r"), digest(b"p"))
    log.get_log_entries = no_entries
    assert reader.code(log) == "log-inconsistent"
    assert reader.store.frontier().size == 5


async def no_entries(first, count):
    return []


def test_entries_that_do_not_hash_to_the_signed_root_are_not_accepted(reader, log):
    async def other_entries(first, count):
        return [*log.leaves[first : first + count - 1], log.leaves[0]]

    log.get_log_entries = other_entries
    assert reader.code(log) == "log-fork"
    assert reader.store.frontier().size == 0


def test_an_entry_that_is_none_is_named(reader, log):
    log.leaves.append(b"\xff" * 40)
    assert reader.code(log) == "log-inconsistent"


def test_a_checkpoint_by_a_stranger_or_of_another_federation_is_refused(reader, log, world):
    async def by(key, federation):
        signed = sign_checkpoint(federation, len(log.leaves), log.root(), 1, key)
        return CheckpointView(checkpoint=signed)

    log.get_log_checkpoint = lambda size: by(world.author, "test")
    assert reader.code(log) == "bad-signature"
    log.get_log_checkpoint = lambda size: by(world.coordinator, "elsewhere")
    assert reader.code(log) == "other-federation"


@pytest.mark.parametrize("kind", ["opening", "vote", "answer", "closed"])
def test_a_word_under_its_key_that_it_never_said_raises_the_alarm_and_stops_openings(reader, log, kind, caplog):
    log.word(kind, reader.bench, digest(b"p"))
    reader.follow(log)
    (word,) = reader.store.foreign_words()
    assert (word.kind, word.position) == (kind, 5)
    assert "foreign-word" in caplog.text
    assert reader.open(log, log.plan(reader.bench)) == "foreign-word"
    report = read_report(reader.bench.paths, "alder", "t", reader.bench.store)
    assert report.exit_status == 2
    assert [(found.kind, found.position) for found in report.foreign_words] == [(kind, 5)]
    assert reader.store.handle_foreign_words(1) == 1
    assert reader.open(log, log.plan(reader.bench, task="second")) == "opening"


def test_its_own_words_and_those_of_others_raise_no_alarm(reader, log, world):
    plan = log.plan(reader.bench)
    assert reader.open(log, plan) == "opening"
    said = reader.bench.store.word((plan.digest, 0), "opening")
    log.word("opening", reader.bench, plan.digest, digest(said.signed.payload))
    log.word("opening", reader.bench, plan.digest, party=world.sites["birch"].trustee)
    log.add("refusal", digest(b"r"), plan.digest, credential_digest=reader.bench.site.trustee.credential.digest)
    reader.follow(log)
    assert reader.store.foreign_words() == []


def test_a_link_that_breaks_is_no_finding_and_accepts_nothing(reader, log):
    async def cut(first, count):
        raise UnavailableError("peer-gone", "the link broke")

    log.get_log_entries = cut
    assert reader.code(log) == "peer-gone"
    with pytest.raises(UnavailableError):
        asyncio.run(reader.book.prepare(log, reader.world.federation, log.plan(reader.bench).signed, NEVER))
    assert reader.store.frontier().size == 0


def test_rounds_are_drawn_by_own_entropy_among_those_it_opened(reader, log):
    plan = log.plan(reader.bench)
    reader.open(log, plan)
    log.add("result", digest(b"result"), plan.digest)
    log.add("result", digest(b"other"), digest(b"not mine"))
    reader.draw.value = 7
    reader.follow(log, one_in=20)
    assert reader.store.due_audits() == []
    reader.draw.value = 40
    log.add("result", digest(b"again"), plan.digest)
    reader.follow(log, one_in=20)
    assert [due.result_digest for due in reader.store.due_audits()] == [digest(b"again")]


def test_a_policy_of_none_draws_none(reader, log):
    plan = log.plan(reader.bench)
    reader.open(log, plan)
    log.add("result", digest(b"result"), plan.digest)
    reader.follow(log, one_in=NEVER)
    assert reader.store.due_audits() == []


def test_it_goes_on_where_it_was_after_a_restart(reader, log, world):
    reader.follow(log)
    reader.bench.restart()
    again = Reader(reader.bench, world)
    log.add("result", digest(b"r"), digest(b"p"))
    log.calls.clear()
    assert again.follow(log)
    assert log.calls == [("checkpoint", 5), ("entries", 5, 1)]
    assert again.store.frontier().root() == log.root()


def test_a_log_that_is_read_on_between_proof_and_judgement_refuses_nothing(reader, log):
    plan = log.plan(reader.bench)
    asyncio.run(reader.book.prepare(log, reader.world.federation, plan.signed, NEVER))
    log.add("result", digest(b"r"), digest(b"p"))
    reader.follow(log)
    reader.book.check_plan(plan)


def test_trouble_on_this_machine_is_no_finding_about_the_log(reader, log):
    async def full(log_size, tree_size):
        raise StoreError("store-write", "the disk is full")

    log.get_plan_proof = full
    with pytest.raises(StoreError):
        asyncio.run(reader.book.prepare(log, reader.world.federation, log.plan(reader.bench).signed, NEVER))


def test_a_proof_is_for_one_judgement_only(reader, log):
    plan = log.plan(reader.bench)
    asyncio.run(reader.book.prepare(log, reader.world.federation, plan.signed, ALWAYS))
    reader.book.check_plan(plan)
    with pytest.raises(TrustError):
        reader.book.check_plan(plan)
