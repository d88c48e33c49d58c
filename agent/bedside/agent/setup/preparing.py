"""A device's directory with its keys and a commented configuration, and how far a device has come.

Invariants:
    * What is there is kept: keys, and a configuration, also one that lies elsewhere behind a link.
    * Whatever interrupts a set-up leaves a directory from which it goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from bedside.agent.config import CONFIG_NAME, TEMPLATE, AgentConfig, load_agent_config
from bedside.core.clock import Entropy
from bedside.core.errors import ConfigError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.files import write_durable
from bedside.service.identity import DIRECTORY_NAME, Identity, create_identity, open_identity

DIRECTORY_MODE: Final = 0o700
SHARED_POLICY: Final = Path("/etc/bedside/policy.toml")
"""Of a machine with packages: its device and its trustee have links to it."""
CONFIG_MODE: Final = 0o644

Phase = Literal["new", "pending", "enrolled", "alone"]
"""`alone` is a device that never dials out (`link.enabled = false`)."""


class Standing(msgspec.Struct, frozen=True):
    """How far a device has come.

    Attributes:
        phase: see there.
        device: its pseudonymous id.
        fingerprint: what a person at its site compares.
        site: that it belongs to, or has asked to; empty for a new one.
        enrolment_address: of its coordinator; empty for a new one.
        service_address: likewise.
    """

    phase: Phase
    device: str
    fingerprint: str
    site: str = ""
    enrolment_address: str = ""
    service_address: str = ""


def prepare_device(directory: Path, entropy: Entropy) -> Identity:
    """Make what is missing of a directory, its keys and its configuration, and return the identity.

    Raises:
        ConfigError: the configuration that is there cannot be used, or keys are not private.
        StoreError: `file-write`.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    config_path = directory / CONFIG_NAME
    fresh = not config_path.exists()
    config = AgentConfig() if fresh else load_agent_config(directory)
    identity = create_identity(directory / config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE, entropy)
    if fresh:
        write_durable(config_path, TEMPLATE.encode(), CONFIG_MODE)
    return identity


def is_prepared(directory: Path) -> bool:
    """Whether there are both keys and a configuration.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    if not (directory / CONFIG_NAME).exists():
        return False
    return (load_agent_config(directory).state_dir / DIRECTORY_NAME / "sign.key").exists()


def identity_in(directory: Path) -> Identity:
    """The identity of a prepared device. Raises ConfigError: see `open_identity`."""
    return open_identity(load_agent_config(directory).state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE)


def standing_of(directory: Path) -> Standing:
    """How far a prepared device has come.

    Raises:
        ConfigError: its configuration, its keys or what was issued to it do not hold.
    """
    identity = identity_in(directory)
    if not load_agent_config(directory).link.enabled:
        return Standing("alone", identity.subject, identity.fingerprint)
    if not identity.is_pinned or (identity.request is None and identity.credential is None):
        return Standing("new", identity.subject, identity.fingerprint)
    pins = identity.pins
    whole = identity.credential is not None and identity.certificate_pem is not None
    return Standing(
        "enrolled" if whole else "pending",
        identity.subject,
        identity.fingerprint,
        pins.site,
        pins.enrolment_address,
        pins.service_address,
    )


def take_policy(directory: Path, text: bytes) -> bool:
    """Make this the device's copy of its site's policy, unless that is the package's link to the one in /etc.

    Returns:
        Whether root has to write it to `SHARED_POLICY`, which is what the link names.

    Raises:
        ConfigError: it is no policy; the old one is kept.
        StoreError: `file-write`.
    """
    from bedside.service.policy_file import read_policy

    path = load_agent_config(directory).policy
    draft = path.with_name(f".{path.name}.draft")
    write_durable(draft, text)
    try:
        read_policy(draft)
    except ConfigError as error:
        raise ConfigError(error.code, error.sentence.replace(str(draft), "the policy"), remedy=error.remedy) from error
    finally:
        draft.unlink(missing_ok=True)
    if path.is_symlink() and path.readlink() == SHARED_POLICY:
        return True
    write_durable(path, text, CONFIG_MODE)
    return False


def policy_is_missing(directory: Path) -> bool:
    """Whether a device that takes part has no policy yet, without which it takes part in nothing."""
    config = load_agent_config(directory)
    return config.link.enabled and not config.policy.exists()
