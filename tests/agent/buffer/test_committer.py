"""The commit beside the loop: while it waits for the disk everything goes on, and each row is there once, in order."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer import waiting
from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Explanation, Label
from bedside.agent.buffer.turn import PATIENCE_S, Turn
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind

sys.path.insert(0, str(Path(__file__).parent))
from held_disk import ECG, KEY, T0, Device


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "b.db")
    yield made
    made.gate.fails = lambda: False
    made.gate.open.set()
    made.close()


def test_while_a_commit_waits_for_the_disk_everything_is_taken_and_then_stored_once(device) -> None:
    device.say(3)
    device.hold()
    for _ in range(20):
        device.say()
        assert device.committer.flush_due() == 0
        assert device.store.degraded == ""
    assert device.stored() == ([], [], [])
    assert device.let_go() == 5  # 2 whole seconds of signal, 3 records
    assert device.stored()[0] == list(range(10))
    device.settle()
    device.store.close()
    assert device.stored() == device.all()


def label(device: Device) -> None:
    device.store.add_label(ECG, T0, T0 + 1, "walk", "cli")
    with closing(BufferReader(device.path, KEY)) as reader:
        assert [one.label for one in reader.labels(device.session)] == ["walk"]


def many_labels(device: Device) -> None:
    labels = Labels(device.store)
    labels.add([Label(ECG, device.session, T0, T0 + 1, "walk", "cli")])
    assert [one.label for one in labels.page(device.session, 0)] == ["walk"]


def page_of_labels(device: Device) -> None:
    assert Labels(device.store).page(device.session, 0) == []


def session(device: Device) -> None:
    device.store.mark(Mark(ECG, T0 + 10**12, T0 + 10**12, "", "adt", MarkKind.SESSION_OPEN))
    assert device.store.sessions.current(ECG) != device.session


def new_stream(device: Device) -> None:
    device.store.append(Block(StreamId("other"), T0, 50.0, np.zeros((10, 1), np.int32)))


def explanation(device: Device) -> None:
    weights = np.zeros((4, 1), np.float32)
    assert device.store.put_explanation(Explanation(1, device.session, "occlusion", weights))


def gauge(device: Device) -> None:
    assert device.store.bytes > 0


def last_end(device: Device) -> None:
    assert device.store.sessions.last_end_ns(ECG) > T0


def flush(device: Device) -> None:
    device.store.flush()
    assert device.stored() == device.all()


def end(device: Device) -> None:
    device.store.close()
    assert device.stored() == device.all()


OTHERS = [label, many_labels, page_of_labels, session, new_stream, explanation, gauge, last_end, flush, end]


@pytest.mark.parametrize("work", OTHERS, ids=lambda work: work.__name__)
def test_whoever_else_uses_the_file_waits_for_the_commit_that_is_under_way(device, work) -> None:
    device.say(3)
    device.hold()
    device.say(2)
    device.opens_when_asked()
    work(device)
    if work is not end:
        device.settle()
        device.store.close()
    assert device.stored() == device.all()


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_comes_before_the_thread_commits_its_batch_and_the_thread_does_nothing_any_more(device, fails) -> None:
    device.say(3)
    batch = device.store.take_batch()
    assert batch is not None
    device.say(2)
    assert device.store.take_batch() is None  # one at a time
    device.gate.fails = lambda: fails
    with pytest.raises(StoreError) if fails else nullcontext():
        device.store.flush()
    device.gate.fails = lambda: False
    durable = ([], [], []) if fails else device.all()
    assert device.stored() == durable
    device.store.group.write(batch)
    assert device.stored() == durable
    device.store.group.settle(batch)
    device.store.close()
    assert device.stored() == device.all()


def test_what_a_commit_failed_to_write_waits_before_what_came_later(device) -> None:
    device.say(3)
    device.hold()
    device.say(4)
    device.gate.fails = lambda: True
    with pytest.raises(StoreError) as caught:
        device.let_go()
    assert caught.value.code == "store-write"
    assert device.stored() == ([], [], [])
    device.gate.fails = lambda: False
    device.hold()
    device.let_go()
    assert device.stored()[1:] == device.all()[1:]
    device.store.close()
    assert device.stored() == device.all()


def test_what_waits_behind_a_commit_is_bounded_and_what_goes_is_the_oldest_and_counted(device, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_BYTES", 4_000)
    monkeypatch.setattr(waiting, "MAX_WAITING_PREDICTIONS", 10)
    device.say(3)
    device.hold()
    device.say(60)
    device.gate.fails = lambda: True
    with pytest.raises(StoreError):
        device.let_go()
    device.gate.fails = lambda: False
    device.store.close()
    beats, records, predictions = device.stored()
    with closing(BufferReader(device.path, KEY)) as reader:
        gone = reader.counters()
    assert beats == list(range(device.beats))[-len(beats) :]
    assert len(records) + gone["dropped-records"] == device.seconds
    assert len(beats) // 5 + gone["dropped-parts"] == device.seconds
    assert predictions == list(range(device.decided - 9, device.decided + 1))
    assert gone["dropped-predictions"] == device.decided - 10


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_session_that_is_forgotten_during_its_commit_is_gone_and_does_not_come_back(device, fails, begun) -> None:
    device.say(3)
    victim = device.session
    if begun:
        device.hold()
        device.gate.fails = lambda: fails and threading.current_thread() is not threading.main_thread()
    else:
        assert device.store.take_batch() is not None
    device.say(2)
    device.opens_when_asked()
    gone = device.store.forget(victim)
    assert (gone["blobs"], gone["sessions"]) == (4, 1)
    if begun:
        device.settle()
    device.store.close()
    beats, records, predictions = device.stored()
    assert (beats, predictions) == ([], [])
    assert records == device.all()[1]
    assert victim.encode() not in device.path.read_bytes()


def test_a_disk_that_hangs_is_told_of_and_nobody_waits_for_it_any_more(device) -> None:
    store = device.store
    device.say(3)
    device.hold()
    device.clock.at_s += PATIENCE_S
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            device.committer.flush_due()
        assert (caught.value.code, "hangs" in caught.value.sentence) == ("store-write", True)
        device.say()
        for refused in (
            lambda: store.add_label(ECG, T0, T0 + 1, "walk", "cli"),
            lambda: store.forget("no session"),
            store.flush,
            store.close,
        ):
            with pytest.raises(StoreError) as caught:
                refused()
            assert caught.value.code == "store-write"
    device.let_go()
    device.say(2)
    device.hold()
    device.opens_when_asked()
    label(device)  # which waits again
    device.settle()
    store.close()
    assert device.stored() == device.all()


def test_a_turn_may_be_taken_again_by_its_holder_and_by_others_when_it_has_ended() -> None:
    turn, refused = Turn(patience_s=0.0), []

    def other() -> None:
        try:
            with turn:
                refused.append("")
        except StoreError as error:
            refused.append(error.code)

    for holds in (True, False):
        thread = threading.Thread(target=other)
        if holds:
            with turn, turn:
                thread.start()
                thread.join()
        else:
            thread.start()
            thread.join()
    assert refused == ["store-write", ""]


@pytest.mark.parametrize("seed", range(6))
def test_on_a_disk_that_often_fails_every_row_is_there_once_and_in_order(device, seed) -> None:
    rng, failures = random.Random(seed), []

    def fails() -> bool:
        failures.append(1)
        return rng.random() < 0.4

    device.say()
    device.store.flush()
    device.gate.fails = fails
    labels = 0
    for _ in range(150):
        what = rng.choice(("say", "say", "say", "commit", "commit", "settle", "label", "flush"))
        with suppress(StoreError):
            if what == "say":
                device.say()
            elif what == "commit":
                device.committer.flush_due()
            elif what == "settle":
                device.settle()
            elif what == "label":
                device.store.add_label(ECG, T0, T0 + 1, "walk", "cli")
                labels += 1
            else:
                device.store.flush()
        assert device.holes() == 0  # nothing is durable before what came earlier
    device.gate.fails = lambda: False
    device.store.close()
    assert device.stored() == device.all()
    with closing(BufferReader(device.path, KEY)) as reader:
        assert len(reader.labels(device.session)) == labels
        assert reader.counters() == {}
    assert len(failures) > 20
