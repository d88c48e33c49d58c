"""The bundle that comes with the program is what its recipe builds; run as a program, this writes it."""

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.manifest import GOLDEN, MANIFEST, SIGNATURE
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import UnavailableError
from bedside.ondevice import self_check as module
from bedside.ondevice.confinement import Limits
from bedside.ondevice.self_check import BUNDLE, SIGNER_PK, self_check

RECIPE = Path(__file__).parents[1] / "recipes" / "self_check.toml"
AUTHOR = SigningKey(b"self-check".ljust(32, b"."))


def built():
    return build_bundle(load_recipe(str(RECIPE)), AUTHOR)


def test_the_bundle_is_what_its_recipe_builds():
    """But for golden vectors, which are of the machine that built it, and what signs them."""
    assert bytes(AUTHOR.verify_key).hex() == SIGNER_PK
    shipped = verify_archive(BUNDLE.read_bytes(), [bytes(AUTHOR.verify_key)])
    fresh = built()
    own = {GOLDEN, MANIFEST, SIGNATURE}
    assert {name: data for name, data in shipped.files.items() if name not in own} == {
        name: data for name, data in fresh.files.items() if name not in own
    }, "write it anew: python tests/ondevice/test_self_check.py"


@pytest.mark.parametrize("runtime", ["onnx", "litert"])
async def test_a_runtime_that_works_says_how_well(runtime):
    assert await self_check(runtime) >= 0


async def test_a_runtime_that_is_not_there_is_missing(monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda _runtime: False)
    with pytest.raises(UnavailableError) as caught:
        await self_check("litert")
    assert caught.value.code == "runtime-missing"


async def test_a_child_takes_no_code_from_the_folder_that_somebody_stands_in(tmp_path, monkeypatch):
    """Root asks for a check in /tmp, where anybody may have put a package of this name."""
    planted = tmp_path / "bedside" / "__init__.py"
    planted.parent.mkdir()
    planted.write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert await self_check("onnx") >= 0


async def test_a_runtime_that_takes_all_memory_ends_its_child_alone():
    with pytest.raises(UnavailableError) as caught:
        await self_check("onnx", Limits(address_space_bytes=80 << 20, timeout_s=60))
    assert caught.value.code == "child-died"


if __name__ == "__main__":
    BUNDLE.write_bytes(built().tar)
    print(bytes(AUTHOR.verify_key).hex())
