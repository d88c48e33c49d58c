import stat

import pytest

from bedside.core.errors import BedsideError, ConfigError, RefusedError, UnavailableError
from bedside.service.mounts import file_system_of
from bedside.service.platform import SystemEntropy
from bedside.trustee.keys import open_round_keys, runtime_held

ENTROPY = SystemEntropy()
PLAN, OTHER = b"p" * 32, b"q" * 32


@pytest.fixture
def mounts(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    return table


@pytest.fixture
def opened(tmp_path, mounts):
    return open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts)


@pytest.mark.parametrize("kind", ["ext4", "overlay", "btrfs", "nfs4", "devtmpfs"])
def test_a_directory_that_is_not_in_ram_is_refused(tmp_path, mounts, kind):
    mounts.write_text(f"/dev/sda1 / {kind} rw 0 0\n")
    with pytest.raises(ConfigError) as caught:
        open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts)
    assert caught.value.code == "runtime-not-ram"
    assert "--runtime-dir" in caught.value.remedy


def test_a_disk_mounted_inside_a_ram_directory_is_seen(tmp_path, mounts):
    (tmp_path / "run").mkdir()
    mounts.write_text(f"tmpfs {tmp_path} tmpfs rw 0 0\n/dev/sdb1 {tmp_path}/run ext4 rw 0 0\n")
    assert file_system_of(tmp_path / "run", mounts) == "ext4"
    assert file_system_of(tmp_path / "runner", mounts) == "tmpfs"


def test_the_last_of_two_mounts_over_one_point_counts(tmp_path, mounts):
    mounts.write_text(f"tmpfs {tmp_path} tmpfs rw 0 0\n/dev/sdb1 {tmp_path} ext4 rw 0 0\n")
    assert file_system_of(tmp_path, mounts) == "ext4"


def test_mount_points_with_spaces_are_read(tmp_path, mounts):
    spaced = tmp_path / "a b"
    spaced.mkdir()
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path}/a\\040b tmpfs rw 0 0\n")
    assert file_system_of(spaced, mounts) == "tmpfs"


def test_a_directory_that_others_may_enter_is_refused(tmp_path, mounts):
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run").chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts)
    assert caught.value.code == "runtime-mode"


def test_the_boot_id_lasts_as_long_as_the_directory(tmp_path, mounts, opened):
    again = open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts)
    assert again.boot_id == opened.boot_id
    (tmp_path / "run" / "boot-id").unlink()
    assert open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts).boot_id != opened.boot_id


def test_a_directory_that_is_refused_is_not_made(tmp_path, mounts):
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
    with pytest.raises(ConfigError), runtime_held(tmp_path / "run", mounts=mounts):
        pass
    assert not (tmp_path / "run").exists()


def test_a_second_trustee_is_kept_out_of_the_runtime_directory(tmp_path, mounts):
    with runtime_held(tmp_path / "run", mounts=mounts):
        with pytest.raises(UnavailableError) as caught, runtime_held(tmp_path / "run", mounts=mounts):
            pass
        assert (tmp_path / "run").exists(), "it is the first one's"
    assert (caught.value.code, "--runtime-dir" in caught.value.remedy) == ("runtime-in-use", True)
    with runtime_held(tmp_path / "run", mounts=mounts):
        pass


def test_a_trustee_that_fails_leaves_no_directory_but_one_with_keys(tmp_path, mounts):
    def fail_after(work):
        work(open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts))
        raise ConfigError("bad-policy", "it did not start")

    with pytest.raises(ConfigError), runtime_held(tmp_path / "run", mounts=mounts):
        fail_after(lambda _: None)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError), runtime_held(tmp_path / "run", mounts=mounts):
        fail_after(lambda keys: keys.create(PLAN, 0, ENTROPY))
    assert open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts).stored() == [(PLAN, 0)]
    with runtime_held(tmp_path / "other", mounts=mounts):
        pass
    assert (tmp_path / "other").exists(), "it outlives the process"


def test_keys_are_private_and_found_again(opened):
    secret = opened.create(PLAN, 3, ENTROPY)
    assert opened.load(PLAN, 3) == secret
    assert opened.load(PLAN, 4) is None
    assert opened.load(OTHER, 3) is None
    assert opened.stored() == [(PLAN, 3)]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in opened.directory.iterdir()}
    assert modes == {0o600}


def test_a_destroyed_key_is_overwritten_before_its_name_goes(opened):
    secret = opened.create(PLAN, 0, ENTROPY)
    (path,) = opened.directory.glob("*.key")
    with path.open("rb") as still_open:
        opened.destroy(PLAN, 0)
        still_open.seek(0)
        left = still_open.read()
    assert left == bytes(len(secret.to_bytes()))
    assert not path.exists()
    opened.destroy(PLAN, 0)


def test_a_key_that_others_may_read_is_not_used(opened):
    opened.create(PLAN, 0, ENTROPY)
    (path,) = opened.directory.glob("*.key")
    path.chmod(0o644)
    with pytest.raises(BedsideError) as caught:
        opened.load(PLAN, 0)
    assert caught.value.code == "key-mode"


def test_a_key_is_tied_to_one_root(opened):
    opened.create(PLAN, 0, ENTROPY)
    opened.lock(PLAN, 0, b"a" * 32)
    opened.lock(PLAN, 0, b"a" * 32)
    with pytest.raises(RefusedError) as caught:
        opened.lock(PLAN, 0, b"b" * 32)
    assert caught.value.code == "second-set"
    opened.lock(PLAN, 1, b"b" * 32)


def test_a_torn_write_of_a_key_does_not_stay(tmp_path, mounts, opened):
    torn = opened.directory / ".0123.key.new"
    torn.write_bytes(b"half a secret")
    open_round_keys(tmp_path / "run", ENTROPY, mounts=mounts)
    assert not torn.exists()
