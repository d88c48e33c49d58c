import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.verify import verify_archive

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside it

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"


@pytest.fixture(scope="session")
def author():
    return SigningKey(b"author" * 5 + b"!!")


@pytest.fixture(scope="session")
def tiny():
    return load_recipe(str(TINY))


@pytest.fixture(scope="session")
def built(tiny, author):
    return build_bundle(tiny, author)


@pytest.fixture(scope="session")
def bundle(built, author):
    return verify_archive(built.tar, [bytes(author.verify_key)])


@pytest.fixture(scope="session")
def forks(tmp_path_factory, author):
    """Tries bundles in forks of one limited child."""
    from trying import Forks

    made = Forks(tmp_path_factory.mktemp("forks"), author)
    yield made
    made.close()
