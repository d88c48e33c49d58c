"""From bytes to a bundle that may be believed.

Invariants of a `Bundle`:
    * the manifest's signature was accepted by the caller's rule before any of it was believed;
    * every file has the size and the digest that the manifest commits to, and there is no other file;
    * parameters and golden vectors parse, are finite, and have the manifest's names, shapes and dtypes.
One from an archive, which is what a device serves or trains, has graphs of known operators only (`graphs`), and golden
tolerances that a graph of another model does not pass (`tolerances`).
What it cannot say is whether the graphs compute what they should on this machine: that is what replaying the
golden vectors is for.

Source: DESIGN section 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.graphs import check_graphs
from bedside.core.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    PARAMETERS,
    SIGNATURE,
    SIGNED_KIND,
    FileEntry,
    Manifest,
    bundle_digest,
    claimed_signer,
    decode_manifest,
)
from bedside.core.bundle.tensors import Array, decode_tensors, encode_tensors
from bedside.core.bundle.tolerances import check_tolerances
from bedside.core.errors import MalformedError, TrustError
from bedside.core.signing.envelope import verify

Parameters = dict[str, npt.NDArray[np.float32]]
SignatureCheck = Callable[[bytes], None]
"""Takes the manifest's bytes; raises TrustError unless an accepted signer signed exactly them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        manifest: parsed.
        manifest_bytes: as signed; never re-serialised.
        digest: BLAKE2b-256 of `manifest_bytes`.
        files: content by name, without manifest and signature.
        parameters: float32 arrays by name, read-only.
        golden: arrays by name, read-only.
    """

    manifest: Manifest
    manifest_bytes: bytes
    digest: bytes
    files: Mapping[str, bytes]
    parameters: Mapping[str, npt.NDArray[np.float32]]
    golden: Mapping[str, Array]


def verify_bundle(manifest_bytes: bytes, files: Mapping[str, bytes], verify_signature: SignatureCheck) -> Bundle:
    """Check a bundle's signature, manifest and files.

    Args:
        manifest_bytes: content of `manifest.json`.
        files: content of every other file of the bundle, without the signature.
        verify_signature: called first, with `manifest_bytes`.

    Raises:
        TrustError: from `verify_signature`, or `bundle-file` when a file is missing, unknown or altered.
        MalformedError: the manifest or a tensor file is not what it claims to be.
    """
    verify_signature(manifest_bytes)
    manifest = decode_manifest(manifest_bytes)
    if set(files) != {entry.name for entry in manifest.files}:
        raise _altered("the files are not those that the manifest names")
    for entry in manifest.files:
        _check_file(entry, files[entry.name])
    parameters = check_parameters(manifest, decode_tensors(files[PARAMETERS]))
    if file_digest(first_checkpoint(manifest, parameters)) != manifest.checkpoint:
        raise _altered("the shared parameters are not the first checkpoint that the manifest names")
    return Bundle(
        manifest=manifest,
        manifest_bytes=manifest_bytes,
        digest=bundle_digest(manifest_bytes),
        files=dict(files),
        parameters=parameters,
        golden=decode_tensors(files[GOLDEN]),
    )


def verify_archive(data: bytes, signer_pks: Collection[bytes]) -> Bundle:
    """Check `bundle.tar`: the way a bundle comes over the wire and lies on a device.

    Args:
        data: the whole tar.
        signer_pks: Ed25519 public keys whose bundles are accepted.

    Raises:
        TrustError: `unknown-signer`, `bundle-file`.
        MalformedError: from the archive, the manifest or the tensors; `bad-graph`; `bad-golden`.
    """
    files = unpack_bundle(data)
    signature = files.pop(SIGNATURE)
    bundle = verify_bundle(files.pop(MANIFEST), files, signed_by(signer_pks, signature))
    check_graphs(bundle.manifest, bundle.files)
    check_tolerances(bundle.manifest, bundle.parameters, bundle.golden)
    return bundle


def signed_by(signer_pks: Collection[bytes], signature: bytes) -> SignatureCheck:
    """Return the rule that accepts a manifest when `signature` over it was made by one of `signer_pks`."""

    def check(manifest_bytes: bytes) -> None:
        for signer_pk in signer_pks:
            try:
                verify(SIGNED_KIND, manifest_bytes, signature, signer_pk)
            except TrustError:
                continue
            return
        raise TrustError(
            "unknown-signer",
            f"the bundle was not signed by any signer that is accepted here{claimed_signer(manifest_bytes)}",
            remedy="have the site's policy name the author's key, or fetch the bundle from its author",
        )

    return check


def check_parameters(manifest: Manifest, arrays: Mapping[str, Array]) -> Parameters:
    """Return `arrays` in the manifest's order when they are a state of this model.

    Raises:
        MalformedError: `bad-parameters`: a name, shape or dtype differs, or a value is not finite.
    """
    if set(arrays) != {spec.name for spec in manifest.parameters}:
        raise _unfit("the tensors are not the parameters that the manifest names")
    checked: Parameters = {}
    for spec in manifest.parameters:
        array = arrays[spec.name]
        if array.dtype != np.float32 or array.shape != spec.shape:
            raise _unfit(f"{spec.name} is {array.dtype}{array.shape}, not {spec.dtype}{spec.shape}")
        if not np.isfinite(array).all():
            raise _unfit(f"{spec.name} has values that are not finite")
        checked[spec.name] = array.astype(np.float32, copy=False)
    return checked


def first_checkpoint(manifest: Manifest, parameters: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """The shared parameters that a bundle starts from; local ones never leave a device, nor come from elsewhere."""
    return encode_tensors({tensor.name: parameters[tensor.name] for tensor in manifest.shared()})


def file_digest(data: bytes) -> str:
    """BLAKE2b-256 of a file, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _check_file(entry: FileEntry, data: bytes) -> None:
    if len(data) != entry.size or file_digest(data) != entry.blake2b:
        raise _altered(f"{entry.name} is not the file that the manifest was signed over")


def _altered(sentence: str) -> TrustError:
    return TrustError("bundle-file", sentence, remedy="fetch the bundle again from its publisher")


def _unfit(sentence: str) -> MalformedError:
    return MalformedError("bad-parameters", sentence, remedy="fetch the checkpoint again")
