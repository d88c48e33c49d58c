"""The commands that change a device: init, enrol, renew, run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.config import CONFIG_NAME, load_agent_config
from bedside.agent.setup.joining import after_pending, join_site
from bedside.agent.setup.preparing import identity_in, is_prepared, prepare_device
from bedside.agent.setup.token import STDIN, text_on_stdin
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.cli import is_debugging
from bedside.service.options import FiniteRange
from bedside.service.output import emit, json_option
from bedside.service.platform import SystemClock, SystemEntropy

_AGAIN: Final = "enrol again with the same token, or wait for it with --wait SECONDS"
_RENEW_BEFORE_NS: Final = 30 * 86_400 * 1_000_000_000


@click.group()
def agent() -> None:
    """Run and inspect this device: sensors, predictions, sessions, training.

    `setup` takes a device from nothing to at work. One by one: `init` makes a directory with keys and a commented
    agent.toml, `enrol` joins a site with a token, `run` works until it is told to stop. Everything else looks.
    """


@agent.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def init(directory: Path, as_json: bool) -> None:
    """Make this device's keys and a commented agent.toml in DIRECTORY."""
    if is_prepared(directory):
        raise ConfigError("config-exists", f"{directory / CONFIG_NAME} is there already", remedy="edit it")
    identity = prepare_device(directory, SystemEntropy())
    emit(
        {
            "device": identity.subject,
            "fingerprint": identity.fingerprint,
            "config": str(directory / CONFIG_NAME),
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
    """Join a site with TOKEN, or - to read it from standard input: an argument is seen by every user of the machine.

    A site's token activates at once. With a coordinator's token a person at the site compares the fingerprint shown
    here and approves it with `bedside site approve`; call again to see whether that happened.
    """
    identity = identity_in(directory)
    text = text_on_stdin() if token == STDIN else token
    found = asyncio.run(join_site(identity, text, label, wait_s, clock=SystemClock(), entropy=SystemEntropy()))
    told = {
        "state": found.phase,
        "device": identity.subject,
        "site": identity.pins.site,
        "fingerprint": found.fingerprint,
        "sentence": found.sentence,
        "next": after_pending(found.needs_approval, _AGAIN) if found.phase == "pending" else "",
    }
    emit({name: value for name, value in told.items() if value}, as_json)


@agent.command(hidden=True)
@click.argument("directory", type=DIRECTORY)
def renew(directory: Path) -> None:
    """Renew the TLS certificate when it is due, over the enrolment port; whatever its age."""
    from bedside.service.link.enrolment import connect_enrolment, refresh_federation, renew_certificate
    from bedside.service.tls import certificate_expiry_ns

    identity = identity_in(directory)
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
    from bedside.service.notify import hold_reloads

    hold_reloads()
    load_agent_config(directory)  # what is wrong with it is said before anything changes
    become_resident(directory, version("bedside"), debug=is_debugging())
