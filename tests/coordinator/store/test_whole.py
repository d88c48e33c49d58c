"""A whole coordinator on PostgreSQL: a round, an outage in the middle of one, and what operators see of it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bedside.coordinator.database_url import parse_database_url
from bedside.coordinator.doctor import PART
from bedside.coordinator.rounds import driver
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.doctor.check import Place, examine
from bedside.service.health import Level
from bedside.service.platform import SystemClock

CODE = "from bedside.service.cli import main; main()"


@pytest.fixture
def url(server):
    return server.new_database()


async def until(condition, deadline_s=20.0):
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def status(federation):
    socket = str(federation.home.directory / "operator.sock")
    command = ["-c", CODE, "coordinator", "status", "--socket", socket, "--json"]
    child = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    told, _ = await child.communicate()
    return child.returncode, json.loads(told)


async def test_a_round_bears_an_outage_of_its_database(federation, bundle, server, url, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(driver, "STORE_RETRY_S", 0.05)
    async with federation.coordinator(database=url) as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        trustees, devices = desk.trustees(), desk.devices()
        for trustee in trustees:
            await trustee.serve(until="open")
        for device in devices:
            await device.beat()
        await devices[0].take_part()
        assert (await status(federation))[0] == 0

        await asyncio.to_thread(server.stop)
        try:
            with pytest.raises(UnavailableError) as caught:
                await devices[1].take_part()
            assert caught.value.code == "store-unavailable"

            async def degraded():
                code, told = await status(federation)
                return (code, told["health"], told["newest_round"]) == (1, "degraded", "not known")

            await until(degraded)
            assert desk.alive.parts.health.worst().level is Level.DEGRADED
            async with grpc.aio.insecure_channel(f"unix:{federation.home.directory}/operator.sock") as channel:
                probe = health_pb2_grpc.HealthStub(channel)
                told = await probe.Check(health_pb2.HealthCheckRequest(service="store"))
                assert told.status == health_pb2.HealthCheckResponse.SERVING, "degraded is not dead"
        finally:
            await asyncio.to_thread(server.start)

        async def well():
            return (await status(federation))[0] == 0

        await until(well)
        serving = [asyncio.create_task(trustee.serve()) for trustee in trustees]
        for device in devices[1:]:
            await device.beat()
            await device.take_part()
        detail = await desk.ended()
        for task in serving:
            task.cancel()
        assert (detail.summary.phase, detail.summary.contributors) == ("opened", 4)
        assert not any(worker.done() for worker in desk.alive.workers)
    assert url not in caplog.text
    async with federation.coordinator(database=url) as desk:
        assert (await desk.round()).summary.phase == "opened"
        assert not federation.home.database_path.exists()


async def test_another_coordinators_database_is_refused(new_federation, tmp_path, url):
    one = new_federation("alder", "birch")
    async with one.coordinator(database=url):
        pass
    (one.home.directory / "identity" / "sign.key").write_bytes(b"another key of thirty-two bytes!")
    with pytest.raises(ConfigError) as caught:
        async with one.coordinator(database=url):
            pass
    assert caught.value.code == "other-database"


def test_a_doctor_looks_at_the_server(federation, server, url):
    file = federation.home.config_path
    place = Place(federation.home.directory, SystemClock())
    (check,) = (one for one in PART.checks if one.name == "store")

    def look(text):
        file.write_text(text)
        return examine([check], place)

    found = look(f'database = "{url}"\n')
    assert [one.level for one in found] == [Level.OK, Level.FAILED]
    assert "PostgreSQL" in found[0].found
    assert "fsync = off" in found[1].found
    (missing,) = look(f'database = "postgresql://{parse_database_url(url).name}/x?host=/nowhere"\n')
    assert missing.level is Level.FAILED
    (secret,) = look(f'database = "{url}"\ndatabase_password = "no-such-file"\n')
    assert "secret-missing" in secret.found
