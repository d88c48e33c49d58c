"""One Bluetooth adapter for every source that wants a device of it.

BlueZ lets a process look for devices once at a time, so that all who look share one scan: it begins with the first of
them and ends with the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from bleak import BleakScanner
    from bleak.args.bluez import BlueZScannerArgs
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

_RENEW_S: Final = 60.0
"""After which whoever joins a scan begins a new one: a BlueZ that was started anew has forgotten the old."""

PART_S: Final = 2.0
"""For BlueZ to let go of something; an agent that ends waits no longer."""

Wanted = Callable[[str, str], bool]
"""Whether an address and a name, empty when unknown, are those of the wanted device."""


class SharedScan:
    """Looks for devices on one adapter."""

    def __init__(self, adapter: str) -> None:
        """Prepare; `adapter` is its name, such as hci0, or empty for the first."""
        self._options: BlueZScannerArgs = {"adapter": adapter} if adapter else {}
        self._seekers: list[tuple[Wanted, asyncio.Future[BLEDevice]]] = []
        self._scanner: BleakScanner | None = None
        self._begun_s = 0.0
        self._lock = asyncio.Lock()

    async def find(self, wanted: Wanted, limit_s: float) -> BLEDevice | None:
        """A device that shows itself within `limit_s` seconds.

        Raises:
            BleakError: the adapter is not there, or it is off.
            OSError: there is no BlueZ.
        """
        found: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()
        seeker = (wanted, found)
        self._seekers.append(seeker)
        try:
            await self._begin()
            async with asyncio.timeout(limit_s):
                return await found
        except TimeoutError:
            return None
        finally:
            self._seekers.remove(seeker)
            await self._end()

    async def connected(self, wanted: Wanted, service_uuids: list[str]) -> BLEDevice | None:
        """A device that BlueZ believes connected, and that offers a service: it shows itself to nobody.

        Raises:
            BleakError: there is no adapter.
            OSError: there is no BlueZ.
        """
        from bleak import BleakAdapter

        adapter = await BleakAdapter.get(bluez=self._options)
        for device in await adapter.get_connected_devices(service_uuids):
            if wanted(device.address, device.name or ""):
                return device
        return None

    async def _begin(self) -> None:
        from bleak import BleakScanner

        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._scanner is not None and now_s - self._begun_s > _RENEW_S:
                await self._stop()
            if self._scanner is None:
                scanner = BleakScanner(self._seen, bluez=self._options)
                await scanner.start()
                self._scanner, self._begun_s = scanner, now_s
            for device, told in self._scanner.discovered_devices_and_advertisement_data.values():
                self._seen(device, told)

    async def _end(self) -> None:
        async with self._lock:
            if not self._seekers and self._scanner is not None:
                await self._stop()

    async def _stop(self) -> None:
        from bleak.exc import BleakError

        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            with suppress(BleakError, OSError, EOFError):  # BlueZ may have gone, and its scan with it
                async with asyncio.timeout(PART_S):
                    await scanner.stop()

    def _seen(self, device: BLEDevice, told: AdvertisementData) -> None:
        for wanted, found in self._seekers:
            if not found.done() and wanted(device.address, told.local_name or device.name or ""):
                found.set_result(device)


_SCANS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedScan]]] = WeakKeyDictionary()


def shared_scan(adapter: str) -> SharedScan:
    """The scan of an adapter that all sources of this process share."""
    scans = _SCANS.setdefault(asyncio.get_running_loop(), {})
    return scans.setdefault(adapter, SharedScan(adapter))
