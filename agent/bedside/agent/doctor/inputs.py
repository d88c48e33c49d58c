"""What sources need of the machine: serial ports, and Bluetooth."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bedside.agent.config import SourceConfig
from bedside.agent.doctor.configuration import config_of
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good

ANSWER_S: Final = 10.0
"""Seconds in which the bus answers, or does not."""


def _serial(place: Place) -> Iterator[Finding]:
    for source in _sources(place, "serial", "ivy450c"):
        port = source.options.get("port")
        if not isinstance(port, str) or "://" in port:
            continue
        path = place.directory / port
        if not path.exists():
            yield doubtful(f"source {source.name}: {port} is not there", "plug the board in; look at dmesg")
        elif not os.access(path, os.R_OK | os.W_OK):
            yield bad(f"source {source.name}: {port} is not this user's to read and write")
        else:
            yield good(f"source {source.name}: {port} is there")


def _bluetooth(place: Place) -> Iterator[Finding]:
    wanted = {str(source.options.get("adapter", "")) for source in _sources(place, "ble")}
    if not wanted:
        return
    try:
        powered = asyncio.run(_adapters(place.environ.get("DBUS_SYSTEM_BUS_ADDRESS")))
    except Exception as error:  # noqa: BLE001 - dbus_fast raises whatever the socket, the bus or BlueZ come to
        what = str(error) or type(error).__name__
        yield bad(f"BlueZ does not answer on the system's bus: {what}", "apt install bluez; systemctl start bluetooth")
        return
    for name in sorted(wanted):
        if not (name in powered if name else powered):
            yield bad(f"there is no Bluetooth adapter {name}".rstrip(), "plug it in; rfkill unblock bluetooth")
        elif not (powered[name] if name else any(powered.values())):
            yield bad(f"the Bluetooth adapter {name} is off".replace("  ", " "), "bluetoothctl power on")
        else:
            yield good(f"Bluetooth adapter {name or ', '.join(sorted(powered))}")


async def _adapters(address: str | None) -> dict[str, bool]:
    """The adapters of BlueZ by name, and whether each is on."""
    from dbus_fast import BusType, Message, MessageType
    from dbus_fast.aio import MessageBus

    async with asyncio.timeout(ANSWER_S):
        bus = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
        try:
            call = Message(
                destination="org.bluez",
                path="/",
                interface="org.freedesktop.DBus.ObjectManager",
                member="GetManagedObjects",
            )
            reply = await bus.call(call)
        finally:
            bus.disconnect()
    if reply.message_type is not MessageType.METHOD_RETURN:
        raise ConnectionError(f"there is no org.bluez ({reply.error_name})")
    objects: dict[str, dict[str, dict[str, Any]]] = reply.body[0]
    adapters = {path: faces["org.bluez.Adapter1"] for path, faces in objects.items() if "org.bluez.Adapter1" in faces}
    return {Path(path).name: bool(face["Powered"].value) for path, face in adapters.items() if "Powered" in face}


def _sources(place: Place, *kinds: str) -> list[SourceConfig]:
    config = config_of(place)
    return [source for source in config.sources if source.kind in kinds] if config is not None else []


SERIAL: Final = Check(
    "serial-ports",
    "that the port of each serial source is there, and the agent's user may open it",
    "usermod -aG dialout bedside-agent; in a unit of your own, SupplementaryGroups=dialout and DeviceAllow=",
    _serial,
)
BLUETOOTH: Final = Check(
    "bluetooth",
    "for sources of kind ble: that BlueZ answers, and its adapter is there and on",
    "apt install bluez; the drop-in ble.conf lets the unit reach it (docs/units.md, Sensors)",
    _bluetooth,
)
