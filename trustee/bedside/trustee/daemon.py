"""The trustee's process: dials out, asks for work, does it, says what was decided. Reconnects for ever.

The coordinator can neither update nor configure it (rule T9): all that arrives is work items, and each is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import (
    BedsideError,
    MalformedError,
    RefusedError,
    StoreError,
    TrustError,
    UnavailableError,
)
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.enrolment_pb2 import EnrolRequest
from bedside.proto.v1.identity_pb2 import Role
from bedside.proto.v1.trustee_pb2 import WorkItem
from bedside.service.health import Health, Level
from bedside.service.identity import Identity, open_identity
from bedside.service.keys import load_signing_key
from bedside.service.link.address import parse_address
from bedside.service.link.channel import Backoff, ClientTls, open_channel
from bedside.service.link.enrolment import connect_enrolment, refresh_federation, renew_certificate
from bedside.service.logs import event
from bedside.service.notify import Notifier
from bedside.service.sqlite import DAMAGED, reading
from bedside.service.tls import certificate_expiry_ns
from bedside.trustee.duty import MAX_HEADERS_BYTES, OUR_TROUBLE, Duty
from bedside.trustee.hardening import harden_process, swap_in_use
from bedside.trustee.inbox import Inbox, round_of
from bedside.trustee.keys import RoundKeys, open_round_keys, runtime_held
from bedside.trustee.link import TrusteeLink
from bedside.trustee.log_store import LogStore
from bedside.trustee.paths import SitePaths
from bedside.trustee.policy_file import PolicyFile
from bedside.trustee.retention import prune_files
from bedside.trustee.rosters import RosterBook
from bedside.trustee.site.authority import SiteAuthority
from bedside.trustee.site.desk import Desk, decision_of
from bedside.trustee.site.register import PENDING, REFUSED, Register
from bedside.trustee.status import write_status
from bedside.trustee.store import TrusteeStore, Word
from bedside.trustee.trouble import trouble_of
from bedside.trustee.watch import LogWatch

WAIT_S: Final = 20.0
"""Seconds of one long poll."""

CLAIM_ATTEMPTS: Final = 10
CLAIM_INTERVAL_S: Final = 0.05

DESK_INTERVAL_S: Final = 0.5
"""Seconds between two looks at what the `site` commands have written."""

RENEW_BEFORE_S: Final = 30 * 86_400
"""Seconds before its expiry at which the TLS certificate is renewed."""

RECONNECT_CAP_S: Final = 30.0
COMPONENTS: Final = ("link", "store", "policy", "keys", "log", "work")

_NS_PER_S: Final = 1_000_000_000
_LOGGER = logging.getLogger(__name__)


class Trustee:
    """One site's trustee, assembled."""

    def __init__(self, paths: SitePaths, runtime_directory: Path, clock: Clock, entropy: Entropy) -> None:
        self._paths = paths
        self._clock = clock
        self._entropy = entropy
        self._health = Health(clock, COMPONENTS)
        self._notifier = Notifier(clock)
        paths.make_directories()
        self._identity: Identity = open_identity(paths.identity, Role.ROLE_TRUSTEE)
        self._identity.require_credential()
        self._keys: RoundKeys = open_round_keys(runtime_directory, entropy)
        self._policy = PolicyFile(paths.policy)
        self._store = TrusteeStore.open(paths.database)
        self._register = Register(self._store.database)
        self._desk = open_desk(paths, self._identity, self._register, clock)
        log = LogStore(self._store.database)
        self._watch = LogWatch(
            paths, self._identity, log, self._policy, self._health, self._report, clock=clock, entropy=entropy
        )
        self._duty = Duty(
            paths,
            self._identity,
            self._store,
            self._keys,
            self._policy,
            RosterBook(self._store, self._register, self._identity.pins.site),
            self._watch.book.check_plan,
            clock=clock,
            entropy=entropy,
        )
        self._inbox = Inbox(self._health, self._report)
        self._revision = -1
        self._publishing = asyncio.Lock()

    async def run(self) -> None:
        """Work until cancelled; whatever goes wrong is tried again, but for a damaged store, which ends the process."""
        swap = swap_in_use()
        swap_text = "this machine has swap: round keys in RAM may reach a disk" if swap else "in RAM"
        self._health.set("keys", Level.DEGRADED if swap else Level.OK, swap_text)
        self._notifier.ready("looking for the coordinator")
        feeding = asyncio.create_task(self._feed())
        backoff = Backoff(self._entropy, first_s=0.5, cap_s=RECONNECT_CAP_S)
        recovered = False
        try:
            while True:
                self._check_policy()
                try:
                    if not recovered:
                        self._recover()
                        recovered = True
                    await self._connected(backoff)
                except Exception as error:
                    trouble = trouble_of(error)
                    if trouble.code == DAMAGED:
                        raise trouble from error
                    wait_s = backoff.next_s()
                    level = Level.DEGRADED if isinstance(trouble, UnavailableError) else Level.FAILED
                    self._health.set("link", level, trouble.sentence)
                    event(_LOGGER, "link-lost", level=logging.WARNING, error=trouble, wait_s=round(wait_s, 1))
                    self._report()
                    await asyncio.sleep(wait_s)
        finally:
            feeding.cancel()
            self._notifier.stopping()
            self._store.close()

    async def _feed(self) -> None:
        """Feed the watchdog, in turn with all that is done: also while the coordinator is away, or a transfer is long.

        Whatever waits for another machine has a deadline, so that a loop that turns comes to its end.
        """
        while (interval_s := self._notifier.watchdog_interval_s) is not None:
            self._notifier.watchdog()
            await asyncio.sleep(interval_s)

    def reload(self) -> None:
        """Look at the policy now, which is followed anyway, and tell the service manager which rules are in force."""
        self._notifier.reloading()
        self._check_policy()
        event(_LOGGER, "reloaded", policy=self._health.snapshot()["policy"].sentence)
        self._notifier.ready(f"policy: {self._health.snapshot()['policy'].sentence}")

    def _recover(self) -> None:
        for word in self._duty.recover():
            event(_LOGGER, "round-lost", plan=word.key.plan_digest, cohort=word.key.cohort)
        prune_files(self._paths, self._store, now_ns=self._clock.now_ns())
        self._health.set("store", Level.OK, "open")

    async def _connected(self, backoff: Backoff) -> None:
        await self._prepare()
        pins = self._identity.pins
        tls = ClientTls(self._identity.ca_pem, self._identity.certificate_pem or b"", self._identity.tls_key_pem)
        channel = open_channel(parse_address(pins.service_address), tls)
        link = TrusteeLink(channel, f"the coordinator {pins.service_address}")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_desk(link))
                tasks.create_task(self._follow_work(link, backoff))
                tasks.create_task(self._watch.run(link))
        finally:
            await channel.close()

    async def _prepare(self) -> None:
        """Federation, own roster and certificate, over the enrolment port."""
        pins = self._identity.pins
        async with await connect_enrolment(pins.enrolment_address, bytes.fromhex(pins.ca_digest)) as client:
            await refresh_federation(self._identity, client)
            self._desk.renew_roster()
            roster = self._register.roster()
            if roster is not None:
                await client.publish_roster(roster.signed)
                self._register.mark_published(roster.version)
            if self._needs_certificate():
                await renew_certificate(self._identity, client, clock=self._clock, entropy=self._entropy)

    def _needs_certificate(self) -> bool:
        pem = self._identity.certificate_pem
        if pem is None:
            return True
        # A machine without a clock believes it is 1970 and keeps what it has; the coordinator then refuses an old one.
        return certificate_expiry_ns(pem) < self._clock.now_ns() + RENEW_BEFORE_S * _NS_PER_S

    async def _follow_work(self, link: TrusteeLink, backoff: Backoff) -> None:
        for word in self._store.undelivered():
            await self._send(link, word)
        first = True
        while True:
            work = await link.get_work(self._inbox.known, 0.0 if first else WAIT_S)
            self._link_is_up(backoff, first=first)
            first = False
            self._check_policy()
            pause_s = await self._inbox.take(work.items, partial(self._work, link), partial(self._refuse, link))
            await asyncio.sleep(pause_s)

    def _link_is_up(self, backoff: Backoff, *, first: bool) -> None:
        backoff.reset()
        if first:
            event(_LOGGER, "coordinator-found", address=self._identity.pins.service_address)
            self._notifier.status("connected")
        self._health.set("link", Level.OK, "connected")
        self._report()

    async def _refuse(self, link: TrusteeLink, item: WorkItem, error: BedsideError) -> None:
        kind = item.WhichOneof("item")
        if kind != "enrol":
            await self._send(link, self._duty.refusal(round_of(item), error))
        if kind == "seal":
            prune_files(self._paths, self._store, now_ns=self._clock.now_ns())

    async def _work(self, link: TrusteeLink, item: WorkItem) -> None:
        if item.WhichOneof("item") == "enrol":
            await self._enrol(link, item.enrol)
            return
        for word in await self._decide(link, item):
            await self._send(link, word)

    async def _decide(self, link: TrusteeLink, item: WorkItem) -> list[Word]:
        async def fetch(ref: BlobRef) -> bytes:
            target = self._paths.headers / ref.digest.hex()
            return await link.get_blob(ref, target, MAX_HEADERS_BYTES)

        match item.WhichOneof("item"):
            case "open":
                await self._watch.prepare(link, item.open.plan)
                return self._duty.open(item.open)
            case "seal":
                return await self._duty.seal(item.seal, fetch)
            case "reveal":
                return await self._duty.reveal(item.reveal, fetch)
            case "close":
                return self._duty.close(item.close)
            case _:
                raise MalformedError("unknown-work", "the coordinator asks for work that this version does not know")

    async def _enrol(self, link: TrusteeLink, request: EnrolRequest) -> None:
        known = self._desk.receive(request)
        if known.state != PENDING:
            await self._send_decisions(link)
        if known.state == REFUSED:
            raise RefusedError(known.code, known.sentence)
        event(_LOGGER, "enrolment", subject=known.subject, state=known.state)

    async def _send(self, link: TrusteeLink, word: Word) -> None:
        """Say a stored word. What the coordinator refuses for good is not said again by itself."""
        try:
            if word.kind == "answer":
                await link.put_answer(word.signed, self._duty.answer_words(word.signed))
            else:
                await link.put_word(word.kind, word.signed)
            event(_LOGGER, f"said-{word.kind}", plan=word.key.plan_digest, cohort=word.key.cohort)
        except OUR_TROUBLE:
            raise
        except BedsideError as error:
            event(_LOGGER, "word-refused", level=logging.WARNING, kind=word.kind, error=error)
        self._store.mark_delivered(word)
        if word.kind in ("answer", "closed"):
            prune_files(self._paths, self._store, now_ns=self._clock.now_ns())

    async def _follow_desk(self, link: TrusteeLink) -> None:
        """Publish rosters and send decisions as the `site` commands write them."""
        while True:
            revision = self._store.revision()
            if revision != self._revision:
                await self._publish_roster()
                await self._send_decisions(link)
                self._revision = revision
            if self._desk.renew_roster():
                self._revision = -1
            self._check_policy()
            await asyncio.sleep(DESK_INTERVAL_S)

    async def _send_decisions(self, link: TrusteeLink) -> None:
        await self._publish_roster()
        for request in self._register.unsent():
            try:
                await link.put_decision(decision_of(request))
            except UnavailableError:
                raise
            except BedsideError as error:
                event(_LOGGER, "decision-refused", level=logging.WARNING, subject=request.subject, error=error)
            self._register.mark_sent(request.digest)

    async def _publish_roster(self) -> None:
        async with self._publishing:  # read inside: an older roster must not arrive after a newer one
            roster = self._register.roster()
            if roster is None or roster.published:
                return
            pins = self._identity.pins
            async with await connect_enrolment(pins.enrolment_address, bytes.fromhex(pins.ca_digest)) as client:
                await client.publish_roster(roster.signed)
            self._register.mark_published(roster.version)
            event(_LOGGER, "roster-published", version=roster.version)

    def _check_policy(self) -> None:
        """Follow the policy file, and say so when it is refused or in force again."""
        self._policy.current()
        before = self._health.snapshot()["policy"]
        problem = self._policy.problem
        if problem is None:
            self._health.set("policy", Level.OK, "in force")
        else:
            self._health.set("policy", Level.DEGRADED, f"the file is refused, the old rules hold: {problem.sentence}")
        if before.sentence != self._health.snapshot()["policy"].sentence:
            if problem is not None:
                event(_LOGGER, "policy-refused", level=logging.WARNING, error=problem)
            self._report()

    def _report(self) -> None:
        """Leave the health beside the store; a disk that is full is no reason to stop."""
        try:
            write_status(self._paths.status, os.getpid(), self._health)
        except StoreError as error:
            if self._health.snapshot()["store"].level is Level.OK:
                event(_LOGGER, "status-not-written", level=logging.WARNING, error=error)
            self._health.set("store", Level.DEGRADED, error.sentence)
        else:
            if self._health.snapshot()["store"].level is Level.DEGRADED:
                self._health.set("store", Level.OK, "open")


def open_desk(paths: SitePaths, identity: Identity, register: Register, clock: Clock) -> Desk:
    """The site authority's desk over an opened database."""
    pins = identity.pins
    key = load_signing_key(paths.authority_key)
    if bytes(key.verify_key).hex() != pins.authority_pk:
        raise TrustError(
            "other-authority",
            f"{paths.authority_key} is not the authority that was pinned for site {pins.site}",
            remedy="restore the authority key from its backup",
        )
    authority = SiteAuthority(key, pins.site, pins.federation)
    return Desk(authority, register, identity.federation.coordinator.sign_pk, clock)


async def run_trustee(paths: SitePaths, runtime_directory: Path, clock: Clock, entropy: Entropy) -> None:
    """Run until SIGTERM or SIGINT; returns then."""
    for sentence in harden_process():
        event(_LOGGER, "hardening-incomplete", level=logging.WARNING, why=sentence)
    async with _claimed(paths):
        with runtime_held(runtime_directory):
            await _until_told(paths, runtime_directory, clock, entropy)
    event(_LOGGER, "stopped")


async def _until_told(paths: SitePaths, runtime_directory: Path, clock: Clock, entropy: Entropy) -> None:
    with reading():
        trustee = Trustee(paths, runtime_directory, clock, entropy)
    task = asyncio.create_task(trustee.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    loop.add_signal_handler(signal.SIGHUP, trustee.reload)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def _claimed(paths: SitePaths) -> AsyncIterator[None]:
    """Hold the directory. `trustee status` may look at the lock in the same moment: one refusal is none."""
    with contextlib.ExitStack() as held:
        for left in reversed(range(CLAIM_ATTEMPTS)):
            try:
                held.enter_context(paths.hold())
                break
            except UnavailableError:
                if not left:
                    raise
                await asyncio.sleep(CLAIM_INTERVAL_S)
        yield
