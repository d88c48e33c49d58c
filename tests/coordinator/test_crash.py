"""kill -9 of a real coordinator process between seal and result: the same result, every device counted once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from bedside.core.signing import parse_strict
from bedside.proto.v1.round_pb2 import Result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """`bedside coordinator serve` on fixed ports."""

    def __init__(self, federation, log: Path) -> None:
        self.federation = federation
        self.directory = federation.home.directory
        self.service, self.enrolment = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.log = log
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = "from bedside.service.cli import main; main()"
        command = [sys.executable, "-c", code, "coordinator", "serve", str(self.directory)]
        command += ["--service-address", self.service, "--enrolment-address", self.enrolment]
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "BEDSIDE_LOG": "json"})

    async def ready(self) -> None:
        async with asyncio.timeout(20):
            while self.log.read_bytes().count(b"coordinator-ready") < self.starts:
                assert self.child is not None
                assert self.child.poll() is None, self.log.read_text()
                await asyncio.sleep(0.02)

    starts = 1

    def kill(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


async def test_killed_between_seal_and_result_it_states_the_identical_result(federation, bundle, open_desk, tmp_path):
    process = Process(federation, tmp_path / "log")
    process.start()
    await process.ready()
    sock = str(federation.home.directory / "operator.sock")
    try:
        desk = open_desk(federation, process.service, process.enrolment, sock)
        await desk.populate(devices=2)
        await desk.start(bundle)
        alder, birch = desk.trustees()
        for trustee in (alder, birch):
            await trustee.serve(until="open")
        devices = desk.devices()
        for device in devices:
            await device.beat()
        for device in devices:
            device.make(await device.offer())
            await device.begin()
            await device.send()
        for trustee in (alder, birch):
            await trustee.serve(until="seal")
        await alder.serve(until="reveal")
        process.kill()
        await desk.close()
        copy = tmp_path / "copy"
        shutil.copytree(federation.home.directory, copy, ignore=shutil.ignore_patterns("*.sock"))

        results = []
        for directory in (federation.home.directory, copy):
            process.directory = directory
            process.starts += 1
            process.start()
            await process.ready()
            again = open_desk(federation, process.service, process.enrolment, str(directory / "operator.sock"))
            late = again.trustee(birch.member)
            late.plans, late.sets = birch.plans, birch.sets
            late.openings, late.secrets = birch.openings, birch.secrets
            await late.serve(until="reveal")
            detail = await again.ended()
            assert detail.summary.phase == "opened"
            assert detail.summary.contributors == 4
            assert [one.state for one in detail.cohorts[0].devices] == ["counted"] * 4
            results.append(parse_strict(Result, detail.result.payload))
            await again.close()
            process.kill()
        first, second = results
        first.ClearField("finished_at_s")
        second.ClearField("finished_at_s")
        assert first == second
    finally:
        process.kill()
