"""`bedside federation`: the root holder's commands."""

from __future__ import annotations

from pathlib import Path

import click

from bedside.coordinator.founding import SitePublic, claimed_federation, found_federation, read_json, sign_federation
from bedside.coordinator.home import CoordinatorPublic
from bedside.core.signing.trust import fingerprint
from bedside.service.output import Table, emit, json_option
from bedside.service.platform import SystemClock, SystemEntropy

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group()
def federation() -> None:
    """Found a federation and name its sites. Keep the root key on a machine without network."""


@federation.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--name", required=True, help="Id of the federation: lower-case letters, digits, dots, dashes.")
@json_option
def init(directory: Path, name: str, as_json: bool) -> None:
    """Make the root key in DIRECTORY."""
    pin = found_federation(directory, name, SystemEntropy())
    emit({"federation": pin.federation, "root_pk": pin.root_pk}, as_json)
    if not as_json:
        click.echo("next: collect coordinator.public.json and each site.public.json, then bedside federation sign")


@federation.command()
@click.option("--root", "directory", type=_DIRECTORY, required=True, help="Directory of `federation init`.")
@click.option("--coordinator", type=_FILE, required=True, help="coordinator.public.json")
@click.option("--site", "sites", type=_FILE, multiple=True, help="site.public.json of a new site; once for each.")
@click.option("--drop", multiple=True, metavar="SITE", help="Id of a site that leaves the federation; may be repeated.")
@click.option("--out", type=_FILE, required=True, help="Where the signed document goes.")
@json_option
def sign(
    directory: Path, coordinator: Path, sites: tuple[Path, ...], drop: tuple[str, ...], out: Path, as_json: bool
) -> None:
    """Sign the next version of the federation document.

    The sites of the version before stay: run it again with the new one's file alone. A site leaves with --drop only.
    """
    named = [read_json(path, SitePublic) for path in sites]
    public = read_json(coordinator, CoordinatorPublic)
    told = sign_federation(directory, public, named, SystemClock(), out, drop=drop)
    names = [site.site for site in told.sites]
    emit({"federation": told.federation, "version": told.version, "sites": names, "file": out}, as_json)


@federation.command()
@click.argument("file", type=_FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show who a federation document names. Signatures are checked by those who know the root key."""
    told = claimed_federation(file)
    sites = [{"site": site.site, "authority_pk": site.authority_pk} for site in told.sites]
    data = {
        "federation": told.federation,
        "version": told.version,
        "issued_at_s": told.issued_at_s,
        "not_after_s": told.not_after_s,
        "coordinator_pk": told.coordinator.sign_pk,
        "ca_digest": told.coordinator.ca_digest,
        "sites": sites,
    }
    rows = [[site.site, fingerprint(site.authority_pk), site.authority_pk.hex()] for site in told.sites]
    title = f"federation {told.federation}, version {told.version}, CA {told.coordinator.ca_digest.hex()}"
    emit(data, as_json, table=Table(["site", "fingerprint", "authority"], rows, title=title))
