"""Everything of the agent that needs a coordinator, held together: certificate, rounds, heartbeats and their files.

Invariants:
    * Nothing here ends the process or reaches the sample path. Whatever fails, a damaged key or journal, an answer
      that nobody thought of, or a defect, becomes the state of the component `link`, and is tried again.
    * The files of the link are opened here and not before, so that a device whose link is damaged still predicts.
    * The code of rounds is loaded when there is a link: a device that is not enrolled never needs it (3 MB).

Source: DESIGN sections 3 and 5.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside.agent.config import AgentConfig
from bedside.agent.health.facts import AgentFacts
from bedside.agent.health.heartbeat import Detail
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.settings import RoundSettings
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.serving.rules import ServingConfig
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import Trainer
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, ConfigError
from bedside.service.identity import Identity, SequenceNumbers
from bedside.service.link.channel import Backoff
from bedside.service.link.errors import UNEXPECTED, unexpected
from bedside.service.logs import event

if TYPE_CHECKING:
    from bedside.agent.health.pulse import Pulse
    from bedside.agent.rounds.client import RoundClient
    from bedside.agent.rounds.contributor import Report
    from bedside.agent.rounds.journal import Contribution, Journal
    from bedside.agent.rounds.link import CoordinatorLink

_LOGGER = logging.getLogger(__name__)

ENROLMENT_INTERVAL_S: Final = 2.0
"""Seconds between two looks whether this device has been enrolled."""

CERTIFICATE_INTERVAL_S: Final = 6 * 3_600.0
"""Seconds between two runs of the child that renews the certificate when it is due."""

_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0


class Uplink:
    """One device's way to its coordinator. Use from one event loop.

    Args:
        directory: of the device; the child that renews the certificate starts from it.
        config: of the agent.
        identity: its keys; they need not be whole.
        models: bundles and checkpoints.
        trainer: the device's.
        on_model: awaited when a verified model is here that should serve; returns the streams that it reads.
        report: called when link or trainer change.
        observe: makes the facts of a heartbeat.
        detail: how much of them may be told.
    """

    def __init__(
        self,
        directory: Path,
        config: AgentConfig,
        identity: Identity,
        models: ModelStore,
        trainer: Trainer,
        clock: Clock,
        entropy: Entropy,
        *,
        on_model: Callable[[ActiveModel], Awaitable[Sequence[str]]],
        report: Report,
        observe: Callable[[Pulse], AgentFacts],
        detail: Callable[[], Detail],
    ) -> None:
        self._directory = directory
        self._config = config
        self._identity = identity
        self._models = models
        self._trainer = trainer
        self._clock = clock
        self._entropy = entropy
        self._on_model = on_model
        self._report = report
        self._observe = observe
        self._detail = detail
        self._settings = RoundSettings(
            config.state_dir, config.policy, config.training, config.link.poll_wait_ms, hold_out=config.serving.gate
        )
        self._journal: Journal | None = None
        self._sequence: SequenceNumbers | None = None

    def configure(self, policy: Path, training: TrainingConfig, serving: ServingConfig) -> None:
        """Go by these from the next plan on."""
        self._settings.policy_path, self._settings.training, self._settings.hold_out = policy, training, serving.gate

    @property
    def journal(self) -> Journal | None:
        """The journal, where the link has opened it."""
        return self._journal

    def newest(self) -> Contribution | None:
        """The plan that was dealt with last; None while the journal cannot tell."""
        try:
            return self._journal.newest() if self._journal is not None else None
        except BedsideError:
            return None

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    async def run(self) -> None:
        """Keep the link until cancelled; returns at once where it is switched off, raises nothing."""
        backoff = Backoff(self._entropy, first_s=_FIRST_RETRY_S, cap_s=_LONGEST_RETRY_S)
        while self._config.link.enabled:
            began_s = self._clock.monotonic_s()
            try:
                await self._keep()
            except Exception as error:
                known = unexpected(error)
                self._report("link", known)
                if known.code == UNEXPECTED:
                    _LOGGER.exception("link-failed")
                else:
                    event(_LOGGER, "link-failed", level=logging.ERROR, error=known)
            if self._clock.monotonic_s() - began_s > _LONGEST_RETRY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _keep(self) -> None:
        """Wait until this device is enrolled, and then talk to the coordinator for ever."""
        self._identity.check_keys()
        while self._identity.credential is None or self._identity.certificate_pem is None:
            self._report("link", _NOT_ENROLLED)
            await asyncio.sleep(ENROLMENT_INTERVAL_S)
        from bedside.agent.rounds.journal import Journal

        if self._journal is None:
            self._journal = Journal.open(self._config.state_dir)
        if self._sequence is None:
            self._sequence = self._identity.sequence()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_certificate())
            tasks.create_task(self._talk(self._journal, self._sequence))

    async def _talk(self, journal: Journal, sequence: SequenceNumbers) -> None:
        from bedside.agent.rounds.link import CoordinatorLink

        while True:
            certificate = self._identity.certificate_pem
            link = CoordinatorLink.open(self._identity, self._config.link.service_address)
            try:
                async with asyncio.TaskGroup() as tasks:
                    speakers = [
                        tasks.create_task(self._round_client(link, journal, sequence).run()),
                        tasks.create_task(self._pulse(link, sequence).run()),
                    ]
                    await self._certificate_changes(certificate)
                    for speaker in speakers:  # a new certificate: open the channel again
                        speaker.cancel()
            finally:
                await link.close()

    async def _certificate_changes(self, known: bytes | None) -> None:
        """Return when the file holds another certificate: another process writes it."""
        while self._identity.certificate_pem == known:
            await asyncio.sleep(ENROLMENT_INTERVAL_S)

    def _round_client(self, link: CoordinatorLink, journal: Journal, sequence: SequenceNumbers) -> RoundClient:
        from bedside.agent.rounds.client import RoundClient

        return RoundClient(
            self._settings,
            self._identity,
            journal,
            self._models,
            link,
            sequence,
            self._trainer,
            clock=self._clock,
            entropy=self._entropy,
            on_model=self._on_model,
            report=self._report,
        )

    def _pulse(self, link: CoordinatorLink, sequence: SequenceNumbers) -> Pulse:
        from bedside.agent.health.pulse import Pulse

        pulse = Pulse(
            self._identity,
            link,
            sequence,
            clock=self._clock,
            entropy=self._entropy,
            interval_s=self._config.link.heartbeat_s,
            observe=lambda: self._observe(pulse),
            detail=self._detail,
        )
        return pulse

    async def _keep_certificate(self) -> None:
        """Renew the certificate in a child, where the X.509 code's memory goes back."""
        while True:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "bedside.service", "agent", "renew", str(self._directory),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            await child.wait()
            await asyncio.sleep(CERTIFICATE_INTERVAL_S if child.returncode == 0 else CERTIFICATE_INTERVAL_S / 72)


_NOT_ENROLLED: Final = ConfigError("not-enrolled", "not enrolled: run `bedside agent enrol` with a token")
