"""A bundle with other files or another manifest, signed again by its author: only a replay can find what is wrong."""

import msgspec

from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.manifest import MANIFEST, PARAMETERS, SIGNATURE, SIGNED_KIND, encode_manifest
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.verify import file_digest
from bedside.core.signing.envelope import signature_of


def resigned(built, author, files, **changes):
    """The tar of `built` with `files` in place of those of these names, and `changes` of its manifest."""
    manifest = msgspec.structs.replace(built.manifest, **changes)
    entries = tuple(
        msgspec.structs.replace(entry, size=len(files[entry.name]), blake2b=file_digest(files[entry.name]))
        if entry.name in files
        else entry
        for entry in manifest.files
    )
    if PARAMETERS in files:
        tensors = decode_tensors(files[PARAMETERS])
        shared = encode_tensors({spec.name: tensors[spec.name] for spec in manifest.shared()})
        manifest = msgspec.structs.replace(manifest, checkpoint=file_digest(shared))
    data = encode_manifest(msgspec.structs.replace(manifest, files=entries))
    return pack_bundle(built.files | files | {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, author)})


def with_tensors(built, author, file, change):
    """The tar of `built` with other tensors in one file."""
    tensors = {name: array.copy() for name, array in decode_tensors(built.files[file]).items()}
    change(tensors)
    return resigned(built, author, {file: encode_tensors(tensors)})
