"""A real broker of a test's own, and a publisher that is heard in the end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiomqtt
import pytest

from mllp_peers import Certificates
from ports import free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
T0_MS = 1_790_000_000_000

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="there is no mosquitto: apt-get install mosquitto")


class Mosquitto:
    """A broker that keeps sessions on disk; it may be stopped and started.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self, path: Path, extra: str = "allow_anonymous true\n") -> None:
        path.mkdir(parents=True)
        self.port = free_port()
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        user = "user root\n" if os.geteuid() == 0 else ""
        (path / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {path}/\n"
            f"max_queued_messages 0\n{user}{extra}"
        )

    def start(self) -> None:
        """Return when it listens."""
        assert MOSQUITTO is not None
        with (self._path / "log.txt").open("ab") as log:
            command = [MOSQUITTO, "-c", str(self._path / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + 10
        while True:
            assert self._process.poll() is None, (self._path / "log.txt").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def stop(self) -> None:
        """End it; sessions and what waits in them are on disk when this returns."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@contextmanager
def mosquitto(path: Path, extra: str = "allow_anonymous true\n") -> Iterator[Mosquitto]:
    """A broker that runs."""
    broker = Mosquitto(path, extra)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def tls_options(files: Certificates) -> str:
    """Lines of a broker that shows a certificate."""
    return f"certfile {files.certificate}\nkeyfile {files.key}\n"


def passwords(path: Path, user: str, password: str) -> str:
    """Lines of a broker that knows one user."""
    tool = shutil.which("mosquitto_passwd")
    assert tool is not None
    subprocess.run([tool, "-b", "-c", str(path), user, password], check=True, capture_output=True)
    return f"allow_anonymous false\npassword_file {path}\n"


def vitals(number: int, **more: object) -> bytes:
    """A message of a monitor, one a second, whose heart rate tells it from its neighbours."""
    return json.dumps({"ts": T0_MS + 1000 * number, "hr": 60 + number % 100, "spo2": 97, **more}).encode()


async def publish(port: int, messages: Iterable[tuple[str, bytes]], qos: int = 1, **client: object) -> None:
    """Publish every message, again where the broker went away before it had said that it has it."""
    waiting = list(messages)
    deadline_s = time.monotonic() + 30
    while waiting:
        assert time.monotonic() < deadline_s, f"{len(waiting)} messages were not published"
        with suppress(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", port, timeout=2, **client) as connection:
                while waiting:
                    await connection.publish(*waiting[0], qos=qos)
                    del waiting[0]
        await asyncio.sleep(0.02 if waiting else 0)
