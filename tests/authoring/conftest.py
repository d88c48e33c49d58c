import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent))  # the reference nets lie beside the tests

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"


@pytest.fixture(scope="session")
def tiny_path():
    return TINY


@pytest.fixture(scope="session")
def tiny():
    return load_recipe(str(TINY))


@pytest.fixture(scope="session")
def author():
    return SigningKey(b"author" * 5 + b"!!")


@pytest.fixture(scope="session")
def built(tiny, author):
    return build_bundle(tiny, author)
