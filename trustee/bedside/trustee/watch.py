"""The part of the daemon that watches the log: reads on, vouches, recomputes drawn rounds, and raises the alarm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, RefusedError
from bedside.proto.v1.common_pb2 import Signed
from bedside.service.health import Health, Level
from bedside.service.identity import Identity
from bedside.service.logs import event
from bedside.trustee.auditor import RoundAuditor
from bedside.trustee.duty import OUR_TROUBLE
from bedside.trustee.link import TrusteeLink
from bedside.trustee.log_store import LogStore
from bedside.trustee.logbook import LogBook
from bedside.trustee.paths import SitePaths
from bedside.trustee.policy_file import PolicyFile

LOOK_INTERVAL_S: Final = 5.0
"""Seconds between two looks at the log while nothing is asked."""

COMPONENT: Final = "log"
_LOGGER = logging.getLogger(__name__)


class LogWatch:
    """One trustee's eye on the log; `told` is called whenever its health changes."""

    def __init__(
        self,
        paths: SitePaths,
        identity: Identity,
        store: LogStore,
        policy: PolicyFile,
        health: Health,
        told: Callable[[], None],
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        own, key = identity.require_credential(), identity.signing_key
        self.book = LogBook(store, own, key, clock=clock, entropy=entropy)
        root_pk = bytes.fromhex(identity.pins.root_pk)
        self._auditor = RoundAuditor(store, own, key, root_pk, paths.audit, clock)
        self._identity = identity
        self._policy = policy
        self._health = health
        self._told = told

    async def run(self, link: TrusteeLink) -> None:
        """Watch for ever; raises what is our own trouble."""
        while True:
            await self.look(link)
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self, link: TrusteeLink) -> None:
        """Read on, say what is to be said, and recompute what is due."""
        try:
            await self.book.follow(link, self._identity.federation, self._one_in)
        except OUR_TROUBLE:
            raise
        except BedsideError as error:
            self._fail(error)
            return
        self.report()
        await self._auditor.work(link)
        await self._deliver(link)

    async def prepare(self, link: TrusteeLink, plan: Signed) -> None:
        """Before a plan is judged: what the log says of it."""
        await self.book.prepare(link, self._identity.federation, plan, self._one_in)
        self.report()

    def report(self) -> None:
        """Health from what is stored: an alarm stands until a person has handled it."""
        try:
            self.book.check_alarm()
        except RefusedError as error:
            self._set(Level.FAILED, f"{error.sentence} [{error.code}]")
        else:
            self._set(Level.OK, f"{self.book.store.frontier().size} entries read and vouched for")

    async def _deliver(self, link: TrusteeLink) -> None:
        store = self.book.store
        cosignature = store.undelivered_cosignature()
        if cosignature is not None:
            await self._say("cosignature", link.put_cosignature(cosignature))
            store.mark_cosignature_delivered(cosignature)
        for verdict in store.undelivered_verdicts():
            await self._say("verdict", link.put_verdict(verdict))
            store.mark_verdict_delivered(verdict)

    @staticmethod
    async def _say(what: str, call: Awaitable[None]) -> None:
        """What the coordinator refuses for good is not said again."""
        try:
            await call
        except OUR_TROUBLE:
            raise
        except BedsideError as error:
            event(_LOGGER, "word-refused", level=logging.WARNING, kind=what, error=error)

    def _fail(self, error: BedsideError) -> None:
        if self._health.snapshot()[COMPONENT].sentence != error.sentence:
            event(_LOGGER, "log-broken", level=logging.CRITICAL, error=error)
        self._set(Level.FAILED, error.sentence)

    def _set(self, level: Level, sentence: str) -> None:
        before = self._health.snapshot()[COMPONENT]
        self._health.set(COMPONENT, level, sentence)
        if (before.level, before.sentence) != (level, sentence):
            self._told()

    @property
    def _one_in(self) -> int:
        return self._policy.current().policy.audit_one_in
