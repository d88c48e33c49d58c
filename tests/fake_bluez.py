"""A stand-in for BlueZ on a private system bus: an adapter, devices with GATT services, and what they notify."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADAPTER = "/org/bluez/hci0"
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:tmpdir=/tmp</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""
_ADVERTISE_S = 0.01


@asynccontextmanager
async def fake_bluez(directory: Path) -> AsyncIterator[FakeBluez]:
    """Run a bus and the stand-in on it; its address is `bus_address`."""
    config = directory / "bus.conf"
    config.write_text(_CONFIG)
    daemon = await asyncio.create_subprocess_exec(
        *("dbus-daemon", "--config-file", str(config), "--nofork", "--print-address=1"), stdout=subprocess.PIPE
    )
    try:
        assert daemon.stdout is not None
        address = (await daemon.stdout.readline()).decode().strip()
        bus = await MessageBus(bus_address=address).connect()
        fake = FakeBluez(bus, address)
        await bus.request_name("org.bluez")
        try:
            yield fake
        finally:
            await fake.stop()
    finally:
        daemon.terminate()
        await daemon.wait()


class FakeBluez:
    """What a test does to the devices.

    Attributes:
        bus_address: for DBUS_SYSTEM_BUS_ADDRESS.
        scans: times that somebody began to look for devices.
        connections: times that somebody connected, by address.
    """

    def __init__(self, bus: MessageBus, bus_address: str) -> None:
        self.bus_address = bus_address
        self.scans = 0
        self.connections: dict[str, int] = {}
        self._bus = bus
        self._objects: dict[str, dict[str, dict[str, Variant]]] = {
            ADAPTER: {
                "org.bluez.Adapter1": {
                    "Address": Variant("s", "00:11:22:33:44:55"),
                    "Powered": Variant("b", value=True),
                    "Roles": Variant("as", ["central"]),
                }
            }
        }
        self._scanning: set[str] = set()
        self._hidden: set[str] = set()
        self._forgotten: set[str] = set()
        self._refusing: set[str] = set()
        self._notifying: set[str] = set()
        self._values: dict[str, bytes] = {}
        bus.add_message_handler(self._answer)
        self._advertising = asyncio.create_task(self._advertise())

    async def stop(self) -> None:
        self._advertising.cancel()
        await asyncio.gather(self._advertising, return_exceptions=True)
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()

    def add_device(
        self, address: str, name: str, services: Mapping[int, Mapping[int, Sequence[str]]], *, paired: bool = False
    ) -> None:
        """A device with its services: flags by characteristic."""
        path = _path(address)
        self._objects[path] = {
            "org.bluez.Device1": {
                "Address": Variant("s", address),
                "Name": Variant("s", name),
                "Alias": Variant("s", name),
                "Adapter": Variant("o", ADAPTER),
                "UUIDs": Variant("as", [_uuid(one) for one in services]),
                "Paired": Variant("b", paired),
                "Connected": Variant("b", value=False),
                "ServicesResolved": Variant("b", value=False),
                "RSSI": Variant("n", -50),
            }
        }
        for service, characteristics in services.items():
            place = f"{path}/service{service:04x}"
            self._objects[place] = {
                "org.bluez.GattService1": {
                    "UUID": Variant("s", _uuid(service)),
                    "Primary": Variant("b", value=True),
                    "Device": Variant("o", path),
                }
            }
            for one, flags in characteristics.items():
                self._objects[f"{place}/char{one:04x}"] = {
                    "org.bluez.GattCharacteristic1": {
                        "UUID": Variant("s", _uuid(one)),
                        "Service": Variant("o", place),
                        "Flags": Variant("as", list(flags)),
                        "MTU": Variant("q", 23),
                    }
                }

    def hide(self, address: str, *, hidden: bool = True) -> None:
        """It shows itself no more, or again."""
        (self._hidden.add if hidden else self._hidden.discard)(_path(address))

    def connect(self, address: str) -> None:
        """Somebody else has connected it."""
        self._set(_path(address), {"Connected": Variant("b", value=True), "ServicesResolved": Variant("b", value=True)})

    def refuse(self, address: str, *, refused: bool = True) -> None:
        """It lets nobody connect, or again."""
        (self._refusing.add if refused else self._refusing.discard)(_path(address))

    def set_value(self, address: str, characteristic: int, value: bytes) -> None:
        self._values[self._characteristic(address, characteristic)] = value

    def notifies(self, address: str, characteristic: int) -> bool:
        """Whether somebody listens to it."""
        return self._characteristic(address, characteristic) in self._notifying

    def notify(self, address: str, characteristic: int, value: bytes) -> None:
        path = self._characteristic(address, characteristic)
        assert path in self._notifying
        self._changed(path, "org.bluez.GattCharacteristic1", {"Value": Variant("ay", value)})

    def drop(self, address: str) -> None:
        """It goes out of reach."""
        path = _path(address)
        self._notifying = {one for one in self._notifying if not one.startswith(path)}
        self._set(path, {"Connected": Variant("b", value=False), "ServicesResolved": Variant("b", value=False)})

    async def crash(self) -> None:
        """BlueZ dies: nobody is told of anything but that its name has no owner."""
        await self._bus.release_name("org.bluez")
        self._notifying.clear()
        self._scanning.clear()
        for interfaces in self._objects.values():
            if "org.bluez.Device1" in interfaces:
                off = {"Connected": Variant("b", value=False), "ServicesResolved": Variant("b", value=False)}
                interfaces["org.bluez.Device1"].update(off)
        self._forgotten = {one for one, interfaces in self._objects.items() if "org.bluez.Device1" in interfaces}

    async def come_back(self) -> None:
        """It is started anew, and knows no device until it sees it again."""
        await self._bus.request_name("org.bluez")

    def forget(self, address: str) -> None:
        """Its object is removed, as when its adapter is pulled out; bleak is not told that it is disconnected."""
        path = _path(address)
        self._notifying = {one for one in self._notifying if not one.startswith(path)}
        self._objects[path]["org.bluez.Device1"]["Connected"] = Variant("b", value=False)
        self._objects[path]["org.bluez.Device1"]["ServicesResolved"] = Variant("b", value=False)
        self._forgotten.add(path)
        self._bus.send(
            Message.new_signal(
                "/", "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved", "oas", [path, ["org.bluez.Device1"]]
            )
        )

    def _characteristic(self, address: str, characteristic: int) -> str:
        ending = f"/char{characteristic:04x}"
        return next(one for one in self._objects if one.startswith(_path(address)) and one.endswith(ending))

    async def _advertise(self) -> None:
        strength = -50
        while True:
            await asyncio.sleep(_ADVERTISE_S)
            strength = -50 if strength < -50 else -51
            for path in [one for one in self._objects if "/dev_" in one and "/service" not in one]:
                if not self._scanning or path in self._hidden:
                    continue
                if path in self._forgotten:
                    self._forgotten.discard(path)
                    self._added(path)
                self._set(path, {"RSSI": Variant("n", strength)})

    def _added(self, path: str) -> None:
        for one, interfaces in self._objects.items():
            if one.startswith(path):
                self._bus.send(
                    Message.new_signal(
                        *("/", "org.freedesktop.DBus.ObjectManager", "InterfacesAdded"),
                        *("oa{sa{sv}}", [one, interfaces]),
                    )
                )

    def _set(self, path: str, properties: dict[str, Variant]) -> None:
        self._objects[path]["org.bluez.Device1"].update(properties)
        self._changed(path, "org.bluez.Device1", properties)

    def _changed(self, path: str, interface: str, properties: dict[str, Variant]) -> None:
        self._bus.send(
            Message.new_signal(
                path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", [interface, properties, []]
            )
        )

    def _answer(self, call: Message) -> Message | bool:
        if call.message_type is not MessageType.METHOD_CALL or call.path not in {*self._objects, "/"}:
            return False
        if any(call.path.startswith(one) for one in self._forgotten):
            return Message.new_error(call, "org.freedesktop.DBus.Error.UnknownObject", "no such object")
        answer: Any = getattr(self, f"_on_{call.member}", None)
        return False if answer is None else answer(call)

    def _on_GetManagedObjects(self, call: Message) -> Message:  # noqa: N802 - named as BlueZ names it
        return Message.new_method_return(call, "a{oa{sa{sv}}}", [self._objects])

    def _on_SetDiscoveryFilter(self, call: Message) -> Message:  # noqa: N802
        return Message.new_method_return(call)

    def _on_StartDiscovery(self, call: Message) -> Message:  # noqa: N802
        if call.sender in self._scanning:
            return Message.new_error(call, "org.bluez.Error.InProgress", "Operation already in progress")
        self._scanning.add(call.sender)
        self.scans += 1
        return Message.new_method_return(call)

    def _on_StopDiscovery(self, call: Message) -> Message:  # noqa: N802
        self._scanning.discard(call.sender)
        return Message.new_method_return(call)

    def _on_Connect(self, call: Message) -> Message:  # noqa: N802
        if call.path in self._refusing:
            return Message.new_error(call, "org.bluez.Error.Failed", "br-connection-canceled")
        address = self._objects[call.path]["org.bluez.Device1"]["Address"].value
        self.connections[address] = self.connections.get(address, 0) + 1
        self._set(call.path, {"Connected": Variant("b", value=True), "ServicesResolved": Variant("b", value=True)})
        return Message.new_method_return(call)

    def _on_Disconnect(self, call: Message) -> Message:  # noqa: N802
        self.drop(self._objects[call.path]["org.bluez.Device1"]["Address"].value)
        return Message.new_method_return(call)

    def _on_StartNotify(self, call: Message) -> Message:  # noqa: N802
        self._notifying.add(call.path)
        return Message.new_method_return(call)

    def _on_ReadValue(self, call: Message) -> Message:  # noqa: N802
        return Message.new_method_return(call, "ay", [self._values[call.path]])


def _path(address: str) -> str:
    return f"{ADAPTER}/dev_{address.replace(':', '_')}"


def _uuid(short: int) -> str:
    return f"{short:08x}-0000-1000-8000-00805f9b34fb"
