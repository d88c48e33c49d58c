from __future__ import annotations

import pytest

from tiny_manifest import make_manifest


@pytest.fixture
def tiny_manifest():
    return make_manifest
