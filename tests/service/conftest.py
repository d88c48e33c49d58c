"""A coordinator that hears of enrolments, and somebody who enrols."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import Identity, create_identity
from bedside.service.tls import Authority, create_ca
from scripted_enrolment import CLOCK, ENTROPY, ScriptedCoordinator


@pytest.fixture(scope="module")
def authority() -> Authority:
    return create_ca("demo", CLOCK.now_ns())


@pytest.fixture
def coordinator(authority: Authority, tmp_path: Path) -> ScriptedCoordinator:
    return ScriptedCoordinator(authority, tmp_path)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return create_identity(tmp_path / "identity", Role.ROLE_DEVICE, ENTROPY)
