"""Each check of a trustee's machine: how it is well, and how it fails."""

import pytest

from bedside.service.doctor.check import Place, examine
from bedside.service.health import Health, Level
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.trustee.doctor import PART
from bedside.trustee.paths import SitePaths
from bedside.trustee.site.founding import found_site
from bedside.trustee.status import write_status
from bedside.trustee.store import TrusteeStore

OK, WARN, FAIL = Level.OK, Level.DEGRADED, Level.FAILED


@pytest.fixture
def place(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text("/dev/root / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n")
    found_site(SitePaths(tmp_path / "site"), "alder", SystemEntropy())
    return Place(tmp_path / "site", SystemClock(), {}, root=tmp_path)


def look(place, name):
    return examine([one for one in (*PART.early, *PART.checks) if one.name == name], place)


def test_swap_is_doubtful_because_round_keys_may_reach_it(place):
    swaps = place.root / "proc/swaps"
    swaps.write_text("Filename Type Size Used Priority\n")
    assert [one.level for one in look(place, "swap")] == [OK]
    swaps.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    (found,) = look(place, "swap")
    assert (found.level, "swapoff" in found.remedy) == (WARN, True)


def test_round_keys_must_lie_in_memory_and_be_nobody_elses(place):
    (found,) = look(place, "round-keys")
    assert (found.level, "/dev/shm" in found.found) == (OK, True)
    packaged = place.root / "run/bedside-trustee"
    packaged.mkdir(parents=True, mode=0o700)
    (found,) = look(place, "round-keys")
    assert (found.level, "ext4" in found.found) == (FAIL, True)
    with (place.root / "proc/self/mounts").open("a") as mounts:
        mounts.write(f"tmpfs {place.root}/run tmpfs rw 0 0\n")
    assert [one.level for one in look(place, "round-keys")] == [OK]
    packaged.chmod(0o755)
    assert [one.level for one in look(place, "round-keys")] == [FAIL]


def test_a_policy_must_be_readable_and_name_signers(place):
    policy = SitePaths(place.directory).policy
    policy.write_text("")
    assert [one.level for one in look(place, "policy")] == [WARN]
    policy.write_text(f'[bundle_signers]\nauthor = "{"ab" * 32}"\n')
    assert [one.level for one in look(place, "policy")] == [OK]
    policy.write_text("min_trusted = [")
    assert [one.level for one in look(place, "policy")] == [FAIL]


def test_a_site_without_a_trustee_is_told_how_to_get_one(place):
    (found,) = look(place, "keys")
    assert (found.level, found.remedy) == (FAIL, "bedside site join")
    assert look(place, "trustee") == []


def test_a_trustee_that_does_not_run_fails(place, monkeypatch):
    paths = SitePaths(place.directory)
    paths.identity.mkdir(mode=0o700)
    TrusteeStore.open(paths.database).close()
    told = type("Identity", (), {"pins": type("Pins", (), {"site": "alder"}), "subject": "t-1"})
    monkeypatch.setattr("bedside.service.identity.open_identity", lambda *_: told)
    (found,) = look(place, "trustee")
    assert (found.level, "no trustee runs" in found.found) == (FAIL, True)
    with paths.hold():
        assert [one.level for one in look(place, "trustee")] == [WARN]  # it has not said yet how it is
        health = Health(place.clock, ("link",))
        health.set("link", Level.DEGRADED, "the coordinator is away")
        write_status(paths.status, 1, health)
        (found,) = look(place, "trustee")
        assert (found.level, found.found) == (WARN, "link: the coordinator is away")
        health.set("link", Level.OK, "connected")
        write_status(paths.status, 1, health)
        assert [one.level for one in look(place, "trustee")] == [OK]
