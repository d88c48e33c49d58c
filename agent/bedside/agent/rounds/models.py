"""Models on this device: bundles and checkpoints as files named by digest, and which of them serve.

Invariants:
    * A bundle has its name only after its signature (by a signer of the site's policy), its digests and its golden
      vectors held on this machine; a checkpoint only after its digest did.
    * What is read is checked again: a file that rotted, or that does not fit its model, is dropped, so that it is
      fetched anew.
    * There are never more than a few checkpoints beside those that a slot names, and one unfinished file, whatever is
      announced; what a slot names stays, so that the way back is open at once.

Source: DESIGN section 6.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from bedside.agent.inference.choice import Wish, choose, open_chosen
from bedside.agent.rounds.slots import NOTE_NAME, ActiveModel, SlotNote
from bedside.core.errors import MalformedError, ProtocolError, StoreError, TrustError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.signing.envelope import digest
from bedside.ondevice.golden import DEFAULT_LIMITS, Replay, replay_golden
from bedside.ondevice.heads import Head
from bedside.service.files import durable_file, open_regular, read_regular, sync_directory
from bedside.service.link.blobs import PARTIAL_SUFFIX, GetBlob, fetch_blob
from bedside.service.text import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bedside.agent.inference.model import Model
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.rounds.slots import Origin, Slot
    from bedside.core.bundle.manifest import WindowSpec
    from bedside.core.bundle.preprocessing import ChannelReference
    from bedside.core.bundle.verify import Bundle, Parameters
    from bedside.core.policy import SitePolicy
    from bedside.ondevice.confinement import Limits
    from bedside.proto.v1.common_pb2 import BlobRef

_LENGTH_BYTES: Final = 8
_FLOAT32_BYTES: Final = 4
CHECKPOINT_CODES: Final = frozenset({"checkpoint-rotten", "file-read", "bad-tensors", "bad-parameters"})
"""What may be wrong with a checkpoint while its bundle is sound."""
_SPARE_CHECKPOINTS: Final = 2
"""Beside those that serve: the one that a round starts from, and the last known good."""


class ServedModel(NamedTuple):
    """A model that is ready, its slot, the windows that it takes, and what its author's streams looked like."""

    name: str
    model: Model
    window: WindowSpec
    reference: Sequence[ChannelReference] = ()


class ModelStore:
    """`<state_dir>/models/`.

    Attributes:
        personal: what the device keeps for itself of its models; None where models are as they came.
    """

    def __init__(
        self,
        state_dir: Path,
        limits: Limits = DEFAULT_LIMITS,
        wish: Wish = "auto",
        personal: PersonalFiles | None = None,
    ) -> None:
        self.personal = personal
        self._root = state_dir / "models"
        self._limits = limits
        self._wish: Wish = wish
        self._note = SlotNote(self._root / NOTE_NAME)
        self._newest: Path | None = None
        for name in ("bundles", "checkpoints", "incoming"):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def drop_unfinished(self) -> None:
        """At the start of the process: remove what an earlier one was fetching."""
        with suppress(OSError):  # a disk that takes no writes keeps them
            if self.personal is not None:
                self.personal.discard_pending()
            self._drop_partials(None)
            for path in (self._root / "incoming").iterdir():
                path.unlink()

    def bundle_path(self, bundle: str) -> Path:
        """The tar of an accepted bundle."""
        return self._root / "bundles" / f"{bundle}.tar"

    def _runtime_note(self, active: ActiveModel) -> Path:
        return self._root / "bundles" / f"{active.bundle}.runtime.json"

    def checkpoint_path(self, checkpoint: str) -> Path:
        """A verified checkpoint."""
        return self._root / "checkpoints" / f"{checkpoint}.safetensors"

    def slots(self) -> dict[str, Slot]:
        """What serves, by name; empty while nothing does.

        Raises:
            StoreError: `active-model` when the note is damaged.
        """
        return self._note.read()

    def known(self) -> dict[str, Slot]:
        """As `slots`; empty as well where the note is damaged."""
        return self._note.known()

    def activate(self, name: str, active: ActiveModel, origin: Origin | None = None) -> None:
        """Note durably which model serves under a name, and drop checkpoints that nobody needs any more.

        Raises:
            RefusedError: `too-many-models`.
        """
        self._sweep(self._note.put(name, active, origin))

    def change(self, name: str, step: Callable[[Slot], Slot], *, insist: bool = False) -> Slot:
        """Note durably what a step makes of a slot; return that.

        Args:
            name: of the slot.
            step: see `succession`.
            insist: hold to it until this process ends also where the disk does not take it.

        Raises:
            ProtocolError: `no-such-model`.
            RefusedError: what the step refuses.
            StoreError: `file-write`.
        """

        def checked(slot: Slot | None) -> Slot:
            if slot is None:
                raise no_such_model(name, self._note.known())
            return step(slot)

        slots = self._note.update(name, checked, insist=insist)
        self._sweep(slots)
        return slots[name]

    def release(self, name: str) -> None:
        """Note durably that nothing serves under a name any more."""
        self._note.drop(name)

    async def accept_file(self, path: Path, policy: SitePolicy) -> ActiveModel:
        """Take a bundle from a file of this machine, after the same checks as one from the network.

        Raises:
            TrustError, MalformedError: the bundle does not hold; nothing is kept.
            StoreError: `file-read`, also when it is no regular file, or above the bound of a blob.
        """
        incoming = self._root / "incoming" / "local.tar"
        try:
            await asyncio.to_thread(_copy, path, incoming)
        except OSError as error:
            raise StoreError("file-read", f"the bundle {path} cannot be read: {error.strerror}") from error
        signer_pks = tuple(policy.bundle_signers.values())
        return ActiveModel(await self._admit(incoming, signer_pks, wanted=None), "", signer_pks)

    async def fetch(
        self, manifest: bytes, tar_digest: bytes, checkpoint: BlobRef, policy: SitePolicy, get_blob: GetBlob
    ) -> ActiveModel:
        """Bring the bundle and a checkpoint of a verified plan or result here; what is here is not fetched again.

        Args:
            manifest: of the bundle, verified.
            tar_digest: of the bundle's tar, 32 bytes.
            checkpoint: its digest, and its size as announced.
            policy: names the signers.
            get_blob: opens a stream.

        Raises:
            UnavailableError: the link broke; call again.
            TrustError, MalformedError: a blob, or the bundle in it, does not hold; `blob-size` for a checkpoint that
                is larger than the model.
        """
        bundle = digest(manifest).hex()
        signer_pks = tuple(policy.bundle_signers.values())
        if not self.bundle_path(bundle).exists():
            incoming = self._root / "incoming" / f"{tar_digest.hex()}.tar"
            self._drop_partials(incoming)
            await fetch_blob(get_blob, tar_digest, incoming)
            await self._admit(incoming, signer_pks, wanted=bundle)
        target, most = self.checkpoint_path(checkpoint.digest.hex()), _checkpoint_bytes(manifest)
        if checkpoint.size_bytes > most:
            raise MalformedError("blob-size", f"a checkpoint of {checkpoint.size_bytes} bytes is above {most}")
        self._drop_partials(target)
        self._newest = target  # a plan may begin with it, whether it serves or not
        self._sweep(self._note.known())
        await fetch_blob(get_blob, checkpoint.digest, target, max_bytes=checkpoint.size_bytes)
        return ActiveModel(bundle, checkpoint.digest.hex(), signer_pks)

    def name_of(self, active: ActiveModel) -> str:
        """The slot that a model belongs to: the name in its manifest.

        Raises:
            TrustError, MalformedError, StoreError: as `read_bundle`.
        """
        return self.read_bundle(active).manifest.name

    async def settle(self, active: ActiveModel) -> None:
        """Decide on which runtime a bundle serves here, unless that is known; before `load`.

        Raises:
            BedsideError: as `choose`: the configuration asks for LiteRT, which cannot serve it.
        """
        replay = Replay(str(self.bundle_path(active.bundle)), active.signer_pks)
        await choose(self._runtime_note(active), replay, self._wish, self._limits)

    def load(self, active: ActiveModel) -> ServedModel:
        """Open the int8 form of a model for inference, with what this device has of its own in it.

        Loads the runtime (10 to 30 MB).

        Raises:
            TrustError, MalformedError, StoreError: what is on the disk does not hold any more.
            UnavailableError: `runtime-missing`.
        """
        bundle = self.read_bundle(active)
        parameters, temperature = self.parameters(active, bundle), 1.0
        tuned = self.personal.tuned(active.bundle, active.name) if self.personal is not None else None
        own = tuned.over(bundle.manifest, parameters) if tuned is not None else None
        if tuned is not None and own is not None:
            parameters, temperature = own, tuned.facts.temperature
        return self.opened(active, bundle, parameters, temperature)

    def opened(
        self, active: ActiveModel, bundle: Bundle, parameters: Parameters, temperature: float = 1.0
    ) -> ServedModel:
        """Open the int8 form of these parameters on the runtime that was chosen for their bundle.

        Raises:
            MalformedError, UnavailableError: as `load`.
        """
        from bedside.agent.inference.model import Model

        window = bundle.manifest.window
        runtime = open_chosen(bundle, parameters, self._runtime_note(active), self._wish)
        head = Head.of(bundle.manifest, temperature)
        model = Model(active.digest, head, (window.length, window.channels), runtime)
        reference = bundle.manifest.reference
        channels = reference.channels if reference is not msgspec.UNSET else ()
        return ServedModel(bundle.manifest.name, model, window, channels)

    def read_bundle(self, active: ActiveModel) -> Bundle:
        """Read an accepted bundle and check it again; one that does not hold any more is dropped.

        Raises:
            TrustError, MalformedError, StoreError: as `verify_archive`; `other-bundle`; `file-read`.
        """
        from bedside.core.bundle.verify import verify_archive

        path = self.bundle_path(active.bundle)
        try:
            bundle = verify_archive(_read(path), [bytes.fromhex(key) for key in active.signer_pks])
            if bundle.digest.hex() != active.bundle:
                raise TrustError("other-bundle", "a bundle on this disk is not the one that its name says")
        except (TrustError, MalformedError):
            path.unlink(missing_ok=True)
            raise
        return bundle

    def parameters(self, active: ActiveModel, bundle: Bundle) -> Parameters:
        """The bundle's parameters, with the shared ones from the checkpoint and the local ones of this device.

        A checkpoint that does not hold is dropped; local tensors that do not fit are not used.

        Raises:
            MalformedError: `bad-tensors`, or `bad-parameters` when the checkpoint is not a state of this model.
            StoreError: `checkpoint-rotten` when its bytes are not those that were verified; `file-read`.
        """
        return self._with_own(active, bundle, self._global(active, bundle))

    def _with_own(self, active: ActiveModel, bundle: Bundle, parameters: Parameters) -> Parameters:
        own = self.personal.read("local", active.bundle) if self.personal is not None else None
        if own is None or not own.tensors.keys() <= {t.name for t in bundle.manifest.parameters if not t.shared}:
            return parameters
        return own.over(bundle.manifest, parameters) or parameters

    def _global(self, active: ActiveModel, bundle: Bundle) -> Parameters:
        if not active.checkpoint:
            return dict(bundle.parameters)
        path = self.checkpoint_path(active.checkpoint)
        data = _read(path)
        try:
            if digest(data).hex() != active.checkpoint:
                raise StoreError(
                    "checkpoint-rotten",
                    f"{path} is not what was stored",
                    remedy="it is fetched again by itself; if that repeats, replace the disk",
                )
            return _shared_from(data, bundle)
        except (StoreError, MalformedError):
            path.unlink(missing_ok=True)
            raise

    def lost(self, manifest: bytes) -> bool:
        """Whether the newest result of a manifest's slot is wanted again.

        It is where no checkpoint of a round is known there, or the newest could not be read.

        Raises:
            MalformedError: `bad-manifest`.
        """
        from bedside.core.bundle.manifest import decode_manifest

        slot = self._note.known().get(decode_manifest(manifest).name)
        if slot is None or slot.lost:
            return True
        return not any(model.checkpoint for model in (*slot.needed(), *slot.withdrawn))

    async def _admit(self, incoming: Path, signer_pks: tuple[str, ...], *, wanted: str | None) -> str:
        """Verify and replay an incoming tar in a limited child, then give it its name; returns the bundle's digest."""
        try:
            compared = await replay_golden(Replay(str(incoming), signer_pks), self._limits)
            if wanted is not None and compared.digest != wanted:
                raise TrustError("other-bundle", "the tar does not hold the bundle that the plan names")
        except (TrustError, MalformedError):
            incoming.unlink(missing_ok=True)
            raise
        target = self.bundle_path(compared.digest)
        incoming.replace(target)
        sync_directory(target.parent)
        return compared.digest

    def _drop_partials(self, target: Path | None) -> None:
        """Remove what arrived of other blobs: only the one that is fetched now may be unfinished."""
        for path in self._root.glob(f"*/.*{PARTIAL_SUFFIX}"):
            if target is None or path != target.with_name(f".{target.name}{PARTIAL_SUFFIX}"):
                path.unlink(missing_ok=True)

    def _sweep(self, slots: Mapping[str, Slot]) -> None:
        """Keep what slots name, what was fetched last (which may not be here yet), and the last ones beside them."""
        named = [model for slot in slots.values() for model in slot.needed() if model.checkpoint]
        kept = {self.checkpoint_path(model.checkpoint) for model in named}
        if self._newest is not None:
            kept.add(self._newest)
        files = sorted((self._root / "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        others = [path for path in files if path not in kept]
        spare = max(0, _SPARE_CHECKPOINTS + max(1, len(slots)) - len(kept))
        for path in others[: max(0, len(others) - spare)]:
            path.unlink()
        if self.personal is not None:
            models = [model for slot in slots.values() for model in (*slot.needed(), *slot.withdrawn)]
            self.personal.keep({model.bundle for model in models})


def no_such_model(name: str, known: Iterable[str]) -> ProtocolError:
    """The error for a name under which nothing serves."""
    names = bounded(", ".join(sorted(known)) or "none")
    return ProtocolError("no-such-model", f"no model {bounded(name, 64)!r} serves here", remedy=f"serving: {names}")


def _shared_from(data: bytes, bundle: Bundle) -> Parameters:
    from bedside.core.bundle.tensors import decode_tensors
    from bedside.core.bundle.verify import check_parameters

    shared = decode_tensors(data)
    if set(shared) != {tensor.name for tensor in bundle.manifest.shared()}:
        raise MalformedError("bad-parameters", "a checkpoint does not hold exactly the model's shared tensors")
    return check_parameters(bundle.manifest, {**bundle.parameters, **shared})


def _checkpoint_bytes(manifest: bytes) -> int:
    """Most bytes that a checkpoint of a model can have: float32 tensors behind the longest header."""
    from bedside.core.bundle.bounds import MAX_TENSOR_HEADER_BYTES
    from bedside.core.bundle.manifest import decode_manifest

    values = sum(math.prod(tensor.shape) for tensor in decode_manifest(manifest).shared())
    return MAX_TENSOR_HEADER_BYTES + _LENGTH_BYTES + values * _FLOAT32_BYTES


def _copy(path: Path, target: Path) -> None:
    with open_regular(path, MAX_BLOB_BYTES) as source, durable_file(target) as file:
        shutil.copyfileobj(source, file)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BLOB_BYTES)
    except OSError as error:
        raise StoreError("file-read", f"{path} cannot be read: {error.strerror}") from error
