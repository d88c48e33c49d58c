"""Each check of a device: how it is well, and how it fails."""

import asyncio
import os
import signal

import pytest

from bedside.agent.doctor import inputs, kernel, part, running
from bedside.agent.doctor.configuration import CONFIGURATION
from bedside.agent.doctor.inputs import BLUETOOTH, SERIAL
from bedside.agent.doctor.kernel import HEAT
from bedside.agent.doctor.running import RUNNING
from bedside.agent.doctor.runtimes import LITERT, ONNX
from bedside.ondevice.runtimes import installed
from bedside.proto.v1 import device_pb2, local_pb2
from bedside.service.doctor.check import Place, examine
from bedside.service.health import Level
from bedside.service.platform import SystemClock
from fake_bluez import fake_bluez
from resident_device import LINK_OFF, make_directory, resident

OK, WARN, FAIL = Level.OK, Level.DEGRADED, Level.FAILED
BLE = '[[sources]]\nkind = "ble"\nname = "belt"\n[sources.options]\nstream = "belt"\nprofiles = ["heart_rate"]\n'
BLE += 'address = "AA:BB:CC:DD:EE:FF"\n'


@pytest.fixture
def place(tmp_path):
    return Place(make_directory(tmp_path / "device", ""), SystemClock(), root=tmp_path)


def configure(place, text):
    (place.directory / "agent.toml").write_text(text + LINK_OFF)
    return place


def levels(check, place):
    return [one.level for one in examine([check], place)]


def test_a_configuration_that_holds_is_well_and_each_mistake_in_one_is_told(place):
    assert levels(CONFIGURATION, place) == [OK]
    configure(place, 'model = "gone.tar"\n[[sources]]\nkind = "replay"\nname = "x"\n')
    found = examine([CONFIGURATION], place)
    assert [one.level for one in found] == [FAIL, FAIL]
    assert "gone.tar" in found[0].found
    assert "source x" in found[1].found
    configure(place, "colour = 1\n")
    (found,) = examine([CONFIGURATION], place)
    assert (found.level, "colour" in found.found) == (FAIL, True)


def test_what_is_most_likely_not_meant_is_doubtful(place):
    configure(place, '[[alarms]]\nname = "still"\nlabel = "rest"\nabove = 0.5\nstream = "nobody"\n')
    assert levels(CONFIGURATION, place) == [WARN, OK]


def test_both_runtimes_compute_here(place):
    found = examine([ONNX, LITERT], place)
    assert [one.level for one in found] == [OK, OK]
    assert "trains and infers" in found[0].found


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A module of this name that ends its process when it is imported, as on a processor that it was not built for."""

    def breaks(name):
        (tmp_path / "stubs" / name).mkdir(parents=True)
        body = f"import os, signal\nos.kill(os.getpid(), {int(signal.SIGILL)})\n"
        (tmp_path / "stubs" / name / "__init__.py").write_text(body)
        (tmp_path / "stubs" / name / "interpreter.py").write_text(body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))

    return breaks


def test_a_runtime_that_ends_its_process_is_found_and_ends_none_of_ours(place, broken):
    broken("onnxruntime")
    (found,) = examine([ONNX], place)
    assert found.level is FAIL
    assert f"status {-signal.SIGILL}" in found.found
    assert "reinstall" in found.remedy


def test_a_broken_litert_is_doubtful_while_onnxruntime_serves_in_its_place_and_else_fails(place, broken):
    broken("ai_edge_litert")
    (found,) = examine([LITERT], place)
    assert (found.level, "onnxruntime serves" in found.found) == (WARN, True)
    configure(place, '[inference]\nruntime = "litert"\n')
    assert levels(LITERT, place) == [FAIL]


def test_a_device_without_a_runtime_can_run_no_model(place, monkeypatch):
    monkeypatch.setitem(installed._MODULES, "onnx", ())
    assert levels(ONNX, place) == [WARN]  # LiteRT is here
    monkeypatch.setitem(installed._MODULES, "litert", ())
    assert levels(ONNX, place) == [FAIL]
    assert levels(LITERT, place) == []
    configure(place, '[inference]\nruntime = "litert"\n')
    assert levels(LITERT, place) == [FAIL]


def test_heat_low_voltage_and_throttling_are_told(place, monkeypatch, tmp_path):
    reading = {"mc": 50_000}
    monkeypatch.setattr(kernel, "temperature_mc", lambda: reading["mc"])
    assert levels(HEAT, place) == [OK]
    reading["mc"] = 95_000
    assert levels(HEAT, place) == [WARN]
    word = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    word.parent.mkdir(parents=True)
    word.write_text("5\n")  # undervoltage and throttled, now
    assert levels(HEAT, place) == [FAIL, WARN]
    reading["mc"] = None
    word.unlink()
    assert levels(HEAT, place) == []


def test_a_serial_port_must_be_there_and_ours_to_open(place, monkeypatch):
    master, slave = os.openpty()
    try:
        port = os.ttyname(slave)
        text = '[[sources]]\nkind = "serial"\nname = "board"\n[sources.options]\nstream = "wrist"\nport = "{}"\n'
        assert levels(SERIAL, configure(place, text.format(port))) == [OK]
        monkeypatch.setattr(inputs.os, "access", lambda _path, _mode: False)
        (found,) = examine([SERIAL], place)
        assert (found.level, "dialout" in found.remedy) == (FAIL, True)
    finally:
        os.close(master)
        os.close(slave)
    assert levels(SERIAL, configure(place, text.format("/dev/ttyGONE"))) == [WARN]
    assert levels(SERIAL, configure(place, "")) == []


async def test_bluetooth_needs_bluez_and_an_adapter_that_is_on(place, tmp_path):
    configure(place, BLE)
    async with fake_bluez(tmp_path) as fake:
        environ = {"DBUS_SYSTEM_BUS_ADDRESS": fake.bus_address}
        there = Place(place.directory, place.clock, environ)

        async def look():
            (found,) = await asyncio.to_thread(examine, [BLUETOOTH], there)
            return found

        assert (await look()).level is OK
        adapter = fake._objects["/org/bluez/hci0"]["org.bluez.Adapter1"]
        adapter["Powered"].value = False
        found = await look()
        assert (found.level, "power on" in found.remedy) == (FAIL, True)
        configure(place, BLE + 'adapter = "hci7"\n')
        assert "no Bluetooth adapter hci7" in (await look()).found
    found = await look()
    assert (found.level, "BlueZ does not answer" in found.found) == (FAIL, True)
    assert await asyncio.to_thread(examine, [BLUETOOTH], configure(place, "")) == []


async def test_a_running_agent_is_as_it_says_and_one_that_does_not_run_fails(place):
    (found,) = await asyncio.to_thread(examine, [RUNNING], place)
    assert (found.level, "bedside agent run" in found.remedy) == (FAIL, True)
    (place.directory / "agent.toml").write_text("")  # its link is on, and it belongs to no site
    async with resident(place.directory) as agent:
        await agent.until(lambda: agent.component("link").startswith("DEGRADED"))
        found = await asyncio.to_thread(examine, [RUNNING], place)
    told = {one.found.split(":")[0]: one.level for one in found}
    assert told["link"] is WARN
    assert "inference" in told


def test_an_agent_whose_components_are_all_well_is_well_and_a_failed_one_fails(place, monkeypatch):
    ingest = device_pb2.ComponentHealth(component="ingest", state=device_pb2.COMPONENT_STATE_OK)

    async def answer(_place):
        return local_pb2.AgentStatus(uptime_s=90, predictions=7, components=[ingest])

    monkeypatch.setattr(running, "_ask", answer)
    (found,) = examine([RUNNING], place)
    assert (found.level, found.found) == (OK, "well since 1 min 30 s, 7 predictions")
    ingest.state, ingest.sentence = device_pb2.COMPONENT_STATE_FAILED, "no source is left"
    (found,) = examine([RUNNING], place)
    assert (found.level, found.found) == (FAIL, "ingest: no source is left")


def test_the_identity_lies_where_the_configuration_says_and_would_say(place):
    assert part.identity_directory(place) == place.directory / "state" / "identity"
    configure(place, 'state_dir = "elsewhere"\n')
    assert part.identity_directory(place) == place.directory / "elsewhere" / "identity"
    (place.directory / "agent.toml").write_text("[")
    assert part.identity_directory(place) == place.directory / "state" / "identity"
