"""A tiny signed bundle, and device directories with a real identity that a real agent can run in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import SigningKey

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.firmware_bridge.recording import Label, Recording, write_recording
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import create_identity
from bedside.service.platform import SystemEntropy

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"
DEADLINE_S = 30.0
CONFIG = """\
model = "tiny.tar"
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "wrist"
data = "signal.npz"
speed = 10.0
loop = true
"""


@pytest.fixture(scope="session")
def tiny_author() -> SigningKey:
    return SigningKey(b"author" * 5 + b"!!")


@pytest.fixture(scope="session")
def tiny(tiny_author: SigningKey) -> Built:
    return build_bundle(load_recipe(str(TINY)), tiny_author)


class Device:
    """A device's directory, and the agent process in it."""

    def __init__(self, path: Path, built: Built, author: SigningKey) -> None:
        self.path = path
        self.process: subprocess.Popen[bytes] | None = None
        path.mkdir()
        create_identity(path / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
        (path / "tiny.tar").write_bytes(built.tar)
        (path / "policy.toml").write_text(f'[bundle_signers]\nauthor = "{bytes(author.verify_key).hex()}"\n')
        (path / "agent.toml").write_text(CONFIG)
        values = np.random.default_rng(4).standard_normal((3_000, 2)).astype(np.float32)
        labels = tuple(Label(at, at + 500, ("rest", "walk", "shake")[at // 500 % 3]) for at in range(0, 3_000, 500))
        write_recording(path / "signal.npz", Recording(values, 50.0, labels, (0, 1_000, 2_000)))

    def use_runtime(self, name: str) -> None:
        """Have the configuration decide which runtime serves."""
        config = (self.path / "agent.toml").read_text()
        (self.path / "agent.toml").write_text(config.replace("[[", f'[inference]\nruntime = "{name}"\n[[', 1))

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`bedside agent FIRST... DIR`; options follow the directory."""
        words = [argument for argument in arguments if not argument.startswith("-")]
        options = [argument for argument in arguments if argument.startswith("-")]
        command = [sys.executable, "-m", "bedside.service", "agent", *words, str(self.path), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)

    def look(self, *arguments: str) -> object:
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def predictions(self, limit: int = 100_000) -> list[dict[str, object]]:
        found = self.look("predictions", f"--limit={limit}")
        assert isinstance(found, list)
        return found

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "bedside.service", "agent", "run", str(self.path)]
        with (self.path / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return self.process

    def await_predictions(self, above: int = 0) -> int:
        """Wait until a prediction with an id above that is stored; returns the newest id."""

        key = load_key_ring(self.path / "state" / "identity")

        def newest() -> int:
            if not (self.path / "run" / "agent.sock").is_socket():
                return 0
            with closing(BufferReader(self.path / "state" / "buffer.db", key)) as reader:
                last = reader.last_prediction()
            return last.number if last is not None else 0

        return self.await_value(newest, lambda number: number > above)

    def await_value(self, look: Callable[[], int], good: Callable[[int], bool]) -> int:
        deadline_s = time.monotonic() + DEADLINE_S
        while not good(found := look()):
            assert self.process is not None
            assert self.process.poll() is None, (self.path / "log.txt").read_text()
            assert time.monotonic() < deadline_s, (self.path / "log.txt").read_text()
            time.sleep(0.05)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(5)

    def clean_up(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(10)


@pytest.fixture
def device(tmp_path: Path, tiny: Built, tiny_author: SigningKey):
    made = Device(tmp_path / "device", tiny, tiny_author)
    yield made
    made.clean_up()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tiny: Built, tiny_author: SigningKey):
    """A device whose agent runs, never enrolled, with no coordinator anywhere."""
    made = Device(tmp_path_factory.mktemp("running") / "device", tiny, tiny_author)
    made.start()
    made.await_predictions()
    yield made
    made.clean_up()
