"""A ward and a receiver for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.agent.sinks import runner
from ward import Receiver, Ward


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait for a second try, not for a second."""
    monkeypatch.setattr(runner, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(runner, "MAX_BACKOFF_S", 0.05)


@pytest.fixture
async def ward(tmp_path: Path):
    made = Ward(tmp_path)
    yield made
    await made.end()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()
