"""Bluetooth and industrial IO under a real agent: what devices send is stored, and the agent ends in peace."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.client import LocalAgent
from bedside.core.errors import UnavailableError
from bedside.core.ids import StreamId
from bedside.proto.v1.local_pb2 import SourceStatus
from fake_bluez import fake_bluez

BELT = "AA:BB:CC:DD:EE:01"
IMU = StreamId("imu")
CONFIG = """\
[[sources]]
kind = "ble"
name = "belt"
[sources.options]
stream = "bed1"
address = "AA:BB:CC:DD:EE:01"
profiles = ["heart_rate"]
[[sources]]
kind = "iio"
name = "imu"
[sources.options]
stream = "imu"
device = "lsm6dso"
channels = ["accel_x"]
buffered = true
root = "tree"
[[sources]]
kind = "iio"
name = "room"
[sources.options]
stream = "room"
device = "hts221"
channels = ["temp"]
every_s = 0.05
root = "tree"
[sources.options.fields.temp]
code = "temp"
"""


def make_tree(root: Any) -> None:
    imu, room = (root / "sys/bus/iio/devices" / f"iio:device{number}" for number in (0, 1))
    for folder in (imu / "scan_elements", imu / "buffer", room, root / "dev"):
        folder.mkdir(parents=True)
    files = {
        imu / "name": "lsm6dso",
        imu / "sampling_frequency": "100",
        imu / "in_accel_scale": "0.001",
        imu / "buffer/enable": "0",
        imu / "scan_elements/in_accel_x_en": "0",
        imu / "scan_elements/in_accel_x_index": "0",
        imu / "scan_elements/in_accel_x_type": "le:s16/16>>0",
        room / "name": "hts221",
        room / "in_temp_input": "21500",
    }
    for path, text in files.items():
        path.write_text(f"{text}\n")
    os.mkfifo(root / "dev/iio:device0")


async def until(agent: Any, good: Callable[[dict[str, SourceStatus]], bool]) -> dict[str, SourceStatus]:
    async with asyncio.timeout(20):
        while True:
            assert agent.process.poll() is None, (agent.path / "log.txt").read_text()
            with suppress(UnavailableError):
                async with LocalAgent(agent.path) as local:
                    seen = {one.name: one for one in (await local.status()).sources}
                if good(seen):
                    return seen
            await asyncio.sleep(0.02)


async def test_what_devices_send_is_stored_and_the_agent_ends_in_peace(device, tmp_path, monkeypatch) -> None:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("no dbus-daemon here (apt-get install dbus)")
    (device.path / "agent.toml").write_text(CONFIG)
    make_tree(device.path / "tree")
    async with fake_bluez(tmp_path) as bluez:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bluez.bus_address)
        bluez.add_device(BELT, "Belt", {0x180D: {0x2A37: ["notify"]}})
        device.start()
        await until(device, lambda s: s["belt"].connected and s["imu"].connected and s["room"].records >= 2)
        for bpm in range(60, 80):
            bluez.notify(BELT, 0x2A37, bytes([0x10, bpm]) + struct.pack("<H", 1024 + bpm))
        node = os.open(device.path / "tree/dev/iio:device0", os.O_WRONLY)
        os.write(node, np.arange(100, dtype="<i2").tobytes())
        seen = await until(device, lambda s: s["belt"].records == 40 and s["imu"].samples == 100)
        assert seen["belt"].detail == "not paired"
        assert [one.errors for one in seen.values()] == [0, 0, 0]
        assert await asyncio.to_thread(device.stop) == 0
        os.close(node)
        assert not bluez.connected(BELT)
    log = (device.path / "log.txt").read_text()
    assert "Traceback" not in log
    assert "was destroyed" not in log
    key = load_key_ring(device.path / "state" / "identity")
    with closing(BufferReader(device.path / "state" / "buffer.db", key)) as reader:
        runs = [run for one in reader.sessions(IMU) for run in reader.read_range(IMU, one.session)]
    assert np.concatenate([run.values for run in runs])[:, 0].tolist() == list(range(100))
