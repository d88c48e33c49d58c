"""Founds the federation with the commands that a hospital would use, each in its own process.

Order: the root holder and the coordinator make keys, every hospital makes its authority's; the root signs who is who;
the coordinator starts; hospitals join and start their trustees; tokens are printed, devices enrol with them and start.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bedside.core.clock import Clock
from bedside.demo.cast import FEDERATION, STREAM, Cast, Device
from bedside.demo.command_line import CommandLine
from bedside.demo.paths import DemoPaths
from bedside.demo.policies import policy_text, write_policy
from bedside.demo.processes import ProcessTable, bedside_command
from bedside.demo.waiting import wait_until
from bedside.firmware_bridge.recording import Recording

COORDINATOR: Final = "coordinator"
HEARTBEAT_S: Final = 10.0
"""Seconds between heartbeats: a device that was killed stays expected for 25 s, long enough to be started again."""

REPLAY_SPEED: Final = 3.0
"""Times real time at which signals go on once a device has its history."""

HELD_OUT_SPEED: Final = 12.0
"""The same for devices that only infer: their predictions with the last model are counted, so there should be many."""

BOARD_SPEED: Final = 12.0
"""Times real time at which the sensor board plays: a board has no history to hand over."""

_READY_TIMEOUT_S: Final = 60.0


def trustee_name(site: str) -> str:
    """Name of a hospital's trustee process."""
    return f"trustee-{site}"


def board_name(device: Device) -> str:
    """Name of the process of a device's sensor board."""
    return f"board-{device.name}"


class Founder:
    """Sets the world up.

    Attributes:
        operator_socket: where the coordinator's operators call; in memory, where paths are short.
        signer_pk: key of the model's author, hexadecimal; known once the model is built.
    """

    def __init__(
        self,
        cast: Cast,
        recordings: Mapping[str, Recording],
        paths: DemoPaths,
        memory: Path,
        commands: CommandLine,
        processes: ProcessTable,
        clock: Clock,
    ) -> None:
        self._cast = cast
        self._history_s = {name: len(one.values) / one.rate_hz for name, one in recordings.items()}
        self._paths = paths
        self._memory = memory
        self._commands = commands
        self._processes = processes
        self._clock = clock
        self.operator_socket = memory / "operator.sock"
        self.signer_pk = ""

    async def found(self) -> None:
        """Make all keys, sign who is who, and start the coordinator."""
        run, paths = self._commands.run, self._paths
        service, enrolment = (f"127.0.0.1:{port}" for port in free_ports(2))
        root = await self._commands.run_json("federation", "init", paths.federation, "--name", FEDERATION)
        await asyncio.gather(
            run("coordinator", "init", paths.coordinator, "--host", "127.0.0.1",
                "--service-address", service, "--enrolment-address", enrolment),
            *(run("site", "init", paths.site(site), "--site", site) for site in self._cast.sites),
        )  # fmt: skip
        self._configure_coordinator()
        named = [word for site in self._cast.sites for word in ("--site", paths.site(site) / "site.public.json")]
        await run("federation", "sign", "--root", paths.federation, *named,
                  "--coordinator", paths.coordinator / "coordinator.public.json",
                  "--out", paths.federation_file)  # fmt: skip
        await run("coordinator", "install", paths.coordinator, paths.federation_file,
                  "--root-pk", str(root["root_pk"]))  # fmt: skip
        self._processes.start(COORDINATOR, bedside_command("coordinator", "serve", paths.coordinator))
        await self.wait_for(self.operator_socket.is_socket, "the coordinator to listen")
        await asyncio.gather(*(self._open_site(site, str(root["root_pk"]), enrolment) for site in self._cast.sites))

    def _configure_coordinator(self) -> None:
        folder = self._paths.coordinator / "conf.d"
        folder.mkdir()
        (folder / "demo.toml").write_text(
            f'operator_socket = "{self.operator_socket}"\nheartbeat_s = {HEARTBEAT_S}\n', "utf-8"
        )

    async def _open_site(self, site: str, root_pk: str, enrolment: str) -> None:
        directory = self._paths.site(site)
        write_policy(directory / "policy.toml", policy_text(site, self.signer_pk))
        await self._commands.run("site", "join", directory, self._paths.federation_file,
                                 "--root-pk", root_pk, "--enrolment-address", enrolment)  # fmt: skip
        keys = self._memory / site
        keys.mkdir(mode=0o700)
        self._processes.start(trustee_name(site), bedside_command("trustee", "run", directory, "--runtime-dir", keys))

    async def admit(self, site: str) -> None:
        """Print a token for a hospital's devices, enrol them with it, and start them."""
        devices = [device for device in self._cast.devices if device.site == site]
        minted = await self._commands.run_json(
            "site", "token", self._paths.site(site), "--uses", str(len(devices)), "--hours", "1"
        )
        await asyncio.gather(*(self._bring_up(device, str(minted["token"])) for device in devices))

    async def _bring_up(self, device: Device, token: str) -> None:
        directory = self._paths.device(device.name)
        await self._commands.run("agent", "init", directory)
        write_policy(directory / "policy.toml", policy_text(device.site, self.signer_pk))
        (directory / "agent.toml").write_text(self._agent_toml(device), "utf-8")
        await self._commands.run("agent", "enrol", directory, "-", "--label", device.name, words_in=token)
        if device.on_board:
            self._processes.start(board_name(device), self._board_command(device))
            await self.wait_for(self._port(device).is_symlink, "the sensor board's port")
        self._processes.start(device.name, bedside_command("agent", "run", directory))

    def _agent_toml(self, device: Device) -> str:
        run = self._memory / device.name
        run.mkdir(mode=0o700)
        lines = [
            f"# The device of {device.name} at {device.site}.",
            f'model = "{self._paths.bundle}"',
            "[training]",
            f"enabled = {str(device.trains).lower()}",
            "[training.gates]",
            "load_per_core = 1000.0  # of one machine that plays all devices at once",
            "[serving]",
            "gate = false  # every window is trained on, and ten judgements a round would be one machine's",
            "[link]",
            f"heartbeat_s = {HEARTBEAT_S}",
            "[api]",
            f'socket = "{run / "agent.sock"}"',
            "[[sources]]",
            f'kind = "{"serial" if device.on_board else "replay"}"',
            f'name = "{STREAM}"',
            "[sources.options]",
            f'stream = "{STREAM}"',
            *(self._board_options(device) if device.on_board else self._replay_options(device)),
        ]
        return "\n".join(lines) + "\n"

    def _replay_options(self, device: Device) -> list[str]:
        recording = self._paths.recording(device.name)
        return [
            f'data = "{recording}"',
            f"speed = {REPLAY_SPEED if device.trains else HELD_OUT_SPEED}",
            f"history_s = {self._history_s[device.name]}",
            "loop = true",
        ]

    def _board_options(self, device: Device) -> list[str]:
        return [f'port = "{self._port(device)}"', f'labels = "{self._paths.recording(device.name)}"', "loop = true"]

    def _board_command(self, device: Device) -> list[str]:
        return [sys.executable, "-P", "-m", "bedside.firmware_bridge.virtual_board",
                "--data", str(self._paths.recording(device.name)), "--pty-link", str(self._port(device)),
                "--name", STREAM, "--speed", str(BOARD_SPEED), "--loop"]  # fmt: skip

    def _port(self, device: Device) -> Path:
        return self._memory / device.name / "board.tty"

    async def wait_for(self, holds: Callable[[], bool], what: str, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Return as soon as `holds()`.

        Raises:
            UnavailableError: `demo-waited`, or `demo-process-ended` when a process is gone.
        """

        def look() -> bool:
            self._processes.require_running()
            return holds()

        await wait_until(look, self._clock, what, timeout_s)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
