"""`bedside agent setup` on a terminal: what it asks, what it shows, and Ctrl-C anywhere."""

import asyncio
import fcntl
import os
import pty
import sys
import termios

import pytest

from bedside.agent.setup.preparing import identity_in, standing_of
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.service.tls import create_ca
from scripted_enrolment import CLOCK, ScriptedCoordinator, serving, token

DEADLINE_S = 30.0
CTRL_C = b"\x03"


class Terminal:
    """A process on a pseudo-terminal of its own, and all that it has printed."""

    def __init__(self, process, master):
        self.process = process
        self.text = ""
        self._master = master
        os.set_blocking(master, False)

    async def until(self, words):
        """Wait until it has printed this since the last time; returns what came until then."""
        async with asyncio.timeout(DEADLINE_S):
            while words not in self.text:
                self._read()
                assert words in self.text or self.process.returncode is None, self.text
                await asyncio.sleep(0.02)
        before, _, self.text = self.text.partition(words)
        return before

    def type(self, data):
        os.write(self._master, data if isinstance(data, bytes) else f"{data}\n".encode())

    async def end(self):
        async with asyncio.timeout(DEADLINE_S):
            while self.process.returncode is None:
                self._read()
                await asyncio.sleep(0.02)
        self._read()
        return self.process.returncode

    def _read(self):
        try:
            self.text += os.read(self._master, 65_536).decode().replace("\r\n", "\n")
        except OSError:  # nothing yet, or nobody is left at the other end
            return


@pytest.fixture
async def terminal(tmp_path):
    """Start `agent setup`; without checks of the runtimes, which have tests of their own."""
    started = []
    script = (
        "import sys; from dataclasses import replace; from bedside.agent.cli import first_run as f; "
        "f.PART = replace(f.PART, early=()); f.MACHINE = (); "
        "from bedside.service.cli import run; sys.exit(run())"
    )

    async def start(*options):
        master, slave = pty.openpty()
        words = (sys.executable, "-c", script, "agent", "setup", str(tmp_path / "device"), *options)
        environ = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=environ | {"GRPC_VERBOSITY": "NONE"},
        )
        os.close(slave)
        started.append((process, master))
        return Terminal(process, master)

    start.directory = tmp_path / "device"
    yield start
    for process, master in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)


@pytest.fixture
def coordinator(tmp_path):
    return ScriptedCoordinator(create_ca("demo", CLOCK.now_ns()), tmp_path / "hub")


async def test_a_person_is_led_through_and_the_token_is_never_shown(terminal, coordinator):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        text = token(address, coordinator.authority)
        person = await terminal()
        shown = await person.until("Token (it is not shown): ")
        person.type("what was this again")
        shown += await person.until("this is not a Bedside token")
        shown += await person.until("Token (it is not shown): ")
        person.type(text)
        shown += await person.until("Join this site? [Y/n]: ")
        person.type("")
        shown += await person.until("bedside site approve DIRECTORY ")
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        shown += await person.until("next ")
        assert await person.end() == 0
    shown += person.text
    identity = identity_in(terminal.directory)
    assert identity.fingerprint in shown
    assert "north of federation demo" in shown
    assert text not in shown
    assert "what was this again" not in shown
    assert standing_of(terminal.directory).phase == "enrolled"


async def test_ctrl_c_at_a_question_and_while_waiting_leaves_a_set_up_that_goes_on(terminal, coordinator):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        text = token(address, coordinator.authority)
        person = await terminal()
        await person.until("Token (it is not shown): ")
        person.type(CTRL_C)
        assert await person.end() == 130
        assert f"to go on: bedside agent setup {terminal.directory}" in person.text
        made = identity_in(terminal.directory).fingerprint

        person = await terminal()
        await person.until("Token (it is not shown): ")
        person.type(text)
        await person.until("Join this site?")
        person.type("y")
        await person.until("(Ctrl-C to go on later)")
        person.type(CTRL_C)
        assert await person.end() == 130
        assert standing_of(terminal.directory).phase == "pending"

        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        person = await terminal()  # asks nothing more
        await person.until("next ")
        assert await person.end() == 0
    assert len(coordinator.requests) == 1
    assert standing_of(terminal.directory).phase == "enrolled"
    assert identity_in(terminal.directory).fingerprint == made


async def test_who_does_not_want_to_join_has_not_and_the_token_is_unused(terminal, coordinator):
    async with serving(coordinator) as address:
        person = await terminal()
        await person.until("Token (it is not shown): ")
        person.type(token(address, coordinator.authority))
        await person.until("Join this site?")
        person.type("n")
        assert await person.end() == 130
    assert coordinator.requests == []
    assert standing_of(terminal.directory).phase == "new"
