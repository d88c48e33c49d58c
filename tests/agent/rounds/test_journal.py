"""The journal rule: one contribution per plan and round, and bytes that never change."""

from __future__ import annotations

import pytest

from bedside.agent.rounds.journal import Contribution, Journal, KeptRow, OutboxRow
from bedside.agent.rounds.memory import ChainPoint, RoundPoint, Seen, TrusteePin
from bedside.agent.rounds.outbox import Outbox
from bedside.core.securesum.device import ContributionInput, ContributionState

H, OTHER = b"h" * 32, b"o" * 32
NAME = Outbox.name_for(H)
ROW = OutboxRow(H, b"signed header", NAME, 5)
KEPT = KeptRow(H, Outbox.kept_name_for(H))


def plan(
    digest: bytes = H, round_number: int = 1, state: ContributionState = ContributionState.TRAINING
) -> Contribution:
    return Contribution(digest, "watch", round_number, state, b"offer", "", "")


@pytest.fixture
def journal(tmp_path):
    opened = Journal.open(tmp_path)
    yield opened
    opened.close()


def reopened(journal: Journal, tmp_path) -> Journal:
    journal.close()
    return Journal.open(tmp_path)


def test_a_round_of_a_task_gets_one_contribution(journal, refusal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    assert refusal(lambda: journal.accept(plan(OTHER), Seen(), now_ns=2)) == "contributed-before"
    assert journal.find(OTHER) is None
    journal.accept(plan(OTHER, round_number=2), Seen(), now_ns=3)


def test_a_refused_second_plan_leaves_no_trace_of_what_it_showed(journal, refusal) -> None:
    journal.accept(plan(), Seen(federation_version=1), now_ns=1)
    refusal(lambda: journal.accept(plan(OTHER), Seen(federation_version=9), now_ns=2))
    assert journal.seen().federation_version == 1


def test_a_declined_plan_does_not_use_its_round_up(journal) -> None:
    journal.refuse(plan(OTHER, state=ContributionState.DECLINED), b"refusal", None, now_ns=1)
    journal.accept(plan(), Seen(), now_ns=2)
    assert journal.unsent_refusals() == [(OTHER, b"refusal")]
    journal.refusal_sent(OTHER)
    assert journal.unsent_refusals() == []


def test_the_pinned_trustee_survives_a_restart_and_has_one_successor(journal, tmp_path) -> None:
    for pin in (TrusteePin("t-1", H), TrusteePin("t-2", OTHER)):
        journal.remember(Seen(trustee=pin))
        assert journal.seen().trustee == pin
    again = reopened(journal, tmp_path)
    assert again.seen().trustee == TrusteePin("t-2", OTHER)
    again.close()


def test_declined_plans_are_forgotten_in_time_and_contributions_never(journal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.refuse(plan(OTHER, state=ContributionState.DECLINED), b"still to be sent", None, now_ns=1)
    for number in range(400):
        declined = plan(number.to_bytes(32, "big"), state=ContributionState.DECLINED)
        journal.refuse(declined, b"refusal", None, now_ns=1)
        journal.refusal_sent(declined.plan_digest)
    kept = [number for number in range(400) if journal.find(number.to_bytes(32, "big")) is not None]
    assert kept == list(range(400 - 256, 400))
    assert journal.find(H) is not None
    assert journal.find(OTHER) is not None


def test_an_upload_is_committed_once(journal, refusal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    again = OutboxRow(H, b"another header", NAME, 5)
    assert refusal(lambda: journal.commit_upload(again, KEPT, None, now_ns=3)) == "bad-transition"
    assert journal.outbox(H) == ROW


def test_an_upload_without_an_accepted_plan_is_refused(journal, refusal) -> None:
    assert refusal(lambda: journal.commit_upload(ROW, KEPT, None, now_ns=1)) == "no-contribution"


def test_header_and_bytes_are_the_same_after_a_restart(journal, tmp_path) -> None:
    outbox = Outbox(tmp_path)
    (outbox.directory / NAME).write_bytes(b"words")
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    again, outbox = reopened(journal, tmp_path), Outbox(tmp_path)
    assert outbox.remove_orphans(again) == []
    assert again.outbox(H) == ROW
    assert outbox.path_of(ROW).read_bytes() == b"words"
    assert [item.state for item in again.open_contributions()] == [ContributionState.READY]
    again.close()


def test_a_file_that_no_row_names_goes_at_start(journal, tmp_path) -> None:
    outbox = Outbox(tmp_path)
    journal.accept(plan(), Seen(), now_ns=1)  # the child had written its words, and then the power went
    (outbox.directory / NAME).write_bytes(b"words")
    assert outbox.remove_orphans(journal) == [NAME]
    assert list(outbox.directory.iterdir()) == []


def test_the_file_of_an_acknowledged_upload_is_an_orphan_and_its_header_is_not(journal, tmp_path) -> None:
    outbox = Outbox(tmp_path)
    (outbox.directory / NAME).write_bytes(b"words")
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    journal.mark_sent(H, now_ns=3)
    assert outbox.remove_orphans(journal) == [NAME]
    assert journal.outbox(H) == ROW  # the receipt is compared with it


def test_a_receipt_ends_a_contribution_once_and_for_all(journal, refusal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    journal.mark_sent(H, now_ns=3)
    journal.finish(H, ContributionInput.RECEIPT_IN, now_ns=4)
    assert (journal.outbox(H), journal.open_contributions()) == (None, [])
    assert journal.find(H).state is ContributionState.COUNTED
    assert refusal(lambda: journal.finish(H, ContributionInput.CLOSED, now_ns=5)) == "bad-transition"
    assert refusal(lambda: journal.accept(plan(OTHER), Seen(), now_ns=6)) == "contributed-before"


@pytest.mark.parametrize("word", [ContributionInput.RECEIPT_OUT, ContributionInput.BURNED])
def test_a_delta_that_was_given_back_is_used_once(journal, refusal, word) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    assert journal.freed("watch") is None, "nobody gave it back"
    journal.finish(H, word, now_ns=3)
    freed = journal.freed("watch")
    assert freed == KEPT
    journal.accept(plan(OTHER, round_number=2), Seen(), now_ns=4)
    row = OutboxRow(OTHER, b"header", Outbox.name_for(OTHER), 5)
    journal.commit_upload(row, KeptRow(OTHER, freed.file), freed, now_ns=5)
    assert journal.freed("watch") is None
    assert journal.kept(H) is None
    assert journal.kept(OTHER) == KeptRow(OTHER, freed.file)
    assert journal.find(H).state is ContributionState.DROPPED
    assert refusal(lambda: journal.finish(H, ContributionInput.REUSED, now_ns=6)) == "bad-transition"


@pytest.mark.parametrize("word", [ContributionInput.RECEIPT_IN, ContributionInput.CLOSED])
def test_a_delta_that_may_have_been_used_is_gone(journal, tmp_path, word) -> None:
    outbox = Outbox(tmp_path)
    (outbox.directory / KEPT.file).write_bytes(b"sealed")
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    assert outbox.remove_orphans(journal) == []
    journal.finish(H, word, now_ns=3)
    assert (journal.freed("watch"), journal.kept(H)) == (None, None)
    assert outbox.remove_orphans(journal) == [KEPT.file]


def test_the_coordinators_word_alone_frees_nothing(journal, refusal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    journal.turn_away(H, now_ns=3, code="round-closed", sentence="too late")
    assert journal.freed("watch") is None
    assert [item.state for item in journal.open_contributions()] == [ContributionState.AWAITING]
    assert refusal(lambda: journal.finish(H, ContributionInput.REUSED, now_ns=4)) == "bad-transition"
    journal.finish(H, ContributionInput.RECEIPT_OUT, now_ns=5)
    assert journal.freed("watch") == KEPT


def test_a_trained_delta_ends_the_freedom_of_an_older_one(journal) -> None:
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    journal.finish(H, ContributionInput.BURNED, now_ns=3)
    journal.accept(plan(OTHER, round_number=2), Seen(), now_ns=4)
    row = OutboxRow(OTHER, b"header", Outbox.name_for(OTHER), 5)
    journal.commit_upload(row, KeptRow(OTHER, Outbox.kept_name_for(OTHER)), journal.freed("watch"), now_ns=5)
    assert journal.freed("watch") is None
    assert journal.outbox_files() == {row.file, Outbox.kept_name_for(OTHER)}


def test_everything_seen_is_there_after_a_restart(journal, tmp_path) -> None:
    seen = Seen(
        federation_version=3,
        log_size=7,
        log_root=b"l" * 32,
        rosters={"alder": 2, "birch": 5},
        rounds={"watch": RoundPoint(4, H)},
        chains={"trustee-1": ChainPoint(9, OTHER)},
        results={"watch": 3},
    )
    journal.remember(seen)
    again = reopened(journal, tmp_path)
    assert again.seen() == seen
    again.close()


def test_when_a_session_is_erased_every_kept_delta_goes_and_what_is_to_be_sent_stays(journal, tmp_path) -> None:
    assert journal.drop_kept(now_ns=1) == []
    journal.accept(plan(), Seen(), now_ns=1)
    journal.commit_upload(ROW, KEPT, None, now_ns=2)
    journal.finish(H, ContributionInput.BURNED, now_ns=3)
    journal.accept(plan(OTHER, round_number=2), Seen(), now_ns=4)
    row, kept = OutboxRow(OTHER, b"header", Outbox.name_for(OTHER), 5), KeptRow(OTHER, Outbox.kept_name_for(OTHER))
    third = b"3" * 32
    journal.accept(Contribution(third, "other", 1, ContributionState.TRAINING, b"offer", "", ""), Seen(), now_ns=4)
    journal.commit_upload(
        OutboxRow(third, b"h", Outbox.name_for(third), 5), KeptRow(third, "third.kept"), None, now_ns=5
    )
    assert journal.erasures() == 1
    assert set(journal.drop_kept(now_ns=6)) == {KEPT.file, "third.kept"}
    assert journal.erasures() == 2
    assert (journal.freed("watch"), journal.kept(third)) == (None, None)
    assert journal.find(H).state is ContributionState.DROPPED
    assert journal.outbox_files() == {Outbox.name_for(third)}
    journal.commit_upload(row, kept, None, now_ns=7)
    journal.finish(third, ContributionInput.RECEIPT_OUT, now_ns=8)
    assert journal.freed("other") is None, "the word of the trustee gives back what is not there"
    assert reopened(journal, tmp_path).erasures() == 2
