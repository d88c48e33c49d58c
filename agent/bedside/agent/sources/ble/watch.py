"""Tells when BlueZ dies or forgets a device; bleak takes both for a device that is connected and says nothing.

Source: D-Bus specification, `NameOwnerChanged` and `InterfacesRemoved`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dbus_fast.message import Message

_BLUEZ: Final = "org.bluez"
_DEVICE: Final = "org.bluez.Device1"
_RULES: Final = (
    "type='signal',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.bluez'",
    "type='signal',interface='org.freedesktop.DBus.ObjectManager',member='InterfacesRemoved',arg0path='{}'",
)


@asynccontextmanager
async def watching(device_path: str, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Call `gone` when the owner of BlueZ's name changes, or the object of a device is removed.

    Raises:
        DBusFastError: the bus refuses us.
        OSError: there is no bus.
        EOFError: it has gone.
    """
    from dbus_fast.aio.message_bus import MessageBus
    from dbus_fast.constants import BusType
    from dbus_fast.message import Message

    def hear(signal: Message) -> None:
        if signal.member == "NameOwnerChanged":
            lost = signal.body[0] == _BLUEZ
        else:
            lost = signal.member == "InterfacesRemoved" and signal.body[0] == device_path and _DEVICE in signal.body[1]
        if lost:
            gone()

    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        await bus.connect()
        bus.add_message_handler(hear)
        for rule in _RULES:
            await bus.call(
                Message(
                    destination="org.freedesktop.DBus",
                    interface="org.freedesktop.DBus",
                    path="/org/freedesktop/DBus",
                    member="AddMatch",
                    signature="s",
                    body=[rule.format(device_path)],
                )
            )
        yield
    finally:
        bus.disconnect()
        with suppress(EOFError, OSError):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast does not say that it is None
