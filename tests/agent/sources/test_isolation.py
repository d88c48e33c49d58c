"""A source that fails in any way costs itself: the others, and the agent, do not notice.

What cannot be guarded is a source that keeps the loop for itself; then the service manager's watchdog is not fed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.config import load_agent_config
from bedside.agent.sources.checked import MAX_STREAMS, EventCheck
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, Record, Unmapped
from bedside.ondevice.windows.part import NS_PER_S
from resident_device import buffer_of, make_directory, quarantine_of, records_of, resident
from third_party import install

HERE = Path(__file__).parent
MODULE = (HERE / "misbehaving.py").read_text()
SOURCE = '[[sources]]\nkind = "misbehaving"\nname = "{0}"\n[sources.options]\nstream = "{0}"\nmode = "{0}"\n'

FAILING = {
    "raises": "KeyError",
    "exits": "SystemExit",
    "cancels": "CancelledError",
    "no-generator": "TypeError",
    "fails-to-begin": "it cannot begin",
    "fails-to-end": "its device is gone",
    "dictionary": "of type dict",
    "nothing": "of type NoneType",
    "list-of-samples": "its values are no array",
    "wrong-time": "its time is no integer",
    "text-for-value": "a value in it is no number",
    "huge-integer": "a value in it is no number",
    "strange-stream": "is not an id",
}
"""Sources that fail, with a word of what health says of each."""
GOING_ON = ("before-1970", "wrong-form", "infinite", "infinite-samples", "many", "huge-label", "endless", "silent")
"""Sources that yield what nobody can use, or nothing, and go on."""


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    """The kind, as another package brings it."""
    folder = install(tmp_path / "site-packages", "misbehaving", MODULE, {"misbehaving": "misbehaving:KIND"})
    monkeypatch.syspath_prepend(str(folder))
    yield __import__("misbehaving")
    sys.modules.pop("misbehaving", None)


async def test_no_source_takes_another_one_down(tmp_path, misbehaving) -> None:
    names = [*FAILING, *GOING_ON, "good"]
    directory = make_directory(tmp_path / "device", "".join(SOURCE.format(name) for name in names))
    async with resident(directory) as agent:
        health = agent.health
        await agent.until(lambda: health["good"].records == misbehaving.GOOD_RECORDS)
        await agent.until(lambda: all(health[name].errors for name in FAILING))
        await agent.until(lambda: health["many"].unmapped == misbehaving.AT_ONCE)
        assert agent.component("ingest").startswith("DEGRADED: source")
        assert {name for name in GOING_ON if health[name].errors} == set()
        for name, word in FAILING.items():
            assert word in health[name].last_error, name
            assert len(health[name].last_error) <= 400
    with buffer_of(directory) as reader:
        found = [(one.time_ns, one.values["value"]) for one in records_of(reader, "good")]
        start_ns = misbehaving.T0_NS
        assert found == [(start_ns + at * NS_PER_S, float(at)) for at in range(misbehaving.GOOD_RECORDS)]
        assert [one.values["value"] for one in records_of(reader, "infinite")] == [2.0]
        assert len(records_of(reader, "wrong-form")) == 1
        assert len(records_of(reader, "huge-label")) == 1
        assert reader.counters()["refused-labels"] == 1
        (session,) = reader.sessions(StreamId("infinite-samples"))
        (part,) = reader.parts(StreamId("infinite-samples"), session.session)
        assert np.isinf(part.values[0]).all()
        assert np.isnan(part.values[1]).all()
        assert quarantine_of(reader)["many"].total() == misbehaving.AT_ONCE


def test_a_source_that_keeps_the_loop_for_itself_starves_the_watchdog_and_nothing_is_hidden(tmp_path) -> None:
    folder = install(tmp_path / "site-packages", "misbehaving", MODULE, {"misbehaving": "misbehaving:KIND"})
    directory = make_directory(tmp_path / "d", SOURCE.format("blocks-the-loop"))
    address = tmp_path / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(0.2)
        environment = os.environ | {"NOTIFY_SOCKET": str(address), "PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", "bedside.agent.resident", str(directory), "test"]
        agent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        try:
            fed = watchdog_times(manager, 3)
            assert largest_gap(fed) > 2.0  # of a second, while it does not sleep for 2.5 s
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(20) == 0, agent.stderr
        finally:
            if agent.poll() is None:
                agent.kill()
            agent.wait(10)
            assert agent.stderr is not None
            agent.stderr.close()


def watchdog_times(manager: socket.socket, count: int) -> list[float]:
    """When the agent was ready, and then when the watchdog was fed, so many times."""
    times: list[float] = []
    deadline_s = time.monotonic() + 40.0
    while len(times) <= count:
        assert time.monotonic() < deadline_s, times
        try:
            told = manager.recv(4096)
        except TimeoutError:
            continue
        if b"WATCHDOG=1" in told or b"READY=1" in told:
            times.append(time.monotonic())
    return times


def largest_gap(times: list[float]) -> float:
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


@pytest.mark.parametrize(
    ("module", "entry_point", "words"),
    [
        ("raise OSError('no such bus')", "broken:KIND", ("cannot be loaded", "OSError", "no such bus")),
        ("import a_library_that_is_not_here", "broken:KIND", ("cannot be loaded", "ModuleNotFoundError")),
        ("", "broken:KIND", ("cannot be loaded", "AttributeError")),
        ("KIND = object()", "broken:KIND", ("is no SourceKind",)),
        ("", "absent:KIND", ("cannot be loaded", "absent")),
    ],
)
def test_a_package_that_is_broken_is_named_in_one_sentence(tmp_path, monkeypatch, module, entry_point, words) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "broken", module, {"lidar": entry_point})))
    sys.modules.pop("broken", None)
    directory = make_directory(tmp_path / "device", '[[sources]]\nkind = "lidar"\nname = "bed"\n')
    (source,) = load_agent_config(directory).sources
    with pytest.raises(ConfigError) as refused:
        typed_source(source)
    assert refused.value.code == "source-config"
    assert refused.value.remedy
    for word in ("source bed", "lidar", *words):
        assert word in refused.value.sentence


def test_a_package_whose_kind_fails_to_make_its_source_is_named(tmp_path, misbehaving) -> None:
    directory = make_directory(tmp_path / "device", SOURCE.format("unbuildable"))
    (source,) = load_agent_config(directory).sources
    with pytest.raises(ConfigError, match=r"source unbuildable: its kind, misbehaving.*LookupError.*cable") as refused:
        build_source(source.kind, typed_source(source), None)
    assert refused.value.code == "source-config"


def test_a_source_has_so_many_streams_and_no_more() -> None:
    check = EventCheck()
    for at in range(2 * MAX_STREAMS):
        check.checked(Record(StreamId(f"bed-{at % MAX_STREAMS}"), 0, {"value": 1.0}))
    with pytest.raises(MalformedError, match="another stream"):
        check.checked(Record(StreamId("one-more"), 0, {"value": 1.0}))


@pytest.mark.parametrize(
    "event",
    [
        Mark(StreamId("s"), 0, 0, "rest", "o" * 1_000_000),
        Mark(StreamId("s"), 0.5, 0, "rest", "test"),
        Unmapped("s", "unknown-code", "x" * 1_000, 0),
        Unmapped("s", "unknown-code", "two\nlines", 0),
        Unmapped("s", "unknown-code", "x", 0, count=-5),
        Unmapped("s", "unknown-code", "x", -1),
        Record(StreamId("s"), 0, {"value": 1.0}, {"value": 7}),
        Record(StreamId("s"), 0, [1.0]),
        Record(7, 0, {"value": 1.0}),
    ],
)
def test_what_is_no_event_by_its_types_is_the_failure_of_its_source(event) -> None:
    with pytest.raises(MalformedError) as refused:
        EventCheck().checked(event)
    assert refused.value.code == "source-event"


async def test_an_agent_that_is_told_to_stop_ends_its_sources_and_waits_for_none(tmp_path, misbehaving) -> None:
    directory = make_directory(tmp_path / "device", SOURCE.format("silent") + SOURCE.format("endless"))
    async with resident(directory) as agent:
        await agent.until(lambda: agent.health["endless"].records > 100)
        agent.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(agent.task, 20)
    del misbehaving
