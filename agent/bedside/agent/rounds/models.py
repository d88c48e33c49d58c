"""Models on this device: bundles and checkpoints as files named by digest, and which of them serves.

Invariants:
    * A bundle has its name only after its signature (by a signer of the site's policy), its digests and its golden
      vectors held on this machine; a checkpoint only after its digest did.
    * `active.json` is replaced durably after the files it names are on the disk, so that after any power cut the last
      verified model serves again, without a coordinator.

Source: DESIGN section 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from bedside.agent.inference.golden import DEFAULT_LIMITS, Replay, replay_golden
from bedside.core.errors import MalformedError, StoreError, TrustError
from bedside.service.files import sync_directory, write_durable
from bedside.service.link.blobs import GetBlob, fetch_blob

if TYPE_CHECKING:
    from bedside.agent.inference.confinement import Limits
    from bedside.agent.inference.engine import Model
    from bedside.core.bundle.manifest import WindowSpec
    from bedside.core.bundle.verify import Bundle, Parameters
    from bedside.core.policy import SitePolicy
    from bedside.proto.v1.common_pb2 import BlobRef

_ACTIVE_NAME: Final = "active.json"
_KEPT_CHECKPOINTS: Final = 3
"""The one that serves, the one that a round starts from, and the last known good."""


class ActiveModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model serves.

    Attributes:
        bundle: hexadecimal digest of the manifest.
        checkpoint: hexadecimal digest of the parameters; empty for the bundle's own.
        signer_pks: hexadecimal keys under which the bundle was accepted.
    """

    bundle: str
    checkpoint: str
    signer_pks: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """What predictions carry: the checkpoint's digest, or the bundle's (32 bytes)."""
        return bytes.fromhex(self.checkpoint or self.bundle)


class ServedModel(NamedTuple):
    """A model that is ready, and the windows that it takes."""

    model: Model
    window: WindowSpec


class ModelStore:
    """`<state_dir>/models/`."""

    def __init__(self, state_dir: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._root = state_dir / "models"
        self._limits = limits
        for name in ("bundles", "checkpoints", "incoming"):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def bundle_path(self, bundle: str) -> Path:
        """The tar of an accepted bundle."""
        return self._root / "bundles" / f"{bundle}.tar"

    def checkpoint_path(self, checkpoint: str) -> Path:
        """A verified checkpoint."""
        return self._root / "checkpoints" / f"{checkpoint}.safetensors"

    def active(self) -> ActiveModel | None:
        """Which model serves; None while there is none.

        Raises:
            StoreError: `active-model` when the note is damaged.
        """
        path = self._root / _ACTIVE_NAME
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=ActiveModel)
        except (msgspec.DecodeError, OSError) as error:
            raise StoreError("active-model", f"{path} is damaged: {error}", remedy="remove it") from error

    def activate(self, active: ActiveModel) -> None:
        """Note durably which model serves, and drop checkpoints that nobody needs any more."""
        write_durable(self._root / _ACTIVE_NAME, msgspec.json.encode(active))
        self._sweep(active)

    async def accept_file(self, path: Path, policy: SitePolicy) -> ActiveModel:
        """Take a bundle from a file of this machine, after the same checks as one from the network.

        Raises:
            TrustError, MalformedError: the bundle does not hold; nothing is kept.
            StoreError: `file-read`.
        """
        incoming = self._root / "incoming" / "local.tar"
        try:
            write_durable(incoming, path.read_bytes())
        except OSError as error:
            raise StoreError("file-read", f"the bundle {path} cannot be read: {error.strerror}") from error
        signer_pks = tuple(policy.bundle_signers.values())
        return ActiveModel(await self._admit(incoming, signer_pks, wanted=None), "", signer_pks)

    async def fetch(
        self, bundle_digest: bytes, tar_digest: bytes, checkpoint: BlobRef, policy: SitePolicy, get_blob: GetBlob
    ) -> ActiveModel:
        """Bring the bundle and a checkpoint of a verified plan or result here; what is here is not fetched again.

        Raises:
            UnavailableError: the link broke; call again.
            TrustError, MalformedError: a blob, or the bundle in it, does not hold.
        """
        bundle = bundle_digest.hex()
        signer_pks = tuple(policy.bundle_signers.values())
        if not self.bundle_path(bundle).exists():
            incoming = self._root / "incoming" / f"{tar_digest.hex()}.tar"
            await fetch_blob(get_blob, tar_digest, incoming)
            await self._admit(incoming, signer_pks, wanted=bundle)
        target = self.checkpoint_path(checkpoint.digest.hex())
        await fetch_blob(get_blob, checkpoint.digest, target, max_bytes=checkpoint.size_bytes)
        return ActiveModel(bundle, checkpoint.digest.hex(), signer_pks)

    def load(self, active: ActiveModel) -> ServedModel:
        """Open the int8 form of a model for inference. Loads the runtime (30 MB).

        Raises:
            TrustError, MalformedError, StoreError: what is on the disk does not hold any more.
        """
        from bedside.agent.inference.engine import Model
        from bedside.agent.inference.refresh import int8_runtime

        bundle = self.read_bundle(active)
        window = bundle.manifest.window
        runtime = int8_runtime(bundle, self.parameters(active, bundle))
        model = Model(active.digest, bundle.manifest.labels, (window.length, window.channels), runtime)
        return ServedModel(model, window)

    def read_bundle(self, active: ActiveModel) -> Bundle:
        """Read an accepted bundle and check it again."""
        from bedside.core.bundle.verify import verify_archive

        data = _read(self.bundle_path(active.bundle))
        bundle = verify_archive(data, [bytes.fromhex(key) for key in active.signer_pks])
        if bundle.digest.hex() != active.bundle:
            raise TrustError("other-bundle", "a bundle on this disk is not the one that its name says")
        return bundle

    def parameters(self, active: ActiveModel, bundle: Bundle) -> Parameters:
        """The bundle's parameters, with the shared ones from the checkpoint.

        Raises:
            MalformedError: `bad-parameters` when the checkpoint is not a state of this model.
        """
        from bedside.core.bundle.tensors import decode_tensors
        from bedside.core.bundle.verify import check_parameters

        if not active.checkpoint:
            return dict(bundle.parameters)
        shared = decode_tensors(_read(self.checkpoint_path(active.checkpoint)))
        if set(shared) != {tensor.name for tensor in bundle.manifest.shared()}:
            raise MalformedError("bad-parameters", "a checkpoint does not hold exactly the model's shared tensors")
        return check_parameters(bundle.manifest, {**bundle.parameters, **shared})

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

    def _sweep(self, active: ActiveModel) -> None:
        files = sorted((self._root / "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-_KEPT_CHECKPOINTS]:
            if path != self.checkpoint_path(active.checkpoint):
                path.unlink()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError("file-read", f"{path} cannot be read: {error.strerror}") from error
