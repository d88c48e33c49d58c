"""Which models this device serves: those that the configuration names, and those that plans and results bring.

Invariants:
    * At a start the last verified models serve again, without a network and without the configured files.
    * A model that is damaged or refused takes down its own slot at most; while an older one serves there, it goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from bedside.agent.config import AgentConfig, ModelConfig
from bedside.agent.pipeline import Pipeline
from bedside.agent.rounds import succession
from bedside.agent.rounds.models import CHECKPOINT_CODES, ModelStore
from bedside.agent.rounds.slots import UNNAMED, ActiveModel, Origin, Slot
from bedside.agent.serving.desk import ModelDesk
from bedside.agent.serving.gate import Gate
from bedside.core.errors import BedsideError, MalformedError, StoreError, TrustError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.policy import SitePolicy
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.service.files import open_regular
from bedside.service.link.errors import unexpected
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

BUNDLE_TAR: Final = "bundle.tar"
"""The tar inside a bundle's directory."""


class Serving:
    """Fills the pipeline's slots. Use from one event loop.

    Attributes:
        desk: changes what serves.
        wanted: digest of what was to serve last in the main slot; empty before anything was.
    """

    def __init__(
        self, config: AgentConfig, models: ModelStore, pipeline: Pipeline, policy: Callable[[], SitePolicy], gate: Gate
    ) -> None:
        first = [ModelConfig(bundle=config.model)] if config.model else []
        self._entries = {entry.bundle: entry for entry in (*first, *config.models)}
        self._first = config.model
        self._rules = config.serving
        self._models = models
        self._pipeline = pipeline
        self._policy = policy
        self._streams: dict[str, list[str]] = {}
        self.desk = ModelDesk(models, pipeline, gate, self.streams_of)
        self.wanted = b""

    async def start(self) -> None:
        """Serve the last verified models, and what the configuration names beside them; raises nothing."""
        slots: dict[str, Slot] = {}
        try:
            self._models.drop_unfinished()
            slots = self._models.slots()
        except BedsideError as error:
            self._fault("the note of models", error)
        for name, slot in slots.items():
            if self._taken_out(name, slot):
                await self._guarded(name, self._release(name))
            else:
                await self._guarded(name, self._serve_stored(name, slot))
        for path, entry in self._entries.items():
            await self._guarded(path, self._serve_configured(entry, slots), of=_name_in)
        trained = [name for name, slot in self._noted().items() if slot.model.checkpoint]
        self._pipeline.main = next((name for name in trained if name in self._pipeline.engine.slots), "") or next(
            iter(self._pipeline.engine.slots), ""
        )
        self.wanted = self._pipeline.model_digest

    async def take(self, active: ActiveModel) -> Sequence[str]:
        """Take a verified model that a plan or a result brought; return the streams of its slot.

        Raises:
            As `ModelDesk.take`.
        """
        before, self.wanted = self.wanted, active.digest
        name = await self.desk.take(active)
        if name in self._pipeline.engine.slots:
            self._pipeline.main = name
        else:
            self.wanted = before
        return self._pipeline.streams_of(name)

    def streams_of(self, name: str) -> Sequence[str]:
        """What agent.toml has the slot of a name read; empty for what its manifest says."""
        return self._streams.get(name, ())

    async def _serve_stored(self, name: str, slot: Slot) -> None:
        """Serve what served last; without its files the one before, until the result comes again."""
        origin = slot.origin
        if name == UNNAMED and self._first:  # before there were slots, the one model began with the configured file
            origin = Origin(self._first, await asyncio.to_thread(_digest_of, self._first))
        if origin.path in self._entries:
            self._streams[name] = self._entries[origin.path].streams
        while True:
            try:
                await self.desk.resume(slot.model, origin)
            except (StoreError, MalformedError, TrustError) as error:
                behind = succession.after_loss(slot, bundle_holds=error.code in CHECKPOINT_CODES)
                if behind is None:
                    raise
                event(_LOGGER, "model-lost", level=logging.ERROR, error=error)
                slot = behind
                with suppress(StoreError):  # a disk that takes no writes does not keep it from serving
                    self._models.change(name, partial(_same, behind), insist=True)
            else:
                return

    async def _serve_configured(self, entry: ModelConfig, before: dict[str, Slot]) -> None:
        """Serve what a configured file holds, unless its slot serves already and the file is still the same."""
        serving = {name: slot for name, slot in self._noted().items() if name in self._pipeline.engine.slots}
        mine = {name: slot for name, slot in serving.items() if slot.origin.path == entry.bundle}
        file = await asyncio.to_thread(_digest_of, entry.bundle)
        if mine and (not file or any(slot.origin.file == file for slot in mine.values())):
            return  # also where the file is gone: what was accepted from it goes on
        accepted = await self._models.accept_file(_tar(entry.bundle), self._policy())
        same = [slot.model for slot in serving.values() if slot.model.bundle == accepted.bundle]
        name = await self._take_configured(same[0] if same else accepted, entry, Origin(entry.bundle, file))
        for other in mine.keys() - {name}:  # the file's model has another name now
            await self._release(other)
        for other, slot in before.items():
            if slot.origin.path == entry.bundle:
                self._pipeline.faults.pop(other, None)

    async def _take_configured(self, active: ActiveModel, entry: ModelConfig, origin: Origin) -> str:
        name = await asyncio.to_thread(self._models.name_of, active)
        self._streams[name] = entry.streams
        return await self.desk.take(active, origin)

    async def _release(self, name: str) -> None:
        self.desk.release(name)

    async def _guarded(self, name: str, work: Awaitable[None], of: Callable[[str], str] = str) -> None:
        """Do the work; what it fails with is the fault of a slot, whose name is `of(name)`."""
        try:
            await work
        except Exception as error:
            known = unexpected(error)
            if known is not error:
                _LOGGER.exception("model-failed")
            self._fault(of(name), known)

    def _fault(self, name: str, error: BedsideError) -> None:
        self._pipeline.faults[name] = error
        event(_LOGGER, "model-refused", level=logging.ERROR, slot=name, error=error, remedy=error.remedy)

    def _taken_out(self, name: str, slot: Slot) -> bool:
        """Whether the configuration does not want it any more.

        It named the file once, and no round has improved that; or it has learned which models may come from elsewhere.
        """
        if slot.origin.path in self._entries:
            return False
        return not self._rules.serves(name) or (bool(slot.origin.path) and not slot.model.checkpoint)

    def _noted(self) -> dict[str, Slot]:
        try:
            return self._models.slots()
        except StoreError:
            return {}


def _tar(bundle: str) -> Path:
    path = Path(bundle)
    return path / BUNDLE_TAR if path.is_dir() else path


def _name_in(bundle: str) -> str:
    """The name that a configured file gives its model, whoever signed it; the file's own where it gives none."""
    from bedside.core.bundle.archive import MANIFEST_HEAD_BYTES, manifest_in
    from bedside.core.bundle.manifest import decode_manifest

    try:
        with open_regular(_tar(bundle), MAX_BLOB_BYTES) as file:
            return decode_manifest(manifest_in(file.read(MANIFEST_HEAD_BYTES))).name
    except (OSError, MalformedError):
        return Path(bundle).stem


def _same(slot: Slot, _before: Slot) -> Slot:
    return slot


def _digest_of(bundle: str) -> str:
    """Digest of a configured file; empty where it cannot be read."""
    try:
        with open_regular(_tar(bundle), MAX_BLOB_BYTES) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    except OSError:
        return ""
