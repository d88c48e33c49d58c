"""A virtual board in its own process, through a pty, into the source."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality
from bedside.firmware_bridge.board_clock import BoardClock
from bedside.firmware_bridge.messages import Samples, SampleType, StreamInfo
from bedside.firmware_bridge.recording import Recording, read_recording, write_recording
from bedside.firmware_bridge.serial_source import SerialSource
from bedside.service.platform import SystemClock

STREAM = StreamId("wrist")
INFO = StreamInfo("ecg", 1, 250_000, SampleType.INT16, "mV", "", 1.0)


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, Recording]:
    values = np.random.default_rng(1).integers(-30_000, 30_000, (3_000, 6), np.int16)
    made = Recording(values, 50.0, unit="m/s2", scale=0.01)
    write_recording(tmp_path / "signal.npz", made)
    return tmp_path / "signal.npz", made


@contextmanager
def board(data: Path, link: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bedside.firmware_bridge.virtual_board", "--data", str(data)]
    process = subprocess.Popen([*command, "--pty-link", str(link), "--speed", "0"])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


async def appear(link: Path) -> None:
    async with asyncio.timeout(10):
        while not link.is_symlink():
            await asyncio.sleep(0.01)


async def read(source: SerialSource, samples: int) -> list[Block]:
    blocks: list[Block] = []
    async with asyncio.timeout(20), aclosing(source.events()) as events:
        async for block in events:
            blocks.append(block)
            if sum(len(b.values) for b in blocks) >= samples:
                break
    return blocks


async def read_and(act: Callable[[], None], source: SerialSource) -> None:
    """Act at every block, until the source ends."""
    async with asyncio.timeout(10), aclosing(source.events()) as events:
        async for _ in events:
            act()


async def test_blocks_of_a_board_on_a_pty_equal_the_recording(tmp_path, recording) -> None:
    path, made = recording
    with board(path, tmp_path / "tty"):
        await appear(tmp_path / "tty")
        source = SerialSource("s", str(tmp_path / "tty"), STREAM, SystemClock(), channels=[2, 0])
        blocks = await read(source, len(made.values))
    assert np.array_equal(np.concatenate([b.values for b in blocks]), made.values[:, [2, 0]])
    assert all(len(b.values) <= 2 and b.unit == "m/s2" for b in blocks)
    assert [b.start_ns for b in blocks] == [blocks[0].start_ns + i * 40_000_000 for i in range(len(blocks))]
    assert not any(b.quality & Quality.GAP_BEFORE for b in blocks[1:])
    assert source.counts.errors == 0
    assert source.hello is not None


async def test_a_second_opening_goes_on_in_the_same_time(tmp_path) -> None:
    path = tmp_path / "long.npz"  # longer than a pty holds: opening a port throws away what waits in it
    made = Recording(np.random.default_rng(2).integers(-30_000, 30_000, (40_000, 6), np.int16), 50.0)
    write_recording(path, made)
    with board(path, tmp_path / "tty"):
        await appear(tmp_path / "tty")
        source = SerialSource("s", str(tmp_path / "tty"), STREAM, SystemClock())
        first = await read(source, 200)
        second = await read(source, 200)
    distance_ns = second[0].start_ns - first[0].start_ns
    at = distance_ns // 20_000_000
    assert distance_ns > 0
    assert np.array_equal(second[0].values, made.values[at : at + len(second[0].values)])


async def test_a_board_that_dies_is_lost_and_not_silent(tmp_path, recording) -> None:
    path, _made = recording
    with board(path, tmp_path / "tty") as process:
        await appear(tmp_path / "tty")
        source = SerialSource("s", str(tmp_path / "tty"), STREAM, SystemClock())
        with pytest.raises(UnavailableError, match=r"lost|closed"):
            await read_and(process.kill, source)


async def test_an_unknown_stream_names_those_that_exist(tmp_path, recording) -> None:
    with board(recording[0], tmp_path / "tty"):
        await appear(tmp_path / "tty")
        source = SerialSource("s", str(tmp_path / "tty"), STREAM, SystemClock(), board_stream="eeg")
        with pytest.raises(ConfigError) as caught:
            await read(source, 1)
    assert "signal" in caught.value.remedy


async def test_a_port_that_is_not_there_is_unavailable(tmp_path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await read(SerialSource("s", str(tmp_path / "none"), STREAM, SystemClock()), 1)
    assert caught.value.code == "serial-open"


def test_link_jitter_does_not_show_and_a_real_gap_does() -> None:
    clock = BoardClock()
    clock.boot(1)
    values = np.zeros((10, 1), np.int16)
    first, _ = clock.stamp(Samples(0, 0, 5_000, values), INFO, 10**18)
    second, jumped = clock.stamp(Samples(0, 1, 45_900, values), INFO, 10**18 + 9 * 10**9)
    third, gapped = clock.stamp(Samples(0, 3, 125_000, values), INFO, 10**18)
    assert (second - first, jumped) == (40_000_000, False)
    assert (third - first, gapped) == (120_000_000, True)


def test_a_reboot_never_goes_back_in_time() -> None:
    clock = BoardClock()
    clock.boot(1)
    values = np.zeros((10, 1), np.int16)
    clock.stamp(Samples(0, 0, 0, values), INFO, 10**18)
    late, _ = clock.stamp(Samples(0, 1, 60_000_000, values), INFO, 10**18)
    clock.boot(2)
    after, jumped = clock.stamp(Samples(0, 0, 0, values), INFO, 10**18)
    assert after >= late + 40_000_000
    assert jumped


@pytest.mark.parametrize("seed", range(8))
def test_a_recording_with_changed_bytes_is_read_or_is_one_sentence(recording, seed) -> None:
    path, _ = recording
    whole, drawn = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(60):
        data = bytearray(whole)
        for at in (*drawn.integers(0, len(data), 2), *(len(data) - drawn.integers(1, 600, 2))):
            data[at] = drawn.integers(256)
        path.write_bytes(data)
        with suppress(MalformedError, ConfigError):
            read_recording(path)


def test_a_recording_survives_its_file(recording) -> None:
    path, made = recording
    again = read_recording(path)
    assert np.array_equal(again.values, made.values)
    assert (again.rate_hz, again.unit, again.scale, again.sessions) == (50.0, "m/s2", 0.01, [(0, 3_000)])
