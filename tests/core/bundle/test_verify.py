import msgspec
import numpy as np
import pytest
from nacl.signing import SigningKey

from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.manifest import COMMITTED, MANIFEST, SIGNATURE, SIGNED_KIND, encode_manifest
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import check_parameters, file_digest, verify_archive
from bedside.core.errors import MalformedError, TrustError
from bedside.core.signing.envelope import signature_of


def refused(tar, signer, error=TrustError):
    with pytest.raises(error) as caught:
        verify_archive(tar, [bytes(signer.verify_key)])
    return caught.value.code


def resigned(built, author, **changes):
    """A bundle whose manifest says something else, with a signature that holds."""
    data = encode_manifest(msgspec.structs.replace(built.manifest, **changes))
    return built.files | {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, author)}


def test_a_bundle_by_an_accepted_signer_is_believed(built, author):
    bundle = verify_archive(built.tar, [bytes(SigningKey.generate().verify_key), bytes(author.verify_key)])
    assert bundle.digest == built.digest
    assert list(bundle.parameters) == [spec.name for spec in bundle.manifest.parameters]


def test_a_stranger_s_bundle_is_refused(built):
    assert refused(built.tar, SigningKey(b"x" * 32)) == "unknown-signer"


def test_a_refused_signer_is_named_by_the_beginning_of_the_key_that_the_bundle_claims(built, author):
    with pytest.raises(TrustError, match=f"it names the signer {bytes(author.verify_key).hex()[:16]}…") as caught:
        verify_archive(built.tar, [])
    assert bytes(author.verify_key).hex() not in caught.value.sentence, "short: to be asked about, not to be copied"
    for damaged in (b"", b"not json", built.files[MANIFEST] + b" "):
        files = built.files | {MANIFEST: damaged}
        assert refused(pack_bundle(files), author) == "unknown-signer", "no parser's error takes its place"


@pytest.mark.parametrize("name", ["train-q1-all-sgd.onnx", *COMMITTED])
def test_a_changed_file_is_refused(built, author, name):
    changed = bytearray(built.files[name])
    changed[len(changed) // 2] ^= 1
    assert refused(pack_bundle(built.files | {name: bytes(changed)}), author) == "bundle-file"


def test_a_changed_manifest_is_refused(built, author):
    data = built.files[MANIFEST].replace(b'"version":"1"', b'"version":"2"')
    assert data != built.files[MANIFEST]
    assert refused(pack_bundle(built.files | {MANIFEST: data}), author) == "unknown-signer"


def test_a_signature_of_another_kind_is_refused(built, author):
    other = signature_of("plan", built.files[MANIFEST], author)
    assert refused(pack_bundle(built.files | {SIGNATURE: other}), author) == "unknown-signer"


def test_a_manifest_that_is_not_canonical_is_refused_though_it_is_signed(built, author):
    data = built.files[MANIFEST] + b" "
    files = built.files | {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, author)}
    assert refused(pack_bundle(files), author, MalformedError) == "bad-manifest"


def test_parameters_that_the_layers_do_not_have_are_refused(built, author):
    fewer = built.manifest.parameters[1:]
    assert refused(pack_bundle(resigned(built, author, parameters=fewer)), author, MalformedError) == "bad-manifest"


def test_two_costs_of_one_batch_are_refused(built, author):
    twice = built.manifest.costs[:1] * 2
    assert refused(pack_bundle(resigned(built, author, costs=twice)), author, MalformedError) == "bad-manifest"


def test_a_parameter_that_is_not_finite_is_refused(built, author, bundle):
    poisoned = {name: array.copy() for name, array in bundle.parameters.items()}
    poisoned["b0"][0] = np.nan
    data = encode_tensors(poisoned)
    entries = tuple(
        msgspec.structs.replace(entry, size=len(data), blake2b=file_digest(data))
        if entry.name == "parameters.safetensors"
        else entry
        for entry in built.manifest.files
    )
    files = resigned(built, author, files=entries) | {"parameters.safetensors": data}
    assert refused(pack_bundle(files), author, MalformedError) == "bad-parameters"


def test_a_first_checkpoint_that_is_not_the_bundles_own_is_refused_though_it_is_signed(built, author):
    assert refused(pack_bundle(resigned(built, author, checkpoint="ab" * 32)), author) == "bundle-file"
    for nonsense in ("", "ab" * 31, "AB" * 32):
        files = resigned(built, author, checkpoint=nonsense)
        assert refused(pack_bundle(files), author, MalformedError) == "bad-manifest"


def test_a_checkpoint_of_another_shape_or_dtype_is_no_state_of_the_model(bundle):
    for wrong in (np.zeros((1,), np.float32), np.zeros(bundle.parameters["w0"].shape, np.int32)):
        with pytest.raises(MalformedError, match="w0"):
            check_parameters(bundle.manifest, dict(bundle.parameters) | {"w0": wrong})
    with pytest.raises(MalformedError, match="not the parameters"):
        check_parameters(bundle.manifest, dict(bundle.parameters) | {"extra": np.zeros(1, np.float32)})
