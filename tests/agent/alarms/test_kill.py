"""Alarms of a real agent that is killed at any moment: each raised once, each with the prediction that raised it."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import fields
from itertools import pairwise

from bedside.agent.buffer.rows import Alarm

KILLS = 6
ALARMS = """
[[alarms]]
name = "shake"
label = "shake"
above = 0.34
clear = 0.33
[[alarms]]
name = "walk"
label = "walk"
above = 0.34
clear = 0.33
hold_off_s = 0.5
"""


def alarms_of(device) -> list[Alarm]:
    columns = ", ".join("id AS number" if one.name == "number" else one.name for one in fields(Alarm))
    with closing(sqlite3.connect(f"file:{device.path}/state/buffer.db?mode=ro", uri=True)) as store:
        return [Alarm(*row) for row in store.execute(f"SELECT {columns} FROM alarms ORDER BY alarms.id")]


def predictions_of(device) -> dict[int, tuple[str, str, int]]:
    with closing(sqlite3.connect(f"file:{device.path}/state/buffer.db?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT id, stream, session, end_ns FROM predictions")
        return {number: (stream, session, end_ns) for number, stream, session, end_ns in rows}


def test_an_agent_that_is_killed_again_and_again_raises_every_alarm_once(device) -> None:
    with (device.path / "agent.toml").open("a") as config:
        config.write(ALARMS)
    chance = random.Random(11)
    acknowledged: dict[int, Alarm] = {}
    for _ in range(KILLS):
        before = len(alarms_of(device)) if (device.path / "state" / "buffer.db").exists() else 0
        device.start()
        device.await_predictions()
        device.await_value(lambda: len(alarms_of(device)), lambda count, floor=before: count > floor)
        moment_s = time.monotonic() + chance.uniform(0, 0.7)
        device.await_value(lambda: 0, lambda _, until_s=moment_s: time.monotonic() > until_s)
        seen = {alarm.number: alarm for alarm in alarms_of(device)}
        device.stop(signal.SIGKILL)
        stored = {alarm.number: alarm for alarm in alarms_of(device)}
        for number, alarm in (acknowledged | seen).items():  # what was durable stays, and at most goes on
            assert stored[number].raised_ns == alarm.raised_ns
            assert alarm.cleared_ns in (0, stored[number].cleared_ns)
        acknowledged = stored
    found, predictions = alarms_of(device), predictions_of(device)
    assert len({(alarm.rule, alarm.session, alarm.raised_ns) for alarm in found}) == len(found)
    for rule in ("shake", "walk"):
        mine = [alarm for alarm in found if alarm.rule == rule]
        assert all(alarm.cleared_ns for alarm in mine[:-1])  # one at a time
        starts = [alarm.raised_ns for alarm in mine]
        assert starts == sorted(starts)
        for one, after in pairwise(mine):
            assert one.raised_ns <= one.cleared_ns <= after.raised_ns
    for alarm in found:
        assert predictions[alarm.prediction] == (alarm.stream, alarm.session, alarm.raised_ns)
