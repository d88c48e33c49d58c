"""`make release KEY=release.key`: the wheel beside the packages, and SHA256SUMS over everything, signed.

The signature is a bare Ed25519 one over the bytes of SHA256SUMS, so that a hospital checks it with the OpenSSL that its
machines have (docs/install.md), and with nothing of ours.
"""

from __future__ import annotations

import argparse
import hashlib
import stat
import sys
from pathlib import Path
from typing import Final

from build_debs import build_wheel, commit_epoch_s
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from parts import REPOSITORY, project

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
_RELEASED: Final = (".deb", ".json", ".whl")


def load_release_key(path: Path) -> Ed25519PrivateKey:
    """The key of `openssl genpkey -algorithm ed25519`, which only its owner may read.

    Raises:
        SystemExit: when it is not there, others may read it, or it is no such key.
    """
    if not path.is_file():
        raise SystemExit(f"there is no key {path}: openssl genpkey -algorithm ed25519 -out {path}")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SystemExit(f"others may read {path}: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SystemExit(f"{path} is no unencrypted private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{path} is no Ed25519 key: openssl genpkey -algorithm ed25519 -out {path}")
    return key


def check_release(folder: Path, version: str) -> None:
    """See that nothing lies there that would be signed as well, such as what an earlier `make deb` left.

    Raises:
        SystemExit: naming it, or when there are no packages.
    """
    if not list(folder.glob("*.deb")):
        raise SystemExit(f"there are no packages in {folder}: make deb")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _RELEASED)
    strange = [name for name in names if f"_{version}-" not in name and not name.startswith(f"bedside-{version}-")]
    if strange:
        raise SystemExit(f"not of version {version}, and would be signed: {', '.join(strange)}; empty {folder}")


def write_sums(folder: Path) -> bytes:
    """Write SHA256SUMS over every released file of a folder, in the order of their names, and return it."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _RELEASED)
    lines = [f"{_sha256(path)}  {path.name}\n" for path in files]
    text = "".join(lines).encode()
    (folder / SUMS).write_bytes(text)
    return text


def sign_sums(folder: Path, key: Ed25519PrivateKey) -> None:
    """Write SHA256SUMS and its detached signature, 64 bytes."""
    (folder / SIGNATURE).write_bytes(key.sign(write_sums(folder)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Sign what `make deb` left."""
    parser = argparse.ArgumentParser(description="Sign a release.")
    parser.add_argument("key", type=Path, help="private key in PEM")
    parser.add_argument("--check", action="store_true", help="only see whether the key would do")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    chosen = parser.parse_args()
    key = load_release_key(chosen.key)
    if chosen.check:
        return
    check_release(chosen.out, project()["version"])
    build_wheel(chosen.out, commit_epoch_s())
    sign_sums(chosen.out, key)
    sys.stdout.write((chosen.out / SUMS).read_text("utf-8"))


if __name__ == "__main__":
    main()
