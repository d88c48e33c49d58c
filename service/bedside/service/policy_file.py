"""A site's policy as a file: read the same way by its trustee, its devices and `bedside policy`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bedside.core.errors import ConfigError
from bedside.core.policy.site_policy import SitePolicy, policy_digest
from bedside.service.config import parse_config, read_config_bytes


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
    remedy = "restore it; `bedside site init` writes a template into a new directory"
    data = read_config_bytes(path, "the policy", remedy)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("config-toml", f"{path} is not UTF-8 text", remedy="save it as UTF-8") from error
    return LoadedPolicy(parse_config(text, SitePolicy, path), policy_digest(data))
