"""`bedside agent setup`: from an installed package, or an empty folder, to a device at work."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import BinaryIO, Final

import click

from bedside.agent.cli.first_run import FirstRun, Wishes
from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.doctor import PART
from bedside.core.errors import ConfigError
from bedside.service.options import FiniteRange
from bedside.service.output import json_option

PACKAGED: Final = Path("/opt/bedside/agent")
"""Where the package has its Python."""


@click.command()
@click.argument("directory", type=DIRECTORY, required=False)
@click.option(
    "--token",
    "token_place",
    default="",
    help="Where the token lies: a file of mode 0600, credential:NAME, or - (stdin).",
)
@click.option("--label", default="", help="A name for the site's lists; never a person's.")
@click.option("--policy", type=click.File("rb"), help="The site's policy.toml, to be copied to the device.")
@click.option("--proxy", default="", help="HTTP CONNECT proxy to the coordinator, else $https_proxy.")
@click.option("--wait", "wait_s", type=FiniteRange(0), help="Seconds to wait for approval, else while you do.")
@click.option("--yes", is_flag=True, help="Ask nothing; whoever started this has compared the fingerprints.")
@click.option("--force", is_flag=True, help="Go on where a check of the machine fails.")
@json_option
@click.pass_context
def setup(
    context: click.Context,
    directory: Path | None,
    token_place: str,
    label: str,
    policy: BinaryIO | None,
    proxy: str,
    wait_s: float | None,
    yes: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Check this machine, make the keys of a device in DIRECTORY, join a site with a token, and start the agent.

    Without DIRECTORY it is the one of the package. Run it as root where a package is installed: files are made as the
    user that they belong to. The token is asked for where none is named, and not shown.

    It may be interrupted and called again: it goes on where it stopped, and changes nothing of a device that is set up.
    It ends with 0 when the device is set up, with 75 while its site has not approved it, else as every command does.
    """
    place = directory or _packaged()
    wishes = Wishes(
        token_place=token_place,
        label=label,
        policy=policy.read() if policy is not None else b"",
        wait_s=wait_s,
        asks=sys.stdin.isatty() and not yes and not as_json,
        force=force,
        as_json=as_json,
    )
    if proxy:
        os.environ["https_proxy"] = proxy
    try:
        context.exit(FirstRun(place, wishes).run())
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\nto go on: bedside agent setup {shlex.quote(str(place))}", err=True)
        raise


def _packaged() -> Path:
    if PART.directory.is_dir() or Path(sys.prefix) == PACKAGED:
        return PART.directory
    raise ConfigError(
        "which-directory",
        "no package is installed here, so that there is no directory to take",
        remedy="name one: bedside agent setup DIRECTORY",
    )
