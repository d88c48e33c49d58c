"""A release is signed so that stock tools check it."""

import shutil
import subprocess

import pytest
import release
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "release.key"
    made = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    (tmp_path / "release.pem").write_bytes(
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
    return folder


def verify(folder):
    """As docs/install.md has it."""
    command = "openssl pkeyutl -verify -pubin -inkey ../release.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig"
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
    sums = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    return done.returncode == 0, sums.returncode == 0


def needs_openssl():
    if shutil.which("openssl") is None or shutil.which("sha256sum") is None:
        pytest.skip("openssl or sha256sum is not installed")


def test_openssl_and_sha256sum_accept_a_release(signed):
    needs_openssl()
    assert verify(signed) == (True, True)
    names = [line.split("  ")[1] for line in (signed / "SHA256SUMS").read_text().splitlines()]
    assert names == ["a.cdx.json", "a.deb", "b.deb", "w.whl"]


def test_a_changed_file_or_sum_is_noticed(signed):
    needs_openssl()
    (signed / "a.deb").write_text("another")
    assert verify(signed) == (True, False)
    release.write_sums(signed)
    assert verify(signed) == (False, True)


def test_a_key_that_others_may_read_signs_nothing(key):
    key.chmod(0o640)
    with pytest.raises(SystemExit, match="others may read"):
        release.load_release_key(key)


def test_only_an_ed25519_key_signs(key):
    key.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SystemExit, match="no Ed25519 key"):
        release.load_release_key(key)
    key.write_text("no key")
    with pytest.raises(SystemExit, match="no unencrypted private key"):
        release.load_release_key(key)
