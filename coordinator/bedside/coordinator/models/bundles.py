"""Importing a bundle.

The coordinator checks that a bundle is whole and well-formed, and keeps its author's signature as it came. Whether the
author may be trusted is each site's decision, never the coordinator's (rule T7).
"""

from __future__ import annotations

from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.store import Store, tasks
from bedside.coordinator.store.tasks import BundleRow
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, SIGNATURE, SIGNED_KIND
from bedside.core.bundle.verify import first_checkpoint, verify_bundle
from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.operator_pb2 import ImportedBundle

_SIGNATURE_BYTES = 64


def import_bundle(data: bytes, store: Store, blobs: BlobStore) -> ImportedBundle:
    """Store a bundle and its first checkpoint; importing it again changes nothing.

    Args:
        data: the deterministic tar of `core.bundle.archive`.
        store: where the bundle is listed.
        blobs: where tar and checkpoint go.

    Raises:
        MalformedError: `bad-archive`, `bad-manifest`, `bad-bundle-signature`, `bad-tensors` or `bad-parameters`.
        TrustError: `bundle-file`, when a file is not the one that was signed.
    """
    files = unpack_bundle(data)
    signature = files.pop(SIGNATURE)
    bundle = verify_bundle(files.pop(MANIFEST), files, lambda _: _check_form(signature))
    manifest = Signed(suite=SUITE, kind=SIGNED_KIND, payload=bundle.manifest_bytes, signature=signature)
    checkpoint = first_checkpoint(bundle.manifest, bundle.parameters)
    row = BundleRow(
        digest=bundle.digest,
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        signer=bundle.manifest.signer,
        manifest=manifest.SerializeToString(deterministic=True),
        tar_digest=blobs.put(data),
        tar_bytes=len(data),
        checkpoint_digest=blobs.put(checkpoint),
        checkpoint_bytes=len(checkpoint),
    )
    store.run_tx("import-bundle", lambda tx: tasks.put_bundle(tx, row))
    return ImportedBundle(bundle_digest=row.digest, name=row.name, version=row.version, signer=row.signer)


def _check_form(signature: bytes) -> None:
    if len(signature) != _SIGNATURE_BYTES:
        raise MalformedError(
            "bad-bundle-signature",
            "the bundle's signature is not an Ed25519 signature",
            remedy="build and sign the bundle again with `bedside model build`",
        )
