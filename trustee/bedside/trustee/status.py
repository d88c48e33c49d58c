"""What `bedside trustee status` shows: the daemon's word on itself, and the rounds, chain and ledger of its store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from bedside.core.errors import StoreError
from bedside.core.securesum.trustee import TrusteeState
from bedside.core.signing.envelope import parse_strict
from bedside.core.unreadable import UNREADABLE
from bedside.proto.v1.audit_pb2 import Verdict
from bedside.proto.v1.common_pb2 import Signed
from bedside.service.files import private_opener
from bedside.service.health import Health, Level
from bedside.trustee.ledger import check_ledger, entries
from bedside.trustee.log_store import LogStore
from bedside.trustee.paths import SitePaths
from bedside.trustee.store import UNFINISHED, StoredRound, TrusteeStore


class ComponentReport(msgspec.Struct, kw_only=True):
    """One component of the daemon."""

    component: str
    level: str
    sentence: str


class DaemonReport(msgspec.Struct, kw_only=True):
    """`status.json`: how the daemon was when it last looked."""

    pid: int
    exit_status: int
    components: list[ComponentReport]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """A round as an operator sees it."""

    task: str
    round_number: int
    cohort: int
    state: str
    plan_digest: str
    set_root: str
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """A charge as an operator sees it."""

    task: str
    round_number: int
    purpose: int
    set_size: int
    noise_multiplier_e6: int
    charged_at_s: int


@dataclass(frozen=True, slots=True)
class ForeignWordReport:
    """A word under this trustee's key that it never said."""

    position: int
    kind: str
    plan_digest: str
    cohort: int


@dataclass(frozen=True, slots=True)
class VerdictReport:
    """What came of recomputing a round."""

    plan_digest: str
    holds: bool
    code: str
    sentence: str
    checked_at_s: int


@dataclass(frozen=True, slots=True)
class TrusteeReport:
    """Everything; `exit_status` is 0, 1 or 2 as monitoring plug-ins report it."""

    site: str
    trustee: str
    running: bool
    exit_status: int
    components: list[ComponentReport]
    open_rounds: list[RoundReport]
    recent_rounds: list[RoundReport]
    votes: int
    answers: int
    chain_index: int
    chain_head: str
    ledger_entries: int
    ledger_head: str
    ledger: list[LedgerReport]
    log_size: int
    log_root: str
    foreign_words: list[ForeignWordReport]
    verdicts: list[VerdictReport]


def write_status(path: Path, pid: int, health: Health) -> None:
    """Leave the daemon's health beside its store. Not synced: it is news, not state.

    Raises:
        StoreError: `status-write`.
    """
    components = [
        ComponentReport(component=name, level=state.level.name.lower(), sentence=state.sentence)
        for name, state in health.snapshot().items()
    ]
    report = DaemonReport(pid=pid, exit_status=health.exit_status, components=components)
    fresh = path.with_name(f".{path.name}.new")
    try:
        with open(fresh, "wb", opener=private_opener) as file:
            file.write(msgspec.json.encode(report))
        fresh.replace(path)
    except OSError as error:
        raise StoreError(
            "status-write", f"{path.name} was not written: {error.strerror}", remedy="check the disk's free space"
        ) from error


def read_report(paths: SitePaths, site: str, subject: str, store: TrusteeStore, *, recent: int = 20) -> TrusteeReport:
    """Put the report together; reads only."""
    running = paths.is_running()
    daemon = _read_daemon(paths.status) if running else None
    listed = entries(store.database.connection)
    rounds = store.rounds(*TrusteeState)
    index, head = store.chain_head()
    log = LogStore(store.database)
    foreign = log.foreign_words()
    worst = daemon.exit_status if daemon and not foreign else int(Level.FAILED)
    return TrusteeReport(
        site=site,
        trustee=subject,
        running=running,
        exit_status=worst,
        components=daemon.components if daemon else [],
        open_rounds=[_show(stored) for stored in rounds if stored.state in UNFINISHED],
        recent_rounds=[_show(stored) for stored in rounds[-recent:]],
        votes=len(listed),
        answers=sum(stored.state is TrusteeState.ANSWERED for stored in rounds),
        chain_index=index,
        chain_head=head.hex(),
        ledger_entries=len(listed),
        ledger_head=check_ledger(listed).hex(),
        ledger=[
            LedgerReport(c.task, c.round_number, c.purpose, c.set_size, c.noise_multiplier_e6, c.charged_at_s)
            for c, _ in listed[-recent:]
        ],
        log_size=log.frontier().size,
        log_root=log.frontier().root().hex(),
        foreign_words=[ForeignWordReport(w.position, w.kind, w.plan_digest.hex(), w.cohort) for w in foreign],
        verdicts=[_verdict(signed) for signed in log.verdicts()[-recent:]],
    )


def _verdict(signed: Signed) -> VerdictReport:
    told = parse_strict(Verdict, signed.payload)
    return VerdictReport(told.plan_digest.hex(), told.holds, told.code, told.sentence, told.checked_at_s)


def _show(stored: StoredRound) -> RoundReport:
    return RoundReport(
        stored.task,
        stored.round_number,
        stored.key.cohort,
        stored.state.value,
        stored.key.plan_digest.hex(),
        stored.set_root.hex() if stored.set_root else "",
        stored.code,
        stored.sentence,
    )


def _read_daemon(path: Path) -> DaemonReport | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DaemonReport)
    except (OSError, *UNREADABLE):
        return None
