"""The files of a small Debian 12 with systemd and Python, which machines of tests are made from; kept for later."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

RELEASE: Final = "bookworm"
PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "libnss-systemd", "libstdc++6", "python3")
UNREAD: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
MASKED: Final = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "console-getty.service")
KEPT_S: Final = 3 * 86_400

FETCH_S: Final = 300
"""A mirror that does not answer keeps nobody longer."""

OPTIONS: Final = (
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNREAD),
    # The package's own pages are not left out.
    '--customize-hook=sed -i /path-exclude/d "$1"/etc/dpkg/dpkg.cfg.d/*',
    f'--customize-hook=systemctl --root="$1" mask {" ".join(MASKED)}',
    '--customize-hook=systemctl --root="$1" enable systemd-networkd',
    '--customize-hook=rm -f "$1"/etc/machine-id "$1"/etc/resolv.conf && touch "$1"/etc/machine-id',
)


def kept(kind: str, made_from: object, make: Callable[[Path], None]) -> Path:
    """A folder in the user's cache, made once for what it is made from; others of its kind go when they are old.

    Args:
        kind: first part of its name.
        made_from: all that decides what is in it, as JSON.
        make: fills a folder that it makes.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedside-tests"
    home.mkdir(parents=True, exist_ok=True)
    name = f"{kind}-{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]}"
    with (home / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / name).is_dir():
            for old in home.glob(f"{kind}-*"):
                if time.time() - old.stat().st_mtime > KEPT_S:
                    shutil.rmtree(old)
            shutil.rmtree(home / f"{name}.new", ignore_errors=True)  # of one that was killed
            make(home / f"{name}.new")
            (home / f"{name}.new").rename(home / name)
        os.utime(home / name)
    return home / name


def debian_root(*more: str) -> Path:
    """The folder of its files, with `more` packages, which nobody writes to.

    Skips where it is not there and cannot be made.
    """
    options = (*OPTIONS, f"--include={','.join([*PACKAGES, *more])}")

    def make(folder: Path) -> None:
        program = shutil.which("mmdebstrap")
        if program is None:
            pytest.skip("mmdebstrap is not installed: apt install mmdebstrap systemd-container")
        command = ["timeout", "--kill-after=30", str(FETCH_S), program, *options, RELEASE, folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            why = " ".join(done.stderr.split("\n")[-4:]).strip() or f"nothing came within {FETCH_S} s"
            pytest.skip(f"no Debian could be fetched: {why}")

    return kept("debian", options, make)
