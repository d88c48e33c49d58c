"""A whole federation of real processes in one folder, built with the commands that an operator types.

Three sites with a trustee each, five devices that replay synthetic recordings, one coordinator; TLS, SQLite and round
keys on tmpfs. The model is large only because an upload must have a middle: it is three chunks long.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import grpc

from bedside.core.signing import parse_strict
from bedside.demo.processes import ProcessTable, bedside_command, family
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.operator_pb2 import RoundDetail, RoundQuery
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceStub
from bedside.proto.v1.round_pb2 import Answer
from watched_rounds import DEADLINE_S, WatchedRounds, wait_until

RATE_HZ = 50.0
WINDOW = 32
CLASSES = ("rest", "walk", "shake")
STREAM = "wrist"
TASK = "motion"
SITES = {"alder": 2, "birch": 2, "cedar": 1}
HEARTBEAT_S = 5.0
"""A device is waited for until two and a half of these have passed: longer than a restart takes."""


def run_bedside(*arguments: str | Path, timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, whatever its status."""
    return subprocess.run(
        bedside_command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"},
        check=False,
    )


def bedside(*arguments: str | Path, timeout_s: float = DEADLINE_S) -> str:
    """Run one command that must succeed; its standard output."""
    done = run_bedside(*arguments, timeout_s=timeout_s)
    line = " ".join(map(str, arguments))
    assert done.returncode == 0, f"bedside {line} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bedside_json(*arguments: str | Path) -> Any:
    """Run one command with --json; what it printed."""
    return json.loads(bedside(*arguments, "--json"))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Site:
    """One hospital on this machine."""

    name: str
    directory: Path
    runtime: Path

    @property
    def process(self) -> str:
        return f"trustee-{self.name}"


@dataclass
class Agent:
    """One device on this machine."""

    label: str
    site: str
    directory: Path

    @property
    def process(self) -> str:
        return f"agent-{self.label}"


@dataclass
class Federation(WatchedRounds):
    """Everything that runs, and where it lies.

    Attributes:
        folder: of all state directories and logs.
        table: the processes, by name.
        sites: by name.
        agents: by label.
        service_port: of the coordinator's mTLS port.
        bundle: the model that tasks train.
    """

    task: ClassVar[str] = TASK

    folder: Path
    runtime: Path
    table: ProcessTable
    sites: dict[str, Site] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    service_port: int = 0
    enrolment_port: int = 0
    root_pk: str = ""
    author_pk: str = ""

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    @property
    def socket(self) -> Path:
        return self.hub / "operator.sock"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def author_key(self) -> Path:
        return self.folder / "author.key"

    # What an operator does

    def ask(self, *arguments: str | Path) -> Any:
        """A command on the coordinator's socket, as JSON."""
        return bedside_json(*arguments, "--socket", self.socket)

    def start_round(self, *more: str) -> int:
        """Start one round; its number. Every device must be online, so that the round waits for all of them."""
        wait_until(lambda: self.online() == len(self.agents), "every device is online", interval_s=0.1)
        options = (
            "--task",
            TASK,
            "--bundle",
            self.bundle,
            "--epochs",
            "2",
            "--batch-size",
            "16",
            "--max-examples",
            "256",
        )
        started = self.ask("round", "start", *options, "--weighting", "uniform", *more)
        return int(started["first_round"])

    def detail(self, number: int) -> RoundDetail:
        """One round with the signed messages that the commands do not print."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            query = RoundQuery(task=TASK, round_number=number)
            return OperatorServiceStub(channel).ShowRound(query, timeout=DEADLINE_S)

    def answers(self, plan_digest: str) -> list[bytes]:
        """The packed mask sums of all trustees for a plan, from their own disks."""
        return [self._answer(site, plan_digest) for site in self.sites.values()]

    @staticmethod
    def _answer(site: Site, plan_digest: str) -> bytes:
        with closing(sqlite3.connect(f"file:{site.directory / 'trustee.db'}?mode=ro", uri=True)) as database:
            query = "SELECT signed FROM words WHERE kind = 'answer' AND plan_digest = ?"
            ((envelope,),) = database.execute(query, (bytes.fromhex(plan_digest),)).fetchall()
        answer = parse_strict(Answer, parse_strict(Signed, envelope).payload)
        return (site.directory / "answers" / answer.mask_sum_digest.hex()).read_bytes()

    # Processes

    def start_coordinator(self) -> None:
        self.table.start("coordinator", bedside_command("coordinator", "serve", self.hub))
        wait_until(self._answers_operators, "the coordinator answers its operators", interval_s=0.1)

    def _answers_operators(self) -> bool:
        return run_bedside("coordinator", "status", "--socket", self.socket).returncode == 0

    def start_trustee(self, site: Site) -> None:
        command = bedside_command("trustee", "run", site.directory, "--runtime-dir", site.runtime)
        self.table.start(site.process, command)

    def start_agent(self, agent: Agent) -> None:
        self.table.start(agent.process, bedside_command("agent", "run", agent.directory))

    def trustee_status(self, site: str) -> Any:
        """What a trustee says of itself; its exit status is not looked at."""
        return json.loads(run_bedside("trustee", "status", self.sites[site].directory, "--json").stdout)

    def restart_agent(self, label: str) -> None:
        """End a device's process as a service manager would, and start it again."""
        process = self.table[self.agents[label].process].process
        process.terminate()
        process.wait(DEADLINE_S)
        self.start_agent(self.agents[label])

    def revive(self) -> None:
        """Start whatever does not run, and end what a failed test has left open."""
        if not self.table["coordinator"].is_running:
            self.start_coordinator()
        for site in self.sites.values():
            if not self.table[site.process].is_running:
                self.start_trustee(site)
        for agent in self.agents.values():
            if not self.table[agent.process].is_running:
                self.start_agent(agent)
        if any(not one["finished_at_s"] for one in self.ask("round", "list")):
            bedside("round", "stop", "--task", TASK, "--at-once", "--socket", self.socket)
            wait_until(lambda: all(one["finished_at_s"] for one in self.ask("round", "list")), "open rounds end")

    @contextmanager
    def suspended(self, name: str) -> Iterator[None]:
        """Keep a process from running while inside (SIGSTOP)."""
        processes = family(self.table[name].process.pid)
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def log(self, site: str) -> str:
        """All that a site's trustee has logged."""
        return self.table[self.sites[site].process].log.read_text(errors="replace")

    def logs(self) -> str:
        """The end of every log, for a failed test."""
        parts = []
        for path in sorted((self.folder / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-40:]
            parts.append("\n".join([f"== {path.name}", *lines]))
        return "\n".join(parts)
