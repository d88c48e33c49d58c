"""A site's policy as a file: read the same way by its trustee, its devices and `bedside policy`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bedside.core.errors import ConfigError
from bedside.core.policy.site_policy import SitePolicy, policy_digest
from bedside.service.config import MAX_CONFIG_BYTES, parse_config


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy with the digest of the bytes it came from, as openings carry it."""

    policy: SitePolicy
    digest: bytes


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
