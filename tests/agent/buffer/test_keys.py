"""Which keys seal and open the buffer, where they come from, and how one is replaced."""

import numpy as np
import pytest

from bedside.agent.buffer.keys import (
    CREDENTIAL,
    KEY_FILE,
    NEXT_KEY_FILE,
    OLD_CREDENTIAL,
    KeyRing,
    begin_next_key,
    erase_filed_key,
    finish_next_key,
    has_credential,
    key_id,
    load_key_ring,
)
from bedside.agent.buffer.seal import Sealer
from bedside.core.errors import ConfigError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality
from bedside.ondevice.windows.part import Part
from bedside.service.keys import create_secret
from bedside.service.platform import SystemEntropy

ENTROPY = SystemEntropy()
FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))


def part() -> Part:
    values = np.arange(500, dtype=np.int16).reshape(250, 2)
    return Part(
        StreamId("ecg"), SessionId("s"), 5, 5 * 10**9, 250.0, values, "mV", "MDC_ECG_ELEC_POTL", 0.5, Quality.GOOD
    )


def test_the_newest_key_seals_and_every_key_of_the_ring_opens() -> None:
    old = Sealer(FIRST, ENTROPY).seal(part())
    sealer = Sealer(KeyRing(SECOND, FIRST), ENTROPY)
    new = sealer.seal(part())
    for sealed in (old, new):
        assert np.array_equal(sealer.open(sealed, "ecg", "s", 5).values, part().values)
    assert sealer.key_id == key_id(SECOND)
    assert Sealer(SECOND).opens(new)
    assert not Sealer(FIRST).opens(new)
    with pytest.raises(StoreError) as caught:
        Sealer(FIRST).open(new, "ecg", "s", 5)
    assert caught.value.code == "blob-sealed"


def test_resealed_bytes_open_with_the_new_key_alone_and_in_their_place_alone() -> None:
    old = Sealer(FIRST, ENTROPY).seal(part())
    new = Sealer(KeyRing(SECOND, FIRST), ENTROPY).reseal(old)
    assert not Sealer(FIRST).opens(new)
    assert np.array_equal(Sealer(SECOND).open(new, "ecg", "s", 5).values, part().values)
    with pytest.raises(StoreError) as caught:
        Sealer(SECOND).open(new, "ecg", "s", 6)
    assert caught.value.code == "blob-swapped"


@pytest.mark.parametrize(
    "place", [("windows", "ecg", "s", 7), ("records", "ecg", "t", 7), ("records", "ecg", "s", 8), ("records", "ecg")]
)
def test_a_sealed_row_opens_in_its_place_alone(place) -> None:
    sealer = Sealer(FIRST, ENTROPY)
    sealed = sealer.seal_row(("records", "ecg", "s", 7), b"content")
    assert sealer.open_row(sealed, ("records", "ecg", "s", 7)) == b"content"
    with pytest.raises(StoreError) as caught:
        sealer.open_row(sealed, place)
    assert caught.value.code == "blob-swapped"


def test_a_key_is_found_in_its_file(tmp_path) -> None:
    create_secret(tmp_path / KEY_FILE, 32, ENTROPY)
    assert load_key_ring(tmp_path, {}).keys == ((tmp_path / KEY_FILE).read_bytes(),)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        load_key_ring(tmp_path, {})
    assert caught.value.code == "key-mode"


def test_without_any_key_the_error_names_both_places(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_key_ring(tmp_path, {})
    assert caught.value.code == "buffer-key-missing"
    assert KEY_FILE in caught.value.sentence
    assert CREDENTIAL in caught.value.sentence


def test_credentials_come_before_files(tmp_path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / CREDENTIAL).write_bytes(THIRD)
    (tmp_path / "c" / OLD_CREDENTIAL).write_bytes(SECOND + FIRST)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "c")}
    create_secret(tmp_path / KEY_FILE, 32, ENTROPY)
    ring = load_key_ring(tmp_path, environ)
    assert ring.keys == (THIRD, SECOND, FIRST, (tmp_path / KEY_FILE).read_bytes())
    assert has_credential(environ)
    assert not has_credential({})
    assert FIRST.hex() not in repr(ring)


@pytest.mark.parametrize("content", [b"", b"short", FIRST + SECOND, FIRST + b"\n"])
def test_a_credential_of_another_size_is_refused_with_the_way_to_make_one(tmp_path, content) -> None:
    (tmp_path / CREDENTIAL).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_key_ring(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert caught.value.code == "key-size"
    assert "systemd-creds encrypt" in caught.value.remedy


def test_a_replaced_key_is_overwritten_where_it_lay(tmp_path) -> None:
    create_secret(tmp_path / KEY_FILE, 32, ENTROPY)
    old = (tmp_path / KEY_FILE).read_bytes()
    with (tmp_path / KEY_FILE).open("rb") as still_open:
        begin_next_key(tmp_path, ENTROPY)
        new = (tmp_path / NEXT_KEY_FILE).read_bytes()
        begin_next_key(tmp_path, ENTROPY)  # a repeated call keeps the key that rows may already be sealed with
        assert load_key_ring(tmp_path, {}).keys == (new, old)
        finish_next_key(tmp_path)
        assert still_open.read() == bytes(32)
    assert load_key_ring(tmp_path, {}).keys == (new,)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("crash", ["zeroed", "unlinked"])
def test_a_crash_in_the_middle_of_erasing_leaves_the_next_key(tmp_path, crash) -> None:
    create_secret(tmp_path / KEY_FILE, 32, ENTROPY)
    begin_next_key(tmp_path, ENTROPY)
    new = (tmp_path / NEXT_KEY_FILE).read_bytes()
    if crash == "zeroed":
        (tmp_path / KEY_FILE).write_bytes(bytes(32))
    else:
        erase_filed_key(tmp_path / KEY_FILE)
    assert load_key_ring(tmp_path, {}).keys == (new,)
    finish_next_key(tmp_path)
    assert load_key_ring(tmp_path, {}).keys == (new,)
