import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.bundle.archive import HEAD, pack_bundle, unpack_bundle
from bedside.core.bundle.bounds import MAX_PATCHES
from bedside.core.bundle.manifest import COMMITTED, OPTIONAL, decode_manifest, encode_manifest
from bedside.core.bundle.patch import Patch, apply_patches, check_patches
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.errors import MalformedError
from tiny_manifest import make_manifest

INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 70)
PATCHES = st.lists(
    st.builds(Patch, st.sampled_from(["a", "b", "none", ""]), INTS, INTS, st.lists(INTS, max_size=9).map(tuple)),
    max_size=6,
)


def test_tensors_are_written_where_the_table_says_and_nowhere_else():
    tensors = {"a": np.array([[1, 2, 3], [4, 5, 6]], np.int8), "b": np.array(0.5, np.float32)}
    table = (Patch("a", 2, 6, (1, 0)), Patch("b", 9, 4))
    check_patches(table, 14)
    patched = apply_patches(b"\xee" * 14, table, tensors)
    assert patched == b"\xee\xee" + bytes([1, 4, 2, 5, 3, 6]) + b"\xee" + np.float32(0.5).tobytes() + b"\xee"


@pytest.mark.parametrize(
    "table",
    [
        [],
        [Patch("a", -1, 2)],
        [Patch("a", 0, 0)],
        [Patch("a", 0, -4)],
        [Patch("a", 60, 5)],
        [Patch("a", 2**62, 2**62)],
        [Patch("a", 0, 4), Patch("b", 3, 4)],
        [Patch("a", 8, 4), Patch("b", 0, 4)],
        [Patch("a", 0, 4, (0, 0))],
        [Patch("a", 0, 4, (1, 2))],
        [Patch("a", 0, 4, tuple(range(9)))],
        [Patch("", 0, 4)],
        [Patch("a" * 65, 0, 4)],
        [Patch("a", at, 1) for at in range(MAX_PATCHES + 1)],
    ],
)
def test_a_table_outside_the_file_or_with_a_byte_twice_is_refused(table):
    with pytest.raises(MalformedError) as caught:
        check_patches(table, 64)
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize(
    "patch", [Patch("c", 0, 4), Patch("a", 0, 5), Patch("a", 0, 4, (0,)), Patch("a", 0, 4, (2, 1, 0))]
)
def test_a_table_that_does_not_fit_its_tensors_is_refused(patch):
    with pytest.raises(MalformedError):
        apply_patches(bytes(64), [patch], {"a": np.zeros((2, 2), np.int8)})


@given(PATCHES)
def test_whatever_the_table_says_the_file_keeps_its_length_or_the_table_is_refused(table):
    tensors = {"a": np.full((2, 2), 7, np.int8), "b": np.array([1.0], np.float32)}
    try:
        check_patches(table, 64)
        patched = apply_patches(bytes(64), table, tensors)
    except MalformedError:
        return
    written = {at for patch in table for at in range(patch.offset, patch.offset + patch.size)}
    assert len(patched) == 64
    assert not any(byte for at, byte in enumerate(patched) if at not in written)


def test_the_reals_are_what_the_integers_stand_for():
    told = make_manifest().quantisation
    generator = np.random.default_rng(3)
    for shape, form in (((4, 2), "dense"), ((3, 4, 2), "conv"), ((3, 2), "depthwise")):
        layer = msgspec.structs.replace(told.layers[0], form=form)
        quantisation = msgspec.structs.replace(told, layers=(layer,))
        parameters = {
            "w0": generator.normal(size=shape).astype(np.float32),
            "b0": generator.normal(size=2).astype(np.float32),
            "amax": np.ones(1, np.float32),
        }
        quantised = quantise_parameters(parameters, quantisation)
        reals = real_tensors(quantised, quantisation)
        for unit in range(2):
            integers = quantised["w0.q"][unit] if form != "dense" else quantised["w0.q"][:, unit]
            real = reals["w0.real"][unit] if form != "dense" else reals["w0.real"][:, unit]
            assert np.array_equal(real, integers * quantised["w0.scale"][unit])
        assert np.abs(reals["b0.real"] - parameters["b0"]).max() <= quantised["b0.scale"].max() / 2
        assert reals["w0.real"].dtype == reals["b0.real"].dtype == np.float32


def test_a_manifest_without_the_file_has_the_bytes_of_before():
    manifest = make_manifest()
    data = encode_manifest(manifest)
    assert b"patches" not in data
    assert decode_manifest(data) == manifest


def test_the_table_and_the_file_come_together_or_not_at_all():
    manifest = make_manifest()
    entry = msgspec.structs.replace(manifest.files[0], name="infer.tflite", size=64)
    table = (Patch("w0.q", 0, 8),)
    both = msgspec.structs.replace(manifest, files=(*manifest.files, entry), patches=table)
    assert decode_manifest(encode_manifest(both)) == both
    for wrong in (
        msgspec.structs.replace(both, patches=msgspec.UNSET),
        msgspec.structs.replace(manifest, patches=table),
        msgspec.structs.replace(both, files=(entry, *manifest.files)),
        msgspec.structs.replace(both, patches=(Patch("w0.q", 60, 8),)),
        msgspec.structs.replace(both, patches=()),
    ):
        with pytest.raises(MalformedError):
            decode_manifest(encode_manifest(wrong))


def test_an_archive_may_end_with_the_optional_file():
    files = {name: name.encode() for name in (*HEAD, "train-q1-all-sgd.onnx", *COMMITTED)} | {"manifest.sig": bytes(64)}
    more = files | dict.fromkeys(OPTIONAL, b"graph")
    assert unpack_bundle(pack_bundle(files)) == files
    assert unpack_bundle(pack_bundle(more)) == more
    with pytest.raises(MalformedError):
        unpack_bundle(pack_bundle(more)[:-1_024])
