"""The site's policy as its file stands now: read again when it changes; a bad one is refused, the old one kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bedside.core.errors import BedsideError, ConfigError
from bedside.core.policy.site_policy import SitePolicy, policy_digest
from bedside.service.config import MAX_CONFIG_BYTES, parse_config

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy with the digest of the bytes it came from, as openings carry it."""

    policy: SitePolicy
    digest: bytes


class PolicyFile:
    """Follows one policy file.

    Attributes:
        problem: why the file as it stands is not in force; None when it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: BedsideError | None = None
        self._stamp = _stamp(path)
        self._loaded = read_policy(path)

    def current(self) -> LoadedPolicy:
        """The newest policy that is valid. Sets `problem` instead of raising: a typing error must not stop rounds."""
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._loaded = read_policy(self.path)
                self.problem = None
            except BedsideError as error:
                self.problem = error
        return self._loaded


def read_policy(path: Path) -> LoadedPolicy:
    """Read a policy file; drop-ins are not merged, so that the digest covers every rule.

    Raises:
        ConfigError: `config-missing`, `config-toml`, `config-unknown-key`, `config-type`.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise ConfigError(
            "config-missing",
            f"the policy {path} cannot be read: {error.strerror}",
            remedy="restore it; `bedside site init` writes a template into a new directory",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("config-toml", f"{path} is not UTF-8 text", remedy="save it as UTF-8") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError("config-toml", f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    return LoadedPolicy(parse_config(text, SitePolicy, path), policy_digest(data))


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
