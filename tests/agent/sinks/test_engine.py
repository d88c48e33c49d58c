"""Sinks at work on a real buffer and a real server: at least once, once by id, in four modes, and nothing else."""

from __future__ import annotations

import asyncio
import csv
import threading

import msgspec
import pytest

from bedside.agent.alarms.machine import Happens
from bedside.agent.buffer.deliveries import take_up_deliveries
from bedside.agent.sinks import engine as engine_module
from bedside.agent.sinks import runner as runner_module
from bedside.agent.sinks.runner import REFUSED_TRIES
from bedside.core.errors import ConfigError, ProtocolError
from ward import BEGAN_NS, S, sink


def hook(receiver, **options):
    return sink("webhook", url=receiver.url, **options)


def keys(items) -> list[str]:
    return [f"{item['kind']}-{item['number']}" for item in items]


async def test_what_is_decided_goes_out_once_and_in_order(ward, receiver) -> None:
    ward.begin(hook(receiver, subjects={"bed-4-ecg": "Location/bed-4"}))
    for _ in range(5):
        ward.predict()
    await ward.until(lambda: len(receiver.items()) >= 5)
    await ward.until(lambda: ward.facts().state == "idle")
    assert keys(receiver.items()) == [f"prediction-{number}" for number in range(1, 6)]
    first = receiver.items()[0]
    assert (first["label"], first["stream"], first["subject"]) == ("fall", "bed-4-ecg", "Location/bed-4")
    facts = ward.facts()
    assert (facts.sent, facts.waiting, facts.errors, facts.state) == (5, 0, 0, "idle")
    assert facts.last_sent_age_ms is not None


async def test_no_session_leaves(ward, receiver) -> None:
    ward.begin(hook(receiver, send=["alarms", "predictions", "records"], streams=["bed-4-ecg", "bed-4-vitals"]))
    ward.predict()
    ward.raise_alarm()
    ward.record()
    await ward.until(lambda: len(receiver.items()) == 3)
    everything = b"".join(body for _, _, _, body in receiver.requests).decode()
    assert ward.session not in everything
    assert ward.vitals not in everything


async def test_without_a_sink_there_is_no_thread_and_nothing_is_noted(ward) -> None:
    before = threading.active_count()
    engine = ward.begin()
    ward.predict()
    assert threading.active_count() == before
    assert engine.facts() == []
    assert ward.buffer.database.rows("SELECT * FROM deliveries") == []


async def test_a_new_sink_begins_at_the_present(ward, receiver) -> None:
    ward.predict()
    ward.begin(hook(receiver))
    ward.predict()
    await ward.until(receiver.items)
    assert keys(receiver.items()) == ["prediction-2"]


@pytest.mark.parametrize("fault", [500, 503, 429, 401, 403, 404, 408, 302, "cut"])
async def test_a_receiver_that_fails_gets_everything_when_it_is_back(ward, receiver, fault) -> None:
    receiver.answers = [fault, fault]
    ward.begin(hook(receiver))
    ward.predict()
    await ward.until(lambda: len(receiver.requests) == 3)
    await ward.until(lambda: ward.facts().state == "idle")
    assert {item["message_id"] for item in receiver.items()} == {receiver.items()[0]["message_id"]}
    facts = ward.facts()
    assert (facts.sent, facts.refused, facts.errors) == (1, 0, 2)
    assert "sink-" in facts.last_error


async def test_a_receiver_may_say_when_to_come_again(ward, receiver, monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_AFTER_S", 0.2)
    receiver.headers, receiver.answers = {"Retry-After": "3600"}, [503]
    ward.begin(hook(receiver))
    ward.predict()
    await ward.until(lambda: ward.facts().errors == 1)
    asked_s = ward.clock.monotonic_s()
    await ward.until(lambda: len(receiver.requests) == 2)
    assert ward.clock.monotonic_s() - asked_s > 0.1


async def test_a_receiver_that_hangs_is_left_and_one_that_was_away_gets_all(ward, receiver) -> None:
    receiver.answers = ["hang"]
    ward.begin(hook(receiver, timeout_s=0.2))
    ward.predict()
    await ward.until(lambda: ward.facts().errors >= 1)
    receiver.stop()
    for _ in range(3):
        ward.predict()
    await ward.until(lambda: "does not answer" in ward.facts().last_error)
    await ward.until(lambda: ward.facts().waiting == 4 and ward.facts().state == "waiting")
    before_s = ward.facts().stalled_s
    await ward.until(lambda: ward.facts().stalled_s > before_s > 0)
    receiver.requests.clear()
    receiver.start()
    await ward.until(lambda: len(receiver.items()) >= 4)
    assert keys(receiver.items()) == [f"prediction-{number}" for number in range(1, 5)]
    await ward.until(lambda: ward.facts().stalled_s == 0)
    assert ward.facts().left_out_age_s is None


async def test_a_sink_that_fails_disturbs_no_other(ward, receiver, tmp_path) -> None:
    bad = sink("webhook", url="http://127.0.0.1:1/")
    good = sink("csv", directory="files")
    ward.begin(bad, type(good)(kind="csv", name="files", options=good.options))
    ward.predict()
    await ward.until(lambda: ward.facts("files").sent == 1)
    await ward.until(lambda: ward.facts("out").errors > 1)
    assert ward.facts("out").sent == 0
    assert (tmp_path / "files" / "predictions.csv").read_text().count("\n") == 2


async def test_a_row_that_is_refused_is_counted_and_blocks_nobody(ward, receiver) -> None:
    receiver.refuse = lambda body: b"poison" in body
    ward.begin(hook(receiver))
    ward.buffer.flush()
    labels = ["a", "b", "poison", "c", "d"]
    for label in labels:
        ward.predict(label)
    await ward.until(lambda: ward.facts().sent == 4)
    facts = ward.facts()
    assert (facts.sent, facts.refused, facts.waiting) == (4, 1, 0)
    assert "422" in facts.last_error
    alone = [body for body in receiver.bodies() if [item["label"] for item in body["items"]] == ["poison"]]
    assert len(alone) == REFUSED_TRIES


async def test_rows_beyond_the_cap_are_skipped_oldest_first_and_counted_for_ever(ward, receiver) -> None:
    receiver.always = 503
    config = hook(receiver, max_waiting=3)
    ward.begin(config)
    for _ in range(10):
        ward.predict()
    await ward.until(lambda: ward.facts().skipped == 7)
    await ward.end()
    receiver.requests.clear()
    receiver.always = 200
    ward.open()
    ward.begin(config)
    await ward.until(lambda: ward.facts().sent == 3)
    assert keys(receiver.items()) == ["prediction-8", "prediction-9", "prediction-10"]
    assert ward.facts().skipped == 7


async def test_after_a_kill_what_was_not_noted_comes_again_with_the_same_ids(ward, receiver) -> None:
    config = hook(receiver)
    ward.begin(config)
    for _ in range(4):
        ward.predict()
    alarm = ward.raise_alarm()
    await ward.until(lambda: len(receiver.items()) >= 5)
    await ward.end(kill=True)
    ward.open()
    ward.begin(config)
    ward.predict()
    ward.change(alarm, Happens.CLEAR)
    await ward.until(lambda: {"prediction-5", "alarm-2"} <= set(keys(receiver.items())))
    by_id = {item["message_id"]: keys([item])[0] for item in receiver.items()}
    assert len(receiver.items()) > 7, "nothing came again: the kill was none"
    assert sorted(by_id.values()) == ["alarm-1", "alarm-2", *(f"prediction-{number}" for number in range(1, 6))]


async def test_every_change_of_an_alarm_goes_out_and_its_last_state_stays(ward, receiver) -> None:
    ward.begin(hook(receiver, send=["alarms"]))
    first = ward.raise_alarm()
    await ward.until(receiver.items)
    ward.change(ward.change(first, Happens.ACKNOWLEDGE), Happens.CLEAR)
    await ward.until(lambda: receiver.items()[-1]["state"] == "closed")
    assert receiver.items()[0]["state"] == "raised"
    assert len({item["id"] for item in receiver.items()}) == 1
    assert len({item["message_id"] for item in receiver.items()}) == len(receiver.items())


async def test_the_change_of_an_alarm_after_an_erasure_is_not_taken_for_one_that_was_sent(ward, receiver) -> None:
    config = hook(receiver, send=["alarms"])
    ward.begin(config)
    other = ward.buffer.sessions.open("bed-5-ecg", BEGAN_NS, "cli")
    ward.raise_alarm()
    (second,) = ward.table.write([type(ward.raise_alarm("b"))("c", "bed-5-ecg", other, "low", BEGAN_NS, 1.0)])
    await ward.until(lambda: len(receiver.items()) == 3)
    await ward.until(lambda: ward.facts().state == "idle")
    await ward.engine.stop()
    ward.buffer.flush()
    ward.buffer.forget(second.session)
    await ward.end()
    ward.open()
    ward.begin(config)
    ward.raise_alarm("d")
    await ward.until(lambda: len(receiver.items()) == 4)
    assert receiver.items()[-1]["rule"] == "d"


async def test_an_erased_session_is_never_sent(ward, receiver) -> None:
    receiver.always = 503
    ward.begin(hook(receiver, send=["alarms", "predictions", "records"], streams=["bed-4-ecg", "bed-4-vitals"]))
    ward.predict("before")
    ward.raise_alarm()
    ward.record()
    await ward.until(lambda: ward.facts().errors >= 2)
    ward.buffer.forget(ward.session)
    ward.buffer.forget(ward.vitals)
    ward.session = ward.buffer.sessions.open("bed-4-ecg", BEGAN_NS, "cli")
    await asyncio.sleep(0)
    receiver.requests.clear()
    receiver.always = 200
    ward.predict("after")
    await ward.until(lambda: ward.facts().sent == 1)
    delivered = [item for body in receiver.bodies() for item in body["items"]]
    assert {item["label"] for item in delivered if "label" in item} == {"after"}


async def test_late_records_go_out_in_the_order_in_which_they_came(ward, receiver) -> None:
    ward.begin(hook(receiver, send=["records"], streams=["bed-4-vitals"]))
    for at_s in (100.0, 101.0, 50.0, 102.0, 50.5):
        ward.record(at_s, heart_rate=at_s)
    await ward.until(lambda: len(receiver.items()) == 5)
    assert [item["values"]["heart_rate"] for item in receiver.items()] == [100.0, 101.0, 50.0, 102.0, 50.5]
    assert ward.facts().waiting == 0


async def test_records_leave_only_of_streams_that_are_named(ward, receiver) -> None:
    with pytest.raises(ConfigError, match="streams"):
        ward.begin(hook(receiver, send=["records"]))
    ward.begin(hook(receiver, send=["records"], streams=["bed-9"]))
    ward.record()
    assert ward.buffer.database.row("SELECT max(number) FROM records")[0] == 0


async def test_event_mode_sends_what_matches_and_counts_nothing_else_as_waiting(ward, receiver) -> None:
    ward.begin(hook(receiver, mode="event", labels=["fall", "walk"], min_confidence=0.8, only_changes=True))
    for label, confidence in (("walk", 0.9), ("walk", 0.9), ("fall", 0.5), ("rest", 0.9), ("fall", 0.9), ("fall", 0.9)):
        ward.predict(label, confidence)
    ward.raise_alarm()
    await ward.until(lambda: len(receiver.items()) == 3)
    await ward.until(lambda: ward.facts().state == "idle")
    # The second fall is a change against the window before it, which was of another label.
    assert keys(receiver.items())[:3] in (
        ["prediction-1", "prediction-5", "alarm-1"],
        ["prediction-1", "alarm-1", "prediction-5"],
        ["alarm-1", "prediction-1", "prediction-5"],
    )
    assert ward.facts().waiting == 0
    cursors = ward.engine._threads["out"]._runner._queue.cursors
    await ward.until(lambda: cursors["predictions"].number == 6)


async def test_a_change_is_one_of_the_same_model_and_the_same_session(ward, receiver) -> None:
    ward.begin(hook(receiver, send=["predictions"], only_changes=True))
    other = ward.buffer.sessions.open("bed-5-ecg", BEGAN_NS, "cli")
    for label, model, session in (
        ("walk", "har", ""),
        ("rest", "other", ""),
        ("walk", "har", ""),
        ("rest", "other", ""),
        ("walk", "har", other),
        ("fall", "har", other),
    ):
        ward.predict(label, model=model, session=session)
    await ward.until(lambda: len(receiver.items()) == 4)
    await ward.until(lambda: ward.facts().state == "idle")
    assert keys(receiver.items()) == ["prediction-1", "prediction-2", "prediction-5", "prediction-6"]


async def test_event_mode_without_a_condition_is_refused(ward, receiver) -> None:
    with pytest.raises(ConfigError, match="event"):
        ward.begin(hook(receiver, mode="event"))


async def test_scheduled_mode_collects_until_it_is_due(ward, receiver) -> None:
    engine = ward.begin(hook(receiver, mode="scheduled", every_s=3600))
    for _ in range(3):
        ward.predict()
    await ward.until(
        lambda: ward.buffer.database.rows("SELECT 1 FROM deliveries WHERE done_ns > 0") or ward.buffer.flush()
    )
    assert receiver.requests == []
    await engine.stop()
    cursor = take_up_deliveries(ward.buffer.database, [("out", "alarms"), ("out", "predictions")])
    assert cursor["out", "predictions"].number == 0
    ward.buffer.run("an hour ago", lambda tx: tx.execute("UPDATE deliveries SET done_ns = done_ns - 3600000000000"))
    ward.begin(hook(receiver, mode="scheduled", every_s=3600))
    await ward.until(lambda: len(receiver.items()) == 3)
    assert len(receiver.requests) == 1


async def test_on_demand_sends_what_waits_and_again_what_is_asked_for(ward, receiver) -> None:
    ward.predict("old")
    engine = ward.begin(hook(receiver, mode="demand"))
    for _ in range(3):
        ward.predict("new")
    assert receiver.requests == []
    await ward.until(lambda: ward.facts().state == "idle")
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    assert (await engine.send_now("out", None)).sent == 3
    assert (await engine.send_now("out", None)).sent == 0
    again = await engine.send_now("out", BEGAN_NS)
    assert (again.sent, again.failed, again.error) == (4, 0, "")
    assert [item["label"] for item in receiver.items()] == ["new"] * 3 + ["old"] + ["new"] * 3
    late = await engine.send_now("out", BEGAN_NS + 4 * S)
    assert late.sent == 1
    assert len({item["message_id"] for item in receiver.items()}) == 4


async def test_on_demand_says_what_failed(ward, receiver) -> None:
    receiver.always = 503
    engine = ward.begin(hook(receiver, mode="demand"))
    ward.predict()
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    found = await engine.send_now("out", None)
    assert (found.sent, found.failed) == (0, 1)
    assert "503" in found.error
    with pytest.raises(ProtocolError, match="no sink"):
        await engine.send_now("other", None)


async def test_on_demand_leaves_out_what_is_refused_and_delivers_the_rest(ward, receiver) -> None:
    receiver.refuse = lambda body: b"poison" in body
    engine = ward.begin(hook(receiver, mode="demand"))
    for label in ("a", "poison", "b"):
        ward.predict(label)
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    again = await engine.send_now("out", BEGAN_NS)
    assert (again.sent, again.failed, "422" in again.error) == (2, 1, True)
    assert ward.facts().refused == 0


async def test_a_sink_that_is_taken_out_and_put_back_begins_anew(ward, receiver) -> None:
    config = hook(receiver, mode="demand")
    await ward.begin(config).stop()
    ward.predict()
    await ward.begin().stop()
    engine = ward.begin(config)
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    assert (await engine.send_now("out", None)).sent == 0


async def test_csv_has_every_row_once_through_kills(ward, tmp_path) -> None:
    config = sink(
        "csv", directory="files", send=["alarms", "predictions", "records"], streams=["bed-4-ecg", "bed-4-vitals"]
    )
    files = tmp_path / "files"
    for turn in range(3):
        ward.begin(config)
        for _ in range(4):
            ward.predict()
            ward.record()
        ward.raise_alarm(f"rule-{turn}")
        await ward.until(lambda turn=turn: ward.facts().sent >= 9 * (turn + 1) - 9 + 9 and ward.facts().state == "idle")
        await ward.end(kill=True)
        for name in ("predictions", "records"):
            with (files / f"{name}.csv").open("ab") as file:
                file.write(b"13,half a li")
        ward.open()
    ward.begin(config)
    ward.predict()
    await ward.until(lambda: len(_rows(files / "predictions.csv")) == 13)
    ward.record()
    await ward.until(lambda: len(_rows(files / "records.csv")) == 26)
    assert [row["number"] for row in _rows(files / "predictions.csv")] == [str(n) for n in range(1, 14)]
    assert [row["field"] for row in _rows(files / "records.csv")] == ["heart_rate", "spo2"] * 13
    assert len({row["message_id"] for row in _rows(files / "alarms.csv")}) == 3


def _rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


async def test_a_number_that_json_has_not_is_counted_and_blocks_nobody(ward, receiver) -> None:
    ward.begin(hook(receiver))
    ward.predict("a")
    ward.predict("b", float("inf"))
    ward.predict("c")
    await ward.until(lambda: ward.facts().sent == 2)
    assert ward.facts().refused == 1
    assert "sink-unsendable" in ward.facts().last_error


async def test_numbers_of_predictions_go_on_above_what_a_sink_was_told(ward, receiver) -> None:
    """A salvage may lose the sequence with the rows."""
    config = hook(receiver)
    ward.begin(config)
    for _ in range(3):
        ward.predict()
    await ward.until(lambda: len(receiver.items()) >= 3)
    await ward.end()
    ward.open()
    for table in ("predictions", "sqlite_sequence"):
        ward.buffer.run("lost", lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))
    await ward.end()
    ward.open()
    ward.begin(config)
    ward.predict("new")
    await ward.until(lambda: receiver.items()[-1]["label"] == "new")


async def test_a_sink_that_changes_goes_on_where_it_was_and_one_that_does_not_is_not_disturbed(ward, receiver) -> None:
    other = msgspec.structs.replace(hook(receiver), name="other")
    engine = ward.begin(hook(receiver), other)
    ward.predict()
    await ward.until(lambda: len(receiver.items()) == 2)
    undisturbed = engine._threads["other"]
    assert await engine.change([hook(receiver, batch_rows=50), other], "device-1") == []
    ward.predict()
    await ward.until(lambda: len(receiver.items()) == 4)
    assert sorted(keys(receiver.items())) == ["prediction-1"] * 2 + ["prediction-2"] * 2
    assert engine._threads["other"] is undisturbed
    assert await engine.change([other], "device-1") == []
    assert [one.name for one in engine.facts()] == ["other"]
    ward.predict()
    await ward.until(lambda: len(receiver.items()) == 5)
    await engine.change([hook(receiver), other], "device-1")
    ward.predict()
    await ward.until(lambda: len(receiver.items()) == 7)
    assert sorted(keys(receiver.items()))[-3:] == ["prediction-3", "prediction-4", "prediction-4"]


async def test_a_sink_that_hangs_stays_as_it_was_and_is_named(ward, receiver, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "STOP_S", 0.05)
    held = threading.Event()
    engine = ward.begin(hook(receiver))
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    engine._threads["out"]._loop.call_soon_threadsafe(held.wait)
    try:
        assert await engine.change([], "device-1") == ["out"]
        assert [one.name for one in engine.facts()] == ["out"]
    finally:
        held.set()
