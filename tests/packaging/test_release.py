"""A release is signed so that stock tools check it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import release
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from parts import PARTS
from targets import chosen_targets

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "install.md").read_text()


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "release.key"
    made = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    (tmp_path / "bedside-release.pem").write_bytes(
        made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return path


@pytest.fixture
def signed(tmp_path, key):
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in ("b.deb", "a.deb", "a.cdx.json", "w.whl", "notes.txt"):
        (folder / name).write_text(name)
    release.sign_sums(folder, release.load_release_key(key))
    shutil.copy(tmp_path / "bedside-release.pem", folder)
    return folder


def commands_of(heading):
    """Lines that docs/install.md has a reader type below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\$ (.+)$", section, re.MULTILINE)


def verify(folder):
    """As docs/install.md has it: whether the signature holds, whether the sums do, and packages of no release."""
    fingerprint, signature, sums, strays = commands_of("Verify")
    shown = subprocess.run(fingerprint, shell=True, cwd=folder, capture_output=True, text=True)
    assert re.fullmatch(r"[0-9a-f]{64} +-\n", shown.stdout)
    holds = [
        subprocess.run(line, shell=True, cwd=folder, capture_output=True).returncode == 0 for line in (signature, sums)
    ]
    listed = subprocess.run(strays, shell=True, cwd=folder, capture_output=True, text=True).stdout
    return (*holds, [line.split()[1] for line in listed.splitlines()])


def needs_openssl():
    if shutil.which("openssl") is None or shutil.which("sha256sum") is None:
        pytest.skip("openssl or sha256sum is not installed")


def test_openssl_and_sha256sum_accept_a_release(signed):
    needs_openssl()
    assert verify(signed) == (True, True, [])
    names = [line.split("  ")[1] for line in (signed / "SHA256SUMS").read_text().splitlines()]
    assert names == ["a.cdx.json", "a.deb", "b.deb", "w.whl"]


def test_a_changed_file_or_sum_is_noticed(signed):
    needs_openssl()
    (signed / "a.deb").write_text("another")
    assert verify(signed) == (True, False, ["a.deb"])
    release.write_sums(signed)
    assert verify(signed) == (False, True, [])


def test_a_package_that_no_release_has_is_named(signed):
    """It is in no sum that could be wrong, and a pattern of names installs it as well."""
    needs_openssl()
    (signed / "c.deb").write_text("of somebody else")
    assert verify(signed) == (True, True, ["c.deb"])


def test_a_key_that_others_may_read_signs_nothing(key):
    key.chmod(0o640)
    with pytest.raises(SystemExit, match="others may read"):
        release.load_release_key(key)


def test_a_key_that_is_not_there_is_told_before_anything_is_built(tmp_path):
    with pytest.raises(SystemExit, match="there is no key"):
        release.load_release_key(tmp_path / "none.key")
    recipe = (REPOSITORY / "Makefile").read_text().split("\nrelease:")[1].split("\n\n")[0]
    assert recipe.index("--check") < recipe.index("rm -rf dist")


def test_only_an_ed25519_key_signs(key):
    key.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SystemExit, match="no Ed25519 key"):
        release.load_release_key(key)
    key.write_text("no key")
    with pytest.raises(SystemExit, match="no unencrypted private key"):
        release.load_release_key(key)


def test_a_key_that_is_made_as_the_page_says_signs(tmp_path):
    needs_openssl()
    *lines, make = [line for line in commands_of("Build from source") if not line.startswith("make deb")]
    for line in lines:
        subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert make == "make release KEY=release.key"
    release.load_release_key(tmp_path / "release.key")
    assert b"PUBLIC KEY" in (tmp_path / "bedside-release.pem").read_bytes()


def test_what_the_page_builds_can_be_built():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert {"deb", "release"} <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    (some,) = [line for line in commands_of("Build from source") if "TARGETS" in line]
    options = dict(re.findall(r'([A-Z]+)="([^"]+)"', some))
    assert len(chosen_targets(options["TARGETS"])) == 2
    assert options["PARTS"] in {part.name for part in PARTS}
    assert all(f"`{part.package}`" in PAGE for part in PARTS)
