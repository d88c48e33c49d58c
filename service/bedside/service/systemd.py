"""The service manager from outside: how a unit is, and having it started (systemctl(1))."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.core.errors import UnavailableError
from bedside.service.files import read_regular, write_durable
from bedside.service.text import bounded

BOOTED: Final = Path("run/systemd/system")
"""Below the root of the machine; it is there where systemd is the service manager (sd_booted(3))."""
PROXIES: Final = ("https_proxy", "no_proxy")
"""Variables that say how the coordinator is reached, as gRPC reads them."""

PROXY_DROP_IN: Final = "proxy.conf"
_DROP_INS: Final = Path("etc/systemd/system")
START_S: Final = 660.0
"""Longer than any unit of ours may take to start, so that its own limit counts."""
_TIMEOUT_S: Final = 60.0
_PROPERTIES: Final = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NRestarts",
    "Result",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "MainPID",
    "Environment",
    "EnvironmentFiles",
    "SupplementaryGroups",
    "ExecStart",
)
_MAX_ENVIRON_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as the manager has it.

    Attributes:
        name: without its suffix.
        properties: as `systemctl show` tells them.
    """

    name: str
    properties: Mapping[str, str]

    @property
    def state(self) -> str:
        """`active`, `activating`, `inactive`, `failed` and the like."""
        return self.properties.get("ActiveState", "")

    @property
    def is_enabled(self) -> bool:
        """Whether it is started with the machine."""
        return self.properties.get("UnitFileState", "").startswith("enabled")

    @property
    def is_skipped(self) -> bool:
        """Whether its last start was left out, as a condition of it did not hold."""
        tried = self.properties.get("ConditionTimestampMonotonic", "0") not in ("", "0")
        return self.state == "inactive" and tried and self.properties.get("ConditionResult") == "no"

    @property
    def restarts(self) -> int:
        """How often the manager has restarted it by itself."""
        text = self.properties.get("NRestarts", "")
        return int(text) if text.isdecimal() else 0

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups that its processes have beside their user's."""
        return tuple(self.properties.get("SupplementaryGroups", "").split())

    def runs(self, directory: Path) -> bool:
        """Whether its command names this directory."""
        return str(directory.absolute()) in self.properties.get("ExecStart", "").replace(";", " ").split()

    def environment(self, proc: Path = Path("/proc")) -> dict[str, str]:
        """The proxies that its process knows: from the process where that may be read, else as it would be started."""
        words = self.properties.get("Environment", "").split()
        for path in self.properties.get("EnvironmentFiles", "").split(" (")[:1]:
            with suppress(OSError, ValueError):
                words += read_regular(Path(path), _MAX_ENVIRON_BYTES).decode(errors="replace").splitlines()
        with suppress(OSError, ValueError):
            process = int(self.properties.get("MainPID", "0"))
            with (proc / str(process) / "environ").open("rb") as file:
                words = file.read(_MAX_ENVIRON_BYTES).decode(errors="replace").split("\0")
        pairs = (word.strip().strip('"').partition("=") for word in words)
        return {name: value.strip("\"'") for name, _, value in pairs if name in PROXIES}


def find_unit(name: str, root: Path = Path("/")) -> Unit | None:
    """The unit `name`.service; None where no systemd runs, or it has no such unit."""
    if not name or not (root / BOOTED).is_dir() or shutil.which("systemctl") is None:
        return None
    done = _systemctl("show", f"{name}.service", f"--property={','.join(_PROPERTIES)}")
    if done.returncode != 0:
        return None
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    unit = Unit(name, {key: value for key, _, value in pairs})
    return unit if unit.properties.get("LoadState") == "loaded" else None


def start_unit(name: str, *, again: bool = False) -> None:
    """Have a unit started now and with the machine; one that runs is left alone, or started `again`.

    Raises:
        UnavailableError: `unit-start`, with what systemctl said.
    """
    restart = (("restart", f"{name}.service"),) if again else ()
    for words in (("daemon-reload",), ("enable", "--now", f"{name}.service"), *restart):
        done = _systemctl(*words, timeout_s=START_S)
        if done.returncode != 0:
            raise UnavailableError(
                "unit-start",
                f"systemctl {' '.join(words)} failed: {bounded(done.stderr.strip() or done.stdout.strip(), 200)}",
                remedy=f"systemctl status {name}; journalctl -u {name} -n 50",
            )


def keep_proxies(name: str, proxies: Mapping[str, str], root: Path = Path("/")) -> Path:
    """Have a unit know these proxies from its next start on: a drop-in, which replaces the one before.

    Raises:
        StoreError: `file-write`.
    """
    folder = root / _DROP_INS / f"{name}.service.d"
    folder.mkdir(parents=True, exist_ok=True)
    told = "".join(f'Environment="{key}={_quoted(value)}"\n' for key, value in sorted(proxies.items()))
    write_durable(folder / PROXY_DROP_IN, f"[Service]\n{told}".encode(), 0o644)
    return folder / PROXY_DROP_IN


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _systemctl(*words: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", "--no-pager", *words]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")
