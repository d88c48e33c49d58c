import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedside.core.bundle.archive import HEAD, manifest_in, pack_bundle, unpack_bundle
from bedside.core.bundle.manifest import COMMITTED
from bedside.core.errors import MalformedError

MEMBERS = (*HEAD, "train-q1-all-sgd.onnx", "train-q1-head-sgd.onnx", *COMMITTED)
FILES = {name: bytes([at]) * (at * 300) for at, name in enumerate(MEMBERS, start=1)}
FILES["manifest.sig"] = b"s" * 64
TAR = pack_bundle(FILES)


def test_what_was_packed_comes_back():
    assert unpack_bundle(TAR) == FILES


def test_any_tar_program_reads_it():
    with tarfile.open(fileobj=io.BytesIO(TAR)) as archive:
        assert {member.name: archive.extractfile(member).read() for member in archive} == FILES


def test_equal_files_are_equal_bytes_whatever_their_order():
    assert pack_bundle(dict(reversed(FILES.items()))) == TAR


def test_a_missing_or_foreign_file_is_not_packed():
    with pytest.raises(ValueError, match="exactly the files"):
        pack_bundle({name: FILES[name] for name in MEMBERS[1:]})
    with pytest.raises(ValueError, match="exactly the files"):
        pack_bundle(FILES | {"../evil": b""})


@pytest.mark.parametrize("name", ["../manifest.json", "/etc/passwd", "manifest.json/", "other.json"])
def test_another_name_is_refused(name):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    with pytest.raises(MalformedError) as caught:
        unpack_bundle(stream.getvalue())
    assert caught.value.code == "bad-archive"


def test_a_size_beyond_the_bytes_at_hand_allocates_nothing():
    header = bytearray(TAR[:512])
    header[124:136] = b"00077777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(MalformedError):
        unpack_bundle(bytes(header) + TAR[512:])


@given(st.binary(max_size=2_000))
@example(b"")
@example(bytes(10_240))
def test_any_bytes_are_refused_in_one_way(data):
    with pytest.raises(MalformedError):
        unpack_bundle(data)


@given(st.integers(0, len(TAR) - 1), st.integers(1, 255))
def test_no_changed_byte_outside_the_files_is_overlooked(at, change):
    data = bytearray(TAR)
    data[at] ^= change
    try:
        files = unpack_bundle(bytes(data))
    except MalformedError:
        return
    assert sum(files[name] != FILES[name] for name in MEMBERS) == 1, "the byte belongs to a file, whose digest shows it"


@given(st.integers(0, len(TAR) - 1))
def test_a_truncated_archive_is_refused(length):
    with pytest.raises(MalformedError):
        unpack_bundle(TAR[:length])


def test_a_manifest_is_found_in_an_archive_that_is_cut_off_behind_it():
    end = 512 + len(FILES["manifest.json"])
    assert manifest_in(TAR[:end]) == FILES["manifest.json"]
    with pytest.raises(MalformedError):
        manifest_in(TAR[: end - 1])
    with pytest.raises(MalformedError):
        manifest_in(TAR[1_024:])
