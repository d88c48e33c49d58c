"""Trying bundles one after the other in forks of one limited child."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bedside.ondevice.confinement import child_arguments
from bedside.ondevice.golden import DEFAULT_LIMITS, Replay

CHILD = Path(__file__).with_name("forking_child.py")


class Forks:
    """The child, and the folder where it finds bundles."""

    def __init__(self, folder, author):
        self.path, self._keys = folder / "bundle.tar", (bytes(author.verify_key).hex(),)
        limits = child_arguments(dataclasses.replace(DEFAULT_LIMITS, nice=0))
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @property
    def replay(self):
        return Replay(str(self.path), self._keys)

    def __call__(self, tar, module="golden", seconds=20):
        """What a fork made of it."""
        self.path.write_bytes(tar)
        job = msgspec.json.encode(self.replay).decode()
        self._child.stdin.write(json.dumps({"module": module, "job": job, "seconds": seconds}) + "\n")
        self._child.stdin.flush()
        outcome = self._child.stdout.readline().strip()
        assert outcome, f"the child itself is gone: {self._child.poll()}"
        return outcome

    def close(self):
        self._child.stdin.close()
        self._child.wait(30)
        self._child.stdout.close()
