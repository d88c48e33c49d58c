"""The commands that change a device: init, enrol, renew, run."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.config import CONFIG_NAME, TEMPLATE, AgentConfig, load_agent_config
from bedside.core.errors import ConfigError, MalformedError, RefusedError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.cli import is_debugging
from bedside.service.identity import DIRECTORY_NAME, Identity, create_identity, open_identity
from bedside.service.options import FiniteRange
from bedside.service.output import emit, json_option
from bedside.service.platform import SystemClock, SystemEntropy

_MAX_TOKEN_CHARS: Final = 8_192
_RENEW_BEFORE_NS: Final = 30 * 86_400 * 1_000_000_000


@click.group()
def agent() -> None:
    """Run and inspect this device: sensors, predictions, sessions, training.

    `init` makes a directory with keys and a commented agent.toml, `enrol` joins a site with a token, `run` works until
    it is told to stop. Everything else looks.
    """


@agent.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def init(directory: Path, as_json: bool) -> None:
    """Make this device's keys and a commented agent.toml in DIRECTORY."""
    directory.mkdir(parents=True, exist_ok=True)
    config_path = directory / CONFIG_NAME
    if config_path.exists():
        raise ConfigError("config-exists", f"{config_path} is there already", remedy="edit it")
    identity = create_identity(directory / AgentConfig().state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE, SystemEntropy())
    config_path.write_text(TEMPLATE, "utf-8")
    emit(
        {
            "device": identity.subject,
            "fingerprint": identity.fingerprint,
            "config": str(config_path),
            "next": "add a source to agent.toml, put the site's policy.toml beside it, then bedside agent enrol",
        },
        as_json,
    )


@agent.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("token")
@click.option("--label", default="", help="A name for the site's lists; never a person's.")
@click.option(
    "--wait",
    "wait_s",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="Seconds to wait for a person's approval.",
)
@json_option
def enrol(directory: Path, token: str, label: str, wait_s: float, as_json: bool) -> None:
    """Join a site with TOKEN, or - to read it from standard input.

    A site's token activates at once. With a coordinator's token a person at the site compares the fingerprint shown
    here and approves it with `bedside site approve`; call again to see whether that happened.
    """
    from bedside.service.link.enrolment import poll_enrolment, start_enrolment

    identity = _identity(load_agent_config(directory))
    text = sys.stdin.read(_MAX_TOKEN_CHARS) if token == "-" else token  # noqa: S105 - a dash is no secret
    clock, entropy = SystemClock(), SystemEntropy()

    async def join() -> dict[str, object]:
        found = await start_enrolment(identity, text, label, clock=clock, entropy=entropy)
        if found.phase == "pending" and wait_s > 0:
            found = await poll_enrolment(identity, clock=clock, entropy=entropy, wait_s=wait_s)
        return {
            "state": found.phase,
            "device": identity.subject,
            "site": identity.pins.site,
            "fingerprint": found.fingerprint,
            "sentence": found.sentence,
            "code": found.code,
            **({"next": _after_pending(found.needs_approval)} if found.phase == "pending" else {}),
        }

    emit(_joined(asyncio.run(join())), as_json)


@agent.command(hidden=True)
@click.argument("directory", type=DIRECTORY)
def renew(directory: Path) -> None:
    """Renew the TLS certificate when it is due, over the enrolment port; whatever its age."""
    from bedside.service.link.enrolment import connect_enrolment, refresh_federation, renew_certificate
    from bedside.service.tls import certificate_expiry_ns

    identity = _identity(load_agent_config(directory))
    clock, entropy = SystemClock(), SystemEntropy()
    certificate_pem = identity.certificate_pem
    with suppress(MalformedError):  # a damaged certificate is due
        if certificate_pem is not None and certificate_expiry_ns(certificate_pem) > clock.now_ns() + _RENEW_BEFORE_NS:
            return

    async def fetch() -> None:
        pins = identity.pins
        async with await connect_enrolment(pins.enrolment_address, bytes.fromhex(pins.ca_digest)) as client:
            await refresh_federation(identity, client)
            await renew_certificate(identity, client, clock=clock, entropy=entropy)

    asyncio.run(fetch())


@agent.command()
@click.argument("directory", type=DIRECTORY)
def run(directory: Path) -> None:
    """Run the agent of DIRECTORY until it is told to stop."""
    from importlib.metadata import version

    from bedside.agent.resident import become_resident

    load_agent_config(directory)  # what is wrong with it is said before anything changes
    become_resident(directory, version("bedside"), debug=is_debugging())


def _identity(config: AgentConfig) -> Identity:
    return open_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE)


def _after_pending(needs_approval: bool) -> str:
    if needs_approval:
        return (
            "a person at the site compares the fingerprint and runs `bedside site approve`; "
            "then enrol again with the same token, or wait for it with --wait SECONDS"
        )
    return "the site's trustee answers as soon as it is connected; then enrol again with the same token"


def _joined(found: dict[str, object]) -> dict[str, object]:
    """What to print; a refusal is an error.

    Raises:
        RefusedError: with the site's own code and sentence.
    """
    if found["state"] == "refused":
        raise RefusedError(
            str(found["code"]) or "enrolment-refused",
            str(found["sentence"]),
            remedy="ask the site's admin for a new token",
        )
    return {name: value for name, value in found.items() if value}
