"""Sessions of a stream: what begins by itself, whose refusal it takes over, and what a session by hand waits for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.session_ids import is_held_out
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.service.platform import SystemEntropy

KEY = bytes(range(32))
ECG = StreamId("ecg")
T0 = 1_700_000_000_000_000_000
S = 1_000_000_000
GAP_S = 60


class HandClock:
    def now_ns(self) -> int:
        return T0

    def monotonic_s(self) -> float:
        return 0.0


class Ward:
    """One store that a test may restart, and its sessions as they are in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = self.open()

    def open(self, *, consent: bool = True) -> BufferStore:
        return BufferStore(self.path, KEY, HandClock(), SystemEntropy(), gap_s=GAP_S, consent_training=consent)

    def restart(self, *, consent: bool = True) -> None:
        self.store.close()
        self.store = self.open(consent=consent)

    def signal(self, start_s: float) -> Session:
        """A second of signal; returns its session."""
        values = np.ones((250, 1), np.int16)
        session = self.store.append(Block(ECG, T0 + round(start_s * S), 250.0, values, unit="mV", metric="", scale=1))
        return next(one for one in self.sessions() if one.session == session)

    def mark(self, at_s: float, what: MarkKind) -> None:
        self.store.mark(Mark(ECG, T0 + at_s * S, T0 + at_s * S, "", "replay", what))

    def sessions(self) -> list[Session]:
        reader = BufferReader(self.path, KEY)
        try:
            return reader.sessions(ECG)
        finally:
            reader.close()

    def say(self, at_s: float, *, consent: bool | None) -> Session:
        self.store.sessions.open(ECG, T0 + round(at_s * S), "cli", consent_training=consent)
        return self.sessions()[-1]


@pytest.fixture
def ward(tmp_path):
    made = Ward(tmp_path / "buffer.db")
    yield made
    made.store.close()


@pytest.fixture
def refused(ward) -> Ward:
    """A stream whose session was opened without consent, and has signal."""
    ward.signal(0)
    ward.say(1, consent=False)
    assert not ward.signal(1).consent_training
    return ward


def after_a_close(ward: Ward) -> None:
    ward.store.sessions.close(ECG, T0 + 2 * S)


def after_a_gap_and_a_restart(ward: Ward) -> None:
    ward.signal(1 + 2 * GAP_S)
    ward.restart()


def by_a_mark(ward: Ward) -> None:
    ward.mark(2, MarkKind.SESSION_OPEN)


def after_a_close_and_a_restart(ward: Ward) -> None:
    ward.mark(2, MarkKind.SESSION_CLOSE)
    ward.restart()


def after_erasure(ward: Ward) -> None:
    ward.store.forget(ward.sessions()[-1].session)


def after_erasure_of_everything(ward: Ward) -> None:
    for one in ward.sessions():
        ward.store.forget(one.session)
    ward.restart()


def on_a_full_disk(ward: Ward) -> None:
    ward.store.ahead.open(ECG, T0 + 2 * S, "adt")
    ward.store.ahead.settle(now=True)


@pytest.mark.parametrize(
    "begin",
    [
        after_a_close,
        after_a_gap_and_a_restart,
        after_a_close_and_a_restart,
        by_a_mark,
        after_erasure,
        after_erasure_of_everything,
        on_a_full_disk,
    ],
)
def test_what_begins_without_a_say_takes_a_refusal_over_until_somebody_consents(refused, begin) -> None:
    before = refused.sessions()[-1]
    begin(refused)
    after = refused.signal(400)
    assert after.session != before.session
    assert not after.consent_training
    assert not refused.say(402, consent=None).consent_training, "who opens one and says nothing changes nothing"
    refused.say(403, consent=True)
    refused.signal(404)
    refused.mark(406, MarkKind.SESSION_CLOSE)
    assert refused.signal(407).consent_training


def test_consent_given_to_the_open_session_holds_for_those_that_follow(refused) -> None:
    refused.store.sessions.set_consent(refused.sessions()[-1].session, training=True)
    after_a_close(refused)
    assert refused.signal(3).consent_training


def test_consent_withdrawn_holds_for_those_that_follow_and_an_older_sessions_is_its_own(ward) -> None:
    first, second = ward.signal(0), ward.signal(200)
    ward.store.sessions.set_consent(first.session, training=False)
    assert ward.signal(400).consent_training
    assert ward.store.sessions.set_consent(ward.sessions()[-1].session, training=False)
    assert not ward.signal(600).consent_training
    ward.store.sessions.set_consent(second.session, training=True)
    assert not ward.signal(800).consent_training


def test_consent_given_to_whoever_was_there_before_is_not_for_whom_was_erased(refused) -> None:
    after_erasure(refused)
    after_a_close(refused)
    refused.store.sessions.set_consent(refused.sessions()[0].session, training=True)
    assert not refused.signal(400).consent_training


def test_consent_is_not_taken_over_where_the_default_is_no(ward) -> None:
    ward.restart(consent=False)
    assert ward.say(0, consent=True).consent_training
    ward.signal(0)
    after_a_close(ward)
    assert not ward.signal(3).consent_training


def test_a_session_after_a_close_says_so(ward) -> None:
    ward.signal(0)
    ward.signal(200)
    after_a_close(ward)
    ward.signal(202)
    after_a_close(ward)
    ward.restart()
    ward.signal(204)
    assert [one.origin for one in ward.sessions()] == ["gap", "gap", "after-close", "after-close"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_session_by_hand_waits_for_its_signal(ward, restarts) -> None:
    opened = ward.say(0, consent=False)
    if restarts:
        ward.restart()
    ward.mark(3 * GAP_S, MarkKind.SESSION_CLOSE)
    ward.mark(3 * GAP_S, MarkKind.SESSION_OPEN)
    assert ward.signal(3 * GAP_S).session == opened.session
    assert [one.closed_ns for one in ward.sessions()] == [None]
    ward.mark(3 * GAP_S + 1, MarkKind.SESSION_OPEN)
    assert ward.signal(3 * GAP_S + 1).session != opened.session, "it has had its signal"


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("opened_s", [30 * 86_400, 5_000_000_000])
def test_a_session_by_hand_begins_with_its_signal_wherever_the_clock_stood(ward, opened_s, restarts) -> None:
    opened = ward.say(opened_s, consent=False)
    if restarts:
        ward.restart()
    assert ward.signal(0).session == opened.session
    assert [(one.opened_ns, one.consent_training) for one in ward.sessions()] == [(T0, False)]
    assert ward.store.sessions.last_end_ns(ECG) == T0 + S
    assert ward.signal(1).session == opened.session
    assert ward.signal(2 + GAP_S + 1).session != opened.session, "it waits once"


@pytest.mark.parametrize("restarts", [False, True])
def test_a_session_by_hand_waits_a_day_and_what_it_refused_stays_refused(ward, restarts) -> None:
    opened = ward.say(-86_401, consent=False)
    if restarts:
        ward.restart()
    later = ward.signal(0)
    assert later.session != opened.session
    assert not later.consent_training


def test_a_session_by_hand_without_signal_closes_where_the_clock_is_right_again(ward) -> None:
    ward.say(5_000_000_000, consent=None)
    ward.store.sessions.close(ECG, T0)
    ward.say(5_000_000_000, consent=None)
    ward.store.sessions.open(ECG, T0 + S, "cli")
    assert [one.closed_ns for one in ward.sessions()] == [T0, T0 + S, None]


def test_signal_time_does_not_go_on_where_a_wrong_clock_left_it(ward) -> None:
    first = ward.signal(0)
    ward.store.sessions.close(ECG, T0 + 5_000_000_000 * S)
    assert ward.store.sessions.last_end_ns(ECG, T0 + 86_400 * S) == 0
    ward.store.flush()
    assert ward.store.sessions.mend_ends(T0 + 86_400 * S) == 1
    assert [(one.session, one.closed_ns) for one in ward.sessions()] == [(first.session, T0 + S)]
    assert ward.store.sessions.mend_ends(T0 + 86_400 * S) == 0
    assert ward.store.sessions.last_end_ns(ECG, T0 + 86_400 * S) == T0 + S


def test_on_a_full_disk_a_session_by_hand_is_the_one_that_a_source_begins(ward) -> None:
    opened = ward.say(0, consent=None)
    ward.store.ahead.close(ECG, T0)
    ward.store.ahead.open(ECG, T0 + S, "replay")
    assert ward.store.ahead.of(ECG, T0 + S, T0 + 2 * S) == opened.session
    assert not ward.store.ahead.waits(ECG)


def test_a_stream_has_a_session_to_train_on_before_one_is_held_out(ward):
    for number in range(60):  # of a device whose sessions are drawn at random each would be held out once in ten
        stream = StreamId(f"bed-{number}")
        refused = ward.store.sessions.open(stream, T0, "cli", consent_training=False)
        first = ward.store.sessions.open(stream, T0 + S, "cli", consent_training=True)
        assert not is_held_out(first), refused


def test_about_one_session_in_ten_is_held_out_after_the_first(ward):
    drawn = [ward.store.sessions.open(ECG, T0 + number * S, "cli") for number in range(400)]
    assert 15 < sum(map(is_held_out, drawn)) < 80
