"""`bedside site` and `bedside trustee`: the hospital's side of the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.core.errors import ConfigError, MalformedError
from bedside.core.signing.envelope import DIGEST_BYTES, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import Identity, open_identity
from bedside.service.output import Table, emit, human_age, json_option
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.sqlite import reading
from bedside.trustee.paths import SitePaths, default_runtime_directory
from bedside.trustee.site.desk import Desk
from bedside.trustee.site.register import PENDING, Register
from bedside.trustee.store import TrusteeStore

if TYPE_CHECKING:
    from bedside.trustee.status import TrusteeReport

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_NS_PER_S = 1_000_000_000


@click.group()
def site() -> None:
    """Act for a hospital: its authority's key, its tokens, who belongs to it."""


@click.group()
def trustee() -> None:
    """Run and inspect this site's trustee, which opens nothing but sums."""


@site.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--site", "name", required=True, help="Id of the site, for instance st-anna.")
@json_option
def init(directory: Path, name: str, as_json: bool) -> None:
    """Make the site authority's key, and a policy with every rule explained, in DIRECTORY."""
    from bedside.trustee.site.founding import found_site

    public = found_site(SitePaths(directory), name, SystemEntropy())
    emit({**_as_dict(public.site, public.authority_pk), "file": str(directory / "site.public.json")}, as_json)
    if not as_json:
        click.echo("next: have this file signed into the federation by its root holder, then bedside site join")


@site.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("federation", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--root-pk", required=True, help="Public key of the federation root, 64 hexadecimal digits.")
@click.option("--enrolment-address", required=True, help="The coordinator's enrolment port, host:port.")
@json_option
def join(directory: Path, federation: Path, root_pk: str, enrolment_address: str, as_json: bool) -> None:
    """Pin a federation document, and make this site's trustee and its first roster."""
    from bedside.trustee.site.founding import join_federation

    signed, root = _federation(federation), _root(root_pk)
    identity = join_federation(SitePaths(directory), signed, root, enrolment_address, SystemClock(), SystemEntropy())
    data = {"site": identity.pins.site, "federation": identity.pins.federation, "trustee": identity.subject}
    emit(data, as_json)
    if not as_json:
        click.echo("next: name whose models you trust in policy.toml, and start the trustee")


@site.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Devices that may join.")
@click.option("--hours", type=click.IntRange(1, 24 * 365), default=24, show_default=True, help="How long it holds.")
@click.option("--label", default="", help="A name for your lists; never a person's.")
@json_option
def token(directory: Path, uses: int, hours: int, label: str, as_json: bool) -> None:
    """Print a token with which devices join this site at once. Whoever holds it can use it: hand it over safely."""
    with _desk(directory) as (desk, identity):
        bearer = desk.mint(identity, Role.ROLE_DEVICE, uses=uses, hours=hours, label=label, entropy=SystemEntropy())
        fingerprint = identity.pins.ca_digest  # as `coordinator init` and a device that joins print it
    if as_json:
        emit({"token": bearer.text(), "ca_fingerprint": fingerprint, "uses": uses, "hours": hours}, as_json)
        return
    click.echo(bearer.text())
    click.echo(f"CA fingerprint (SHA-256): {fingerprint}", err=True)


@site.command()
@click.argument("directory", type=_DIRECTORY)
@json_option
def requests(directory: Path, as_json: bool) -> None:
    """List the credential requests that this site has seen; those that are pending wait for `approve`."""
    with _desk(directory) as (desk, _):
        listed = desk.register.requests()
    data = [
        {
            "fingerprint": entry.fingerprint,
            "subject": entry.subject,
            "role": _role(entry.role),
            "label": entry.label,
            "state": entry.state,
            "received_at_s": entry.received_at_s,
            "code": entry.code,
            "sentence": entry.sentence,
        }
        for entry in listed
    ]
    now_ns = SystemClock().now_ns()
    rows = [
        [
            entry.fingerprint,
            _marked_role(entry.role),
            entry.label,
            entry.state,
            human_age(entry.received_at_s * _NS_PER_S, now_ns),
            entry.sentence,
        ]
        for entry in listed
    ]
    columns = ("fingerprint", "role", "label", "state", "received", "why")
    emit(data, as_json, table=Table(columns, rows, empty="no device has asked yet"))


@site.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("fingerprint")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that have compared the fingerprint.")
@json_option
def approve(directory: Path, fingerprint: str, yes: bool, as_json: bool) -> None:
    """Let the device join that shows exactly this FINGERPRINT, after a question.

    Only devices join in this way. A request for a trustee is refused: this site's own was made by `bedside site join`.
    """
    with _desk(directory) as (desk, identity):
        asking = desk.waiting(fingerprint)
        if asking.role == Role.ROLE_DEVICE and not yes:
            shown = f"{_role(asking.role)} {asking.subject} ({asking.label!r}), fingerprint {asking.fingerprint}"
            click.confirm(f"Let the {shown} join site {identity.pins.site}?", abort=True, err=True)
        granted = desk.approve(fingerprint)
    emit({"subject": granted.subject, "label": granted.label, "state": granted.state}, as_json)


@site.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("subject")
@json_option
def revoke(directory: Path, subject: str, as_json: bool) -> None:
    """Take SUBJECT off the roster: it takes part in no further round and gets no certificate."""
    with _desk(directory) as (desk, _):
        desk.revoke(subject)
        roster = desk.register.roster()
    emit({"subject": subject, "state": "revoked", "roster_version": roster.version if roster else 0}, as_json)


@site.command()
@click.argument("directory", type=_DIRECTORY)
@json_option
def show(directory: Path, as_json: bool) -> None:
    """Show who this site is and who belongs to it."""
    from bedside.trustee.policy_file import read_policy

    paths = SitePaths(directory)
    public = paths.read_public()
    data: dict[str, object] = _as_dict(public.site, public.authority_pk)
    data["policy_digest"] = read_policy(paths.policy).digest
    rows: list[list[str]] = []
    if paths.identity.exists():
        with _desk(directory) as (desk, identity):
            _add_membership(data, desk, identity)
            rows = [
                [member.subject, _role(member.role), member.label, "revoked" if member.revoked_at_s else "listed"]
                for member in desk.register.members()
            ]
    title = f"site {public.site}, authority {public.authority_pk}"
    columns = ("subject", "role", "label", "roster")
    emit(data, as_json, table=Table(columns, rows, title=title, empty="nobody has joined yet"))


@site.command()
@click.argument("directory", type=_DIRECTORY)
@json_option
def privacy(directory: Path, as_json: bool) -> None:
    """Show what this site's sums have cost, from its trustee's own ledger, once every link of that has held.

    The unit is one device's contributions to all sums: present, or saying nothing. Epsilon is the trustee's own bound
    at the policy's delta.
    """
    from bedside.trustee.policy_file import read_policy
    from bedside.trustee.spending import read_spending

    paths = SitePaths(directory)
    identity = _identity(paths)
    policy = read_policy(paths.policy).policy
    with _store(paths) as store:
        report = read_spending(store, policy, identity.pins.site)
    emit(report, as_json, table=report.table())


@trustee.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--runtime-dir", type=_DIRECTORY, help="RAM-backed directory of the round keys.")
def run(directory: Path, runtime_dir: Path | None) -> None:
    """Run the trustee of the site in DIRECTORY until it is told to stop."""
    from bedside.service.logs import setup_logging
    from bedside.service.notify import hold_reloads
    from bedside.trustee.daemon import run_trustee

    hold_reloads()
    paths = SitePaths(directory)
    _identity(paths)
    setup_logging()
    asyncio.run(run_trustee(paths, runtime_dir or default_runtime_directory(directory), SystemClock(), SystemEntropy()))


@trustee.command()
@click.argument("directory", type=_DIRECTORY)
@json_option
@click.pass_context
def status(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """Show the trustee's health, open rounds, votes, chain and ledger; exits 0, 1 or 2 like a monitoring plug-in."""
    from bedside.trustee.status import read_report

    paths = SitePaths(directory)
    identity = _identity(paths)
    with _store(paths) as store:
        report = read_report(paths, identity.pins.site, identity.subject, store)
    rows = [[r.task, str(r.round_number), r.state, r.sentence] for r in report.recent_rounds]
    state = "running" if report.running else "not running"
    title = f"trustee {report.trustee} of site {report.site}: {state}; {report.ledger_entries} sums in the ledger"
    for word in report.foreign_words:
        title += f"\nALARM foreign-word: {word.kind} at position {word.position} of the log was never said here"
    for verdict in report.verdicts:
        if not verdict.holds:
            title += f"\nALARM plan {verdict.plan_digest[:16]} does not hold: {verdict.sentence} [{verdict.code}]"
    title += "".join(f"\n{line}" for line in _why(report, directory))
    emit(report, as_json, table=Table(("task", "round", "state", "why"), rows, title=title, empty="no rounds yet"))
    ctx.exit(report.exit_status)


def _why(report: TrusteeReport, directory: Path) -> Iterator[str]:
    """What makes the exit status 1 or 2, a line each."""
    if not report.running:
        yield f"FAILED no trustee runs here: bedside trustee run {directory}"
    for part in report.components:
        if part.level != "ok":
            yield f"{part.level.upper()} {part.component}: {part.sentence}"


@trustee.command(name="clear-alarm")
@click.argument("directory", type=_DIRECTORY)
@json_option
def clear_alarm(directory: Path, as_json: bool) -> None:
    """Open rounds again after words under this trustee's key were found that it never said.

    First find out who else holds the key; docs/audit.md says what to do. With a key that somebody else holds, this
    site has no protection in any round that it opens.
    """
    from bedside.trustee.log_store import LogStore

    paths = SitePaths(directory)
    _identity(paths)
    with _store(paths) as store:
        cleared = LogStore(store.database).handle_foreign_words(SystemClock().now_ns() // _NS_PER_S)
    emit({"cleared": cleared}, as_json)


def _federation(path: Path) -> Signed:
    try:
        return parse_strict(Signed, path.read_bytes())
    except MalformedError as error:
        raise MalformedError(
            "bad-federation",
            f"{path} is not a federation document",
            remedy="name the file that `bedside federation sign` wrote",
        ) from error


def _root(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != DIGEST_BYTES:
        raise MalformedError("bad-key", "--root-pk is not a key of 64 hexadecimal digits", remedy="copy all 64 digits")
    return key


@contextmanager
def _desk(directory: Path) -> Iterator[tuple[Desk, Identity]]:
    from bedside.trustee.daemon import open_desk

    paths = SitePaths(directory)
    identity = _identity(paths)
    with _store(paths) as store:
        yield open_desk(paths, identity, Register(store.database), SystemClock()), identity


@contextmanager
def _store(paths: SitePaths) -> Iterator[TrusteeStore]:
    with reading(), closing(TrusteeStore.open(paths.database)) as store:
        yield store


def _identity(paths: SitePaths) -> Identity:
    paths.read_public()
    if not paths.identity.exists():
        raise ConfigError(
            "not-joined",
            f"the site in {paths.directory} belongs to no federation yet",
            remedy="run `bedside site join` with the federation's document",
        )
    return open_identity(paths.identity, Role.ROLE_TRUSTEE)


def _add_membership(data: dict[str, object], desk: Desk, identity: Identity) -> None:
    roster = desk.register.roster()
    data.update(
        federation=identity.pins.federation,
        trustee=identity.subject,
        enrolment_address=identity.pins.enrolment_address,
        ca_fingerprint=identity.pins.ca_digest,
        roster_version=roster.version if roster else 0,
        roster_published=bool(roster and roster.published),
        members=[
            {
                "subject": member.subject,
                "role": _role(member.role),
                "label": member.label,
                "revoked": member.revoked_at_s is not None,
            }
            for member in desk.register.members()
        ],
        tokens=[{"label": label, "uses_left": left, "not_after_s": end} for label, left, end in desk.register.tokens()],
        pending_requests=len(desk.register.requests(PENDING)),
    )


def _role(role: int) -> str:
    return {int(Role.ROLE_DEVICE): "device", int(Role.ROLE_TRUSTEE): "trustee"}.get(role, "unknown")


def _marked_role(role: int) -> str:
    """The role in words; what is not a device stands out."""
    return _role(role) if role == Role.ROLE_DEVICE else f"NOT A DEVICE: {_role(role)}"


def _as_dict(name: str, authority_pk: str) -> dict[str, object]:
    return {"site": name, "authority_pk": authority_pk}
