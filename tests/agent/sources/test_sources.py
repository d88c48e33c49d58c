"""Replay, marks, supervisor and registry."""

import asyncio
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import SourceConfig
from bedside.agent.kinds import options_of
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.recordings.marks import Annotator, Track, read_track
from bedside.agent.sources.recordings.replay import ReplaySource
from bedside.agent.sources.registry import BUILT_IN, build_source, find_kind, typed_source
from bedside.agent.sources.supervisor import SourceState, Supervisor
from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind, Quality
from bedside.firmware_bridge.recording import MAX_LABELS, Label, Recording, write_recording
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.text import bounded
from hand_clock import T0, HandClock

S = StreamId("wrist")


def made(samples: int = 500) -> Recording:
    values = np.random.default_rng(0).standard_normal((samples, 3)).astype(np.float32)
    return Recording(values, 50.0, (Label(0, 101, "rest"), Label(101, 400, "arm")), (0, 101), unit="m/s2")


async def play(source: ReplaySource, limit: int = 10**6) -> list[Block | Mark]:
    events: list[Block | Mark] = []
    async for event in source.events():
        events.append(event)
        if len(events) >= limit:
            break
    return events


async def test_replay_gives_every_sample_marks_in_their_places_and_no_block_across_sessions() -> None:
    clock, recording = HandClock(), made()
    events = await play(ReplaySource("r", S, recording, clock, speed=0, sleep=clock.sleep))
    blocks = [e for e in events if isinstance(e, Block)]
    assert np.array_equal(np.concatenate([b.values for b in blocks]), recording.values)
    assert all(len(b.values) <= 2 and b.quality & Quality.SIMULATED for b in blocks)
    order = [(e.label or e.kind, (e.start_ns - T0) // 20_000_000) for e in events if isinstance(e, Mark)]
    assert order == [
        (MarkKind.SESSION_OPEN, 0),
        ("rest", 0),
        (MarkKind.SESSION_CLOSE, 101),
        (MarkKind.SESSION_OPEN, 101),
        ("arm", 101),
        (MarkKind.SESSION_CLOSE, 500),
    ]
    border = next(i for i, e in enumerate(events) if isinstance(e, Mark) and e.kind is MarkKind.SESSION_CLOSE)
    before, after = events[border - 1], next(e for e in events[border:] if isinstance(e, Block))
    assert isinstance(before, Block)
    assert before.start_ns + len(before.values) * 20_000_000 == after.start_ns == T0 + 101 * 20_000_000


@pytest.mark.parametrize("speed", [1.0, 20.0])
async def test_replay_keeps_the_pace(speed: float) -> None:
    clock = HandClock()
    await play(ReplaySource("r", S, made(), clock, speed=speed, sleep=clock.sleep))
    assert clock.at_s == pytest.approx(10.0 / speed, abs=0.002)


async def test_a_loop_begins_new_sessions_and_time_goes_on() -> None:
    clock, recording = HandClock(), made()
    events = await play(ReplaySource("r", S, recording, clock, speed=0, loop=True, sleep=clock.sleep), 600)
    opened = [
        (e.start_ns - T0) // 20_000_000 for e in events if isinstance(e, Mark) and e.kind is MarkKind.SESSION_OPEN
    ]
    assert opened[:4] == [0, 101, 500, 601]
    blocks = [e for e in events if isinstance(e, Block)]
    assert all(a.start_ns + len(a.values) * 20_000_000 == b.start_ns for a, b in itertools.pairwise(blocks))


async def test_what_is_replayed_is_what_the_buffer_gives_back(tmp_path) -> None:
    clock, recording = HandClock(), made()
    store = BufferStore(tmp_path / "b.db", bytes(32), clock, SystemEntropy())
    for event in await play(ReplaySource("r", S, recording, clock, speed=0, sleep=clock.sleep)):
        if isinstance(event, Mark):
            store.mark(event)
        else:
            store.append(event)
    store.close()
    reader = BufferReader(tmp_path / "b.db", bytes(32))
    sessions = reader.sessions(S)
    got = [reader.read_range(S, s.session) for s in sessions]
    labels = [x.label for s in sessions for x in reader.labels(s.session)]
    reader.close()
    assert [len(stretches) for stretches in got] == [1, 1]
    assert np.concatenate([g[0].values for g in got]).tobytes() == recording.values.tobytes()
    assert labels == ["rest", "arm"]
    assert all(s.closed_ns is not None for s in sessions)


def test_a_stream_that_begins_in_the_middle_skips_what_is_past() -> None:
    track = Track(((0, 10**9, "rest"), (10**9, 3 * 10**9, "arm")), ((0, 10**9), (10**9, 3 * 10**9)))
    block = Block(S, T0 + 2 * 10**9, 50.0, np.zeros((2, 1), np.int16))
    first, second, last = Annotator(track, T0, "file").annotate(block)
    assert (first.kind, first.start_ns) == (MarkKind.SESSION_OPEN, block.start_ns)
    assert (second.label, second.end_ns) == ("arm", T0 + 3 * 10**9)
    assert last is block


def test_a_label_file_may_be_csv_and_errors_name_it(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("start_s,end_s,label\n0,1.5,rest\n")
    assert read_track(tmp_path / "l.csv", loop=False).labels == ((0, 1_500_000_000, "rest"),)
    (tmp_path / "l.csv").write_text("start_s,end_s,label\n0,x,rest\n")
    with pytest.raises(MalformedError, match=r"l\.csv"):
        read_track(tmp_path / "l.csv", loop=False)
    with pytest.raises(ConfigError):
        read_track(tmp_path / "none.csv", loop=False)


class Flaky:
    name = "flaky"

    def __init__(self, failures: int) -> None:
        self.left = failures

    async def events(self):
        yield Block(S, T0, 50.0, np.zeros((2, 1), np.int16))
        if self.left:
            self.left -= 1
            raise UnavailableError("serial-lost", "the port was lost")


class Endless:
    name = "endless"

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop

    async def events(self):
        yield Mark(S, T0, T0, "", "t", MarkKind.SESSION_OPEN)
        await self.stop.wait()


async def test_a_failing_source_restarts_with_back_off_and_leaves_the_others_alone() -> None:
    clock, stop, waits = HandClock(), asyncio.Event(), []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)
        if len(waits) == 8:
            stop.set()
        await asyncio.sleep(0)

    supervisor = Supervisor([Flaky(8), Endless(stop)], lambda event: None, clock, sleep=sleep)
    await supervisor.run()
    health = supervisor.health["flaky"]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert (health.errors, health.blocks, health.samples, health.state) == (8, 9, 18, SourceState.ENDED)
    assert health.last_error.startswith("serial-lost")
    assert supervisor.health["endless"].errors == 0


async def test_an_error_of_the_consumer_is_not_swallowed() -> None:
    def refuse(event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await Supervisor([Flaky(0)], refuse, HandClock()).run()


def test_the_registry_builds_from_configuration_and_refuses_unknown_keys(tmp_path: Path) -> None:
    write_recording(tmp_path / "r.npz", made())
    context = SourceContext(SystemClock(), lambda stream: 2**62, tmp_path)
    raw = {"stream": "wrist", "data": "r.npz", "speed": 2}
    source = build_source("replay", typed_source(SourceConfig(kind="replay", name="a", options=raw)), context)
    assert isinstance(source, ReplaySource)
    assert source.end_ns == 2**62
    missing = SourceConfig(kind="replay", name="a", options={**raw, "data": "none.npz"})
    with pytest.raises(ConfigError):
        build_source("replay", typed_source(missing), context)
    serial = {"stream": "wrist", "port": "/dev/ttyACM0", "labels": "r.npz"}
    board = SourceConfig(kind="serial", name="b", options=serial)
    assert build_source("serial", typed_source(board), context).name == "b"


MANY = {
    "broker": "localhost:1883",
    "client_id": "g",
    "topics": {"v/+": {"stream": "v-{1}", "payload": {"kind": "number", "code": "hr"}}},
}


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("replay", {"sped": 1}, "did you mean 'speed'? speed: "),
        ("serial", {"xyz": 1}, "`bedside agent sources kinds serial` lists what it takes"),
        ("serial", {"stream": "a", "port": "b", "baud": "fast"}, "baud: bits per second (whole number); "),
        ("mllp", {"listen": "a", "clock": "mine"}, "(one of sender, arrival); "),
        ("bluetooth", {}, "the kinds are ble, "),
        ("mqtt", MANY, "topics: by topic filter: "),
    ],
)
def test_a_wrong_option_is_refused_with_those_that_there_are(kind, options, said) -> None:
    with pytest.raises(ConfigError) as refused:
        typed_source(SourceConfig(kind=kind, name="a", options=options))
    assert refused.value.code == "source-config"
    assert refused.value.remedy.startswith(said) or said in refused.value.remedy
    assert "…" not in bounded(refused.value.remedy), "the list is not cut on its way to the terminal"


def test_a_wildcard_without_places_is_told_as_that() -> None:
    with pytest.raises(ConfigError, match="needs places"):
        typed_source(SourceConfig(kind="mqtt", name="a", options=MANY))


def test_every_option_of_every_kind_is_described() -> None:
    for kind in (find_kind(name).options for name in BUILT_IN):
        assert set(options_of(kind)) == set(kind.__struct_fields__) - {"name"}
        assert all(options_of(kind).values())


class Crowd:
    """Has a thousand events at once."""

    name = "crowd"

    async def events(self):
        for at in range(1_000):
            yield Mark(S, T0 + at, T0 + at + 1, "beat", "t")


async def test_a_source_with_many_events_at_once_leaves_the_others_their_turn() -> None:
    taken: list[object] = []
    task = asyncio.create_task(Supervisor([Crowd()], taken.append, HandClock()).run())
    while not taken:
        await asyncio.sleep(0)
    assert len(taken) < 100
    await task
    assert len(taken) == 1_000


def test_a_recording_has_so_many_labels_at_most() -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(made(), labels=(Label(0, 1, "beat"),) * (MAX_LABELS + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "u" * 65},
        {"metric": "m\n"},
        {"values": np.zeros((20, 70_000), np.float32)},
        *({"scale": scale} for scale in (float("nan"), float("inf"))),
        *({"rate_hz": rate} for rate in (0.0, 1e12, 1e300, float("inf"), float("nan"))),
        {"labels": (Label(0, 10, "\ud800"),)},
    ],
)
def test_a_recording_that_no_buffer_takes_is_none(change) -> None:
    with pytest.raises(MalformedError) as caught:
        dataclasses.replace(made(), **change)
    assert caught.value.code == "bad-recording"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        *(({"history_s": value}, "bad-history") for value in (-1.0, 1e9, 1e300, float("inf"), float("nan"))),
        *(({"start_ns": value}, "bad-start") for value in (-1, (1 << 63) - 1_000, 10**20)),
    ],
)
def test_replay_begins_at_a_time_that_can_be_stored(tmp_path, options, code) -> None:
    write_recording(tmp_path / "r.npz", made())
    context = SourceContext(HandClock(), lambda stream: 0, tmp_path)
    given = {"stream": "wrist", "data": "r.npz", **options}
    with pytest.raises(ConfigError) as caught:
        build_source("replay", typed_source(SourceConfig(kind="replay", name="a", options=given)), context)
    assert caught.value.code == code


class OnceBroken:
    """Fails once, and then delivers and ends."""

    name = "broken"

    def __init__(self) -> None:
        self.runs = 0

    async def events(self):
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError("not yet")
        yield Mark(S, T0, T0 + 1, "beat", "t")


async def test_a_source_that_fails_and_works_again_is_in_the_log(caplog) -> None:
    caplog.set_level("INFO")

    async def at_once(_seconds: float) -> None:
        await asyncio.sleep(0)

    await Supervisor([OnceBroken()], lambda _event: None, HandClock(), sleep=at_once).run()
    assert [one.message for one in caplog.records] == ["source-failed", "source-recovered"]
