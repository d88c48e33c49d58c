"""A Bluetooth heart-rate belt, through bleak and a stand-in for BlueZ on a bus of its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bedside.agent.sources.supervisor import SourceHealth
from fake_bluez import FakeBluez, fake_bluez
from traffic.feeder import Feeder

ADDRESS = "AA:BB:CC:DD:EE:01"
_SERVICE, _MEASUREMENT = 0x180D, 0x2A37
BUS = "DBUS_SYSTEM_BUS_ADDRESS"


class BeltFeeder(Feeder):
    """A notification a minute, with two beat intervals; one in eleven is cut short."""

    kind = "ble"
    needs = "dbus-daemon"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._closing = AsyncExitStack()
        self._bluez: FakeBluez | None = None
        self._bus_before = os.environ.get(BUS)

    async def prepare(self) -> None:
        self._bluez = await self._closing.enter_async_context(fake_bluez(self.folder))
        self._bluez.add_device(ADDRESS, "Belt", {_SERVICE: {_MEASUREMENT: ["notify"]}})
        os.environ[BUS] = self._bluez.bus_address

    def options(self) -> dict[str, Any]:
        return {"stream": self.name, "profiles": ["heart_rate"], "address": ADDRESS, "clock": "arrival"}

    def streams(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}-rr")

    async def start(self, health: SourceHealth) -> None:
        assert self._bluez is not None
        while not self._bluez.notifies(ADDRESS, _MEASUREMENT):
            await asyncio.sleep(0.01)

    async def minute(self, number: int, start_ns: int) -> None:
        assert self._bluez is not None
        if number % 11 == 10:
            self._bluez.notify(ADDRESS, _MEASUREMENT, b"\x01\x48")
            self.sent.bad["bad-message"] += 1
            return
        intervals = b"".join((800 + at).to_bytes(2, "little") for at in (number % 50, number % 60))
        self._bluez.notify(ADDRESS, _MEASUREMENT, bytes([0x10, 60 + number % 60]) + intervals)
        self.sent.good += 3

    async def stop(self) -> None:
        await self._closing.aclose()
        if self._bus_before is None:
            os.environ.pop(BUS, None)
        else:
            os.environ[BUS] = self._bus_before
