"""Ids of what is sent: the same row has the same one for ever, and no other row has it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from bedside.agent.config import BUFFER_NAME
from ward import BEGAN_NS, Ward, sink


def records_to(receiver, **options: object):
    return sink("webhook", url=receiver.url, send=["records"], streams=["bed-4-vitals"], **options)


async def send_all(ward: Ward, receiver) -> None:
    """Send what is stored, on demand."""
    engine = ward.begin(records_to(receiver, mode="demand"))
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    assert (await engine.send_now("out", BEGAN_NS)).failed == 0
    await engine.stop()


def forget_vitals(ward: Ward) -> None:
    """Forget the session, and begin another on its stream."""
    ward.buffer.forget(ward.vitals)
    ward.vitals = ward.buffer.sessions.open("bed-4-vitals", BEGAN_NS, "cli")


async def test_a_record_in_the_place_of_one_that_was_forgotten_has_an_id_of_its_own(ward, receiver) -> None:
    ward.begin(records_to(receiver))
    ward.record(1.0, heart_rate=70.0)
    await ward.until(lambda: len(receiver.items()) == 1)
    forget_vitals(ward)
    ward.record(1.0, heart_rate=99.0)
    await ward.until(lambda: len(receiver.items()) == 2)
    first, second = receiver.items()
    assert (first["time"], first["stream"]) == (second["time"], second["stream"])
    assert first["message_id"] != second["message_id"]


async def test_so_has_one_that_no_sink_wanted_and_that_is_sent_on_demand(ward, receiver) -> None:
    ids = []
    for rate in (70.0, 99.0):
        ward.record(1.0, heart_rate=rate)
        await send_all(ward, receiver)
        ids.append(receiver.items()[-1]["message_id"])
        ward.buffer.queued.streams = frozenset()
        forget_vitals(ward)
    assert ids[0] != ids[1]


async def test_a_salvaged_row_keeps_its_id(ward, receiver) -> None:
    ward.record(1.0, heart_rate=70.0)
    ward.record(2.0, heart_rate=71.0)
    await send_all(ward, receiver)
    await ward.end()
    with closing(sqlite3.connect(ward.path / BUFFER_NAME)) as damaged:
        damaged.execute("UPDATE records SET number = 77 WHERE id = (SELECT min(id) FROM records)")  # as its tag shows
        damaged.commit()
    ward.open()
    assert ward.buffer.salvage is not None
    await send_all(ward, receiver)
    first, second, again = receiver.items()
    assert again["message_id"] == second["message_id"] != first["message_id"]
