"""A connection to one Bluetooth device: found, connected, subscribed to, until it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from bedside.agent.sources.ble.adapter import PART_S, Wanted, shared_scan
from bedside.agent.sources.ble.watch import watching
from bedside.agent.sources.kind import SourceGauge
from bedside.core.clock import Clock
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bleak import BleakClient
    from bleak.backends.device import BLEDevice

BATTERY_LEVEL: Final = 0x2A19
_FIND_S: Final = 15.0
_CONNECT_S: Final = 20.0
_SET_UP_S: Final = 60.0
"""For all of it: a BlueZ that hangs answers nothing at all."""
_MAX_WAITING: Final = 4_096
"""Notifications that wait for the consumer; an oximeter sends one a second."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What a device sent of itself.

    Attributes:
        characteristic: 16-bit UUID.
        value: as sent.
        arrived_ns: wall time.
    """

    characteristic: int
    value: bytes
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Which device, and what of it.

    Attributes:
        shown: what errors call it.
        wanted: tells it from others.
        adapter: name of ours, empty for the first.
        services: characteristics by service, 16-bit UUIDs; of each service it has to have one.
    """

    shown: str
    wanted: Wanted
    adapter: str
    services: Mapping[int, Sequence[int]]


_Waiting = asyncio.Queue[Notification | None]
"""What has come; None is the end."""


class BleLink:
    """One connection after the other to `peer`."""

    def __init__(self, peer: Peer, clock: Clock, gauge: SourceGauge, overflow: Callable[[Notification], None]) -> None:
        """Prepare; nothing is opened.

        Args:
            peer: to connect to.
            clock: for the time of arrival.
            gauge: told whether it is connected, whether it is paired, and its battery's level.
            overflow: takes what nobody took in time.
        """
        self._peer = peer
        self._clock = clock
        self._gauge = gauge
        self._overflow = overflow
        self._pairing = ""
        self._scan_first = False

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Connect, and yield what comes until the device goes away; what came before that is yielded first.

        Raises:
            UnavailableError: `ble-away`, `ble-refused`, `ble-lost`.
            ConfigError: `ble-profile` when the device has nothing of a service.
        """
        from bleak import BleakClient
        from bleak.exc import BleakError
        from dbus_fast.errors import DBusFastError

        failures = (BleakError, DBusFastError, OSError, EOFError)  # a time-out is an OSError
        waiting = _Waiting()
        self._gauge.connected, self._gauge.detail = False, ""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_SET_UP_S):
                    device = await self._find()
                    gone = partial(waiting.put_nowait, None)
                    client = BleakClient(device, lambda _client: gone(), timeout=_CONNECT_S)
                    await stack.enter_async_context(watching(device.details["path"], gone))
                    await client.connect()
                    stack.push_async_callback(_disconnect, client, failures)
                    await self._subscribe(client, waiting)
                    await self._watch_battery(client)
            except failures as error:
                self._scan_first = True
                while not waiting.empty():  # a cuff tells all it has at once, and hangs up
                    if (notification := waiting.get_nowait()) is not None:
                        yield notification
                raise self._refused(error) from error
            self._scan_first = False
            self._gauge.connected = True
            stack.callback(setattr, self._gauge, "connected", False)
            while (notification := await waiting.get()) is not None:
                yield notification
            raise UnavailableError("ble-lost", f"the connection to {self._peer.shown} was lost")

    async def _find(self) -> BLEDevice:
        services = [uuid_of(service) for service in self._peer.services]
        scan, wanted = shared_scan(self._peer.adapter), self._peer.wanted
        device = None if self._scan_first else await scan.connected(wanted, services)
        device = device or await scan.find(wanted, _FIND_S)
        if device is None:
            self._scan_first = False
            raise UnavailableError(
                "ble-away", f"{self._peer.shown} does not show itself", remedy="wake it, and bring it nearer"
            )
        paired = device.details["props"].get("Paired")
        self._pairing = self._gauge.detail = "paired" if paired else "not paired"
        return device

    async def _subscribe(self, client: BleakClient, waiting: _Waiting) -> None:
        for service, characteristics in self._peer.services.items():
            offered = [one for one in characteristics if client.services.get_characteristic(uuid_of(one))]
            if not offered:
                raise ConfigError(
                    "ble-profile",
                    f"{self._peer.shown} has no characteristic of the service {service:#06x}",
                    remedy="correct `profiles` of this source",
                )
            for one in offered:
                await client.start_notify(uuid_of(one), self._taker(one, waiting))

    def _taker(self, characteristic: int, waiting: _Waiting) -> Callable[[object, bytearray], None]:
        def take(_sender: object, value: bytearray) -> None:
            notification = Notification(characteristic, bytes(value), self._clock.now_ns())
            if waiting.qsize() < _MAX_WAITING:
                waiting.put_nowait(notification)
            else:
                self._overflow(notification)

        return take

    async def _watch_battery(self, client: BleakClient) -> None:
        level = client.services.get_characteristic(uuid_of(BATTERY_LEVEL))
        if level is None:
            return
        if "read" in level.properties:
            self._tell_battery(level, await client.read_gatt_char(level))
        if "notify" in level.properties:
            await client.start_notify(level, self._tell_battery)

    def _tell_battery(self, _sender: object, value: bytearray) -> None:
        if len(value) == 1 and value[0] <= 100:
            self._gauge.detail = f"{self._pairing}, battery {value[0]} %"

    def _refused(self, error: BaseException) -> UnavailableError:
        return UnavailableError(
            "ble-refused",
            f"{self._peer.shown} cannot be reached: {bounded(str(error) or type(error).__name__, 120)}",
            remedy="check `systemctl status bluetooth`, and that it is paired: bluetoothctl pair ADDRESS",
        )


async def _disconnect(client: BleakClient, failures: tuple[type[Exception], ...]) -> None:
    with suppress(*failures):  # it may be gone
        async with asyncio.timeout(PART_S):
            await client.disconnect()


def uuid_of(short: int) -> str:
    """The whole UUID of a number that the Bluetooth SIG assigned."""
    return f"{short:08x}-0000-1000-8000-00805f9b34fb"
