"""One sink's loop: what it does with a sink that hangs, breaks or refuses, and with what is erased meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from bedside.agent.buffer.deliveries import Delivery
from bedside.agent.buffer.outgoing import OutgoingReader
from bedside.agent.config import BUFFER_NAME, SinkConfig
from bedside.agent.sinks import engine as engine_module
from bedside.agent.sinks import registry
from bedside.agent.sinks.kind import AwayError, NotTakenError, SinkKind, SinkOptions
from bedside.agent.sinks.outgoing import Outgoing
from bedside.agent.sinks.queue import Queue
from bedside.agent.sinks.schedule import Schedule
from bedside.core.errors import UnavailableError
from ward import BEGAN_NS, KEYS, S, Ward, sink


class Scripted:
    """A sink that does what a test says, in its own thread."""

    batch_rows = 10

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.does = lambda _batch: None
        self.closed = 0

    async def send(self, batch: Sequence[Outgoing]) -> None:
        done = self.does(batch)
        if done is not None:
            await done
        self.sent += [one.body.label for one in batch]

    async def close(self) -> None:
        self.closed += 1

    def preview(self, batch: Sequence[Outgoing]) -> str:
        return str(len(batch))


@pytest.fixture
def scripted(monkeypatch):
    """The kind `scripted`, as another package would bring it."""
    made = Scripted()
    point = SimpleNamespace(
        name="scripted", value="elsewhere:KIND", load=lambda: SinkKind(SinkOptions, lambda _options, _context: made)
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "bedside.sinks" else [])
    return made


async def test_a_kind_of_another_package_is_found_by_its_entry_point(ward, scripted) -> None:
    assert "scripted" in registry.KINDS.names()
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: scripted.sent == ["a"])
    await ward.end()
    ward.open()
    assert scripted.closed == 1


async def test_a_sink_that_hangs_in_a_call_delays_neither_the_loop_nor_the_end(ward, scripted, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "STOP_S", 0.05)
    release, began = threading.Event(), threading.Event()

    def hang(_batch) -> None:
        began.set()
        release.wait(20)

    scripted.does = hang
    engine = ward.begin(
        sink("scripted"), SinkConfig(kind="csv", name="files", options={"directory": "f", "within_s": 0.05})
    )
    ward.predict("a")
    await ward.until(began.is_set)
    await ward.until(lambda: ward.facts("files").sent == 1)
    assert ward.facts().state == "sending"
    before_s = time.monotonic()
    await engine.stop()
    assert time.monotonic() - before_s < 10, "the end waited for it"
    assert not release.is_set()
    release.set()


async def test_whoever_wants_something_sent_at_once_is_told_when_nothing_goes_out(ward, scripted, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "STOP_S", 0.05)
    monkeypatch.setattr(engine_module, "STALL_S", 0.1)
    release, began = threading.Event(), threading.Event()

    def hang(_batch) -> None:
        began.set()
        release.wait(20)

    scripted.does = hang
    engine = ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(began.is_set)
    with pytest.raises(UnavailableError, match="sink-stalled"):
        await engine.send_now("out", None)
    release.set()


async def test_one_that_waits_for_ever_is_given_up_and_tried_again(ward, scripted, monkeypatch) -> None:
    monkeypatch.setattr("bedside.agent.sinks.runner.SEND_TIMEOUT_S", 0.05)
    scripted.does = lambda _batch: asyncio.get_running_loop().create_future()
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: ward.facts().errors == 2)
    assert "TimeoutError" in ward.facts().last_error
    scripted.does = lambda _batch: None
    await ward.until(lambda: scripted.sent == ["a"])


async def test_a_sink_that_raises_anything_is_tried_again(ward, scripted) -> None:
    failures: list[BaseException] = [ZeroDivisionError("x"), AwayError("sink-status", "no"), OSError(5, "io")]

    def fail(_batch) -> None:
        if failures:
            raise failures.pop()

    scripted.does = fail
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: scripted.sent == ["a"])
    assert ward.facts().errors == 3
    assert ward.facts().refused == 0


async def test_a_receiver_that_refuses_everything_costs_few_rows(ward, scripted, monkeypatch) -> None:
    """The distance between tries grows over rows that are refused, and only a row that is taken resets it."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    def refuse(_batch) -> None:
        raise NotTakenError("sink-refused", "never")

    real = engine_module.Runner
    monkeypatch.setattr(engine_module, "Runner", lambda *a, **k: real(*a, **k, sleep=sleep))
    monkeypatch.setattr("bedside.agent.sinks.runner.MAX_BACKOFF_S", 60.0)
    monkeypatch.setattr("bedside.agent.sinks.runner.FIRST_BACKOFF_S", 1.0)
    scripted.does = refuse
    ward.begin(sink("scripted", within_s=0.5))
    for _ in range(6):
        ward.predict("x")
    await ward.until(lambda: ward.facts().refused >= 4)
    backoffs = [wait for wait in waits if wait >= 0.5]
    assert max(backoffs) >= 30


async def test_what_is_erased_between_reading_and_sending_is_not_sent(ward, scripted, monkeypatch) -> None:
    ward.begin()
    other = ward.buffer.sessions.open("bed-5-ecg", BEGAN_NS, "cli")
    read = Queue.next_batch

    def erased_meanwhile(queue, limit):
        batch = read(queue, limit)
        if batch is not None:
            ward.buffer.erased.add(other)
        return batch

    monkeypatch.setattr(Queue, "next_batch", erased_meanwhile)
    await ward.engine.stop()
    ward.begin(sink("scripted"))
    ward.predict("kept")
    ward.predict("erased", session=other)
    ward.predict("kept")
    await ward.until(lambda: ward.facts().sent == 2)
    assert scripted.sent == ["kept", "kept"]


async def test_memory_holds_no_rows_while_a_receiver_is_away(ward, scripted) -> None:
    """After a failure the rows are read again: what was erased is not among them."""
    seen: list[list[str]] = []

    def away(batch) -> None:
        seen.append([one.body.label for one in batch])
        raise AwayError("sink-unreachable", "away")

    scripted.does = away
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: seen)
    ward.buffer.forget(ward.session)
    tries = len(seen)
    ward.session = ward.buffer.sessions.open("bed-4-ecg", BEGAN_NS, "cli")
    ward.predict("b")
    await ward.until(lambda: len(seen) > tries + 2)
    assert seen[-1] == ["b"]


async def test_the_cursor_rides_the_group_commit(ward, scripted) -> None:
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: scripted.sent)
    waiting = ward.buffer.group
    await ward.until(lambda: any(one.number == 1 for one in waiting.waiting.deliveries.values()))
    stored = "SELECT number FROM deliveries WHERE what = 'predictions'"
    assert ward.buffer.database.row(stored)[0] == 0
    ward.buffer.flush()
    assert ward.buffer.database.row(stored)[0] == 1


async def test_a_commit_that_fails_keeps_the_newest_word_of_a_sink(ward, scripted) -> None:
    ward.begin(sink("scripted"))
    for label in ("a", "b"):
        ward.predict(label)
        await ward.until(lambda label=label: scripted.sent[-1:] == [label])
    batch = ward.buffer.group.begin()
    batch.waiting.add_delivery(Delivery("out", "predictions", 1), 0.0)
    ward.buffer.group.waiting.add_delivery(Delivery("out", "predictions", 2), 0.0)
    batch.ended = True
    ward.buffer.group.settle(batch)
    assert ward.buffer.group.waiting.deliveries["out", "predictions"].number == 2


def test_times_of_day_are_those_of_the_ward_also_when_summer_time_begins() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    schedule = Schedule("out", 0.0, ["18:00", "06:00"], "Europe/Berlin")

    def due(text: str) -> str:
        after_ns = int(datetime.fromisoformat(text).replace(tzinfo=berlin).timestamp()) * S
        return datetime.fromtimestamp(schedule.next_ns(after_ns) // S, berlin).isoformat()

    assert due("2026-03-28T05:59:59") == "2026-03-28T06:00:00+01:00"
    assert due("2026-03-28T06:00:00") == "2026-03-28T18:00:00+01:00"
    assert due("2026-03-28T18:00:00") == "2026-03-29T06:00:00+02:00"
    assert due("2026-10-25T00:30:00") == "2026-10-25T06:00:00+01:00"


def test_an_interval_counts_from_when_it_was_worked_off() -> None:
    assert Schedule("out", 60.0).next_ns(BEGAN_NS) == BEGAN_NS + 60 * S


async def test_salvage_keeps_the_cursors_and_the_numbers(ward, scripted, tmp_path) -> None:
    """A damaged page of signal costs that, and sends nothing twice or never."""
    ward.begin(sink("scripted"))
    ward.predict("a")
    await ward.until(lambda: scripted.sent == ["a"])
    ward.buffer.flush()
    await ward.end()
    path = tmp_path / BUFFER_NAME
    data = bytearray(path.read_bytes())
    at = data.index(b"CREATE TABLE blobs") + 8
    data[at] ^= 1
    path.write_bytes(data)
    ward.open()
    assert ward.buffer.salvage is not None
    ward.begin(sink("scripted"))
    ward.predict("b")
    await ward.until(lambda: scripted.sent == ["a", "b"])


def test_a_reader_of_outgoing_rows_skips_a_damaged_one(tmp_path) -> None:
    ward = Ward(tmp_path)
    for label in ("a", "b", "c"):
        ward.predict(label)
    connection = ward.buffer.database.connection
    connection.execute("DROP TRIGGER predictions_changed")
    connection.execute("UPDATE predictions SET label = 'x' WHERE id = 2")
    options = SinkOptions(name="out", send=("predictions",))
    reader = OutgoingReader(tmp_path / BUFFER_NAME, KEYS)
    batch = Queue(options, {"predictions": Delivery("out", "predictions", 0)}, reader, "d").next_batch(10)
    assert [one.body.label for one in batch.items] == ["a", "c"]
    reader.close()
    ward.buffer.database.close()
