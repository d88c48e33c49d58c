"""The files of the catalogue lie beside its tests, and are imported by their names."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack_field import Field

RAM = Path("/dev/shm")


@pytest.fixture
def field(world, tmp_path) -> Iterator[Field]:
    """A federation under attack; its disks are in RAM where they can be, because they are copied and synced a lot."""
    with tempfile.TemporaryDirectory(dir=RAM if os.access(RAM, os.W_OK) else tmp_path) as directory:
        made = Field(world, Path(directory))
        yield made
        made.close()
