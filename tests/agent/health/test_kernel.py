"""What the kernel says, read from a tree of files such as its own."""

from pathlib import Path

import pytest

from bedside.agent.health.kernel import KernelFacts, read_kernel


@pytest.fixture
def facts(tmp_path):
    """Read a tree of these files."""

    def read(files: dict[str, str], cores: int = 4) -> KernelFacts:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_kernel(tmp_path / "sys", tmp_path / "proc", cores)

    return read


FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
HWMON = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
ZONE = "sys/class/thermal/thermal_zone0"
SUPPLY = "sys/class/power_supply"


def test_of_a_machine_that_says_nothing_only_its_mains_is_known(facts) -> None:
    assert facts({}) == KernelFacts(None, None, True, None, None)


@pytest.mark.parametrize(
    ("word", "throttled", "undervoltage"),
    [
        ("0", False, False),
        ("1", False, True),
        ("2", True, False),
        ("4", True, False),
        ("8", True, False),
        ("50005", True, True),
        ("f0000", False, False),
    ],
)
def test_the_word_of_a_raspberry_pi_tells_what_is_now(facts, word, throttled, undervoltage) -> None:
    read = facts({FIRMWARE: f"{word}\n"})
    assert (read.throttled, read.undervoltage) == (throttled, undervoltage)


def test_the_undervoltage_alarm_of_a_hardware_monitor_counts(facts) -> None:
    assert facts({HWMON: "0\n"}).undervoltage is False
    assert facts({HWMON: "1\n", FIRMWARE: "0"}).undervoltage is True


def test_a_zone_at_its_passive_trip_point_is_throttled(facts) -> None:
    zone = {
        f"{ZONE}/temp": "79000",
        f"{ZONE}/trip_point_0_type": "active",
        f"{ZONE}/trip_point_0_temp": "50000",
        f"{ZONE}/trip_point_1_type": "passive",
        f"{ZONE}/trip_point_1_temp": "80000",
        f"{ZONE}/trip_point_2_type": "hot",
        f"{ZONE}/trip_point_2_temp": "-274000",
    }
    assert facts(zone).throttled is False
    assert facts({f"{ZONE}/temp": "80000"}).throttled is True


def test_a_battery_that_discharges_is_not_on_mains(facts) -> None:
    battery = {
        f"{SUPPLY}/BAT0/type": "Battery",
        f"{SUPPLY}/BAT0/status": "Discharging",
        f"{SUPPLY}/BAT0/capacity": "41",
        f"{SUPPLY}/AC/type": "Mains",
        f"{SUPPLY}/AC/online": "1",
    }
    read = facts(battery)
    assert (read.on_mains, read.battery_share) == (False, 0.41)
    assert facts({f"{SUPPLY}/BAT0/status": "Charging"}).on_mains is True
    assert facts({f"{SUPPLY}/AC/online": "0"}).on_mains is False


def test_a_battery_alone_tells_by_its_status_and_one_of_a_mouse_tells_nothing(facts) -> None:
    ups = {f"{SUPPLY}/ups/type": "Battery", f"{SUPPLY}/ups/status": "Unknown", f"{SUPPLY}/ups/capacity": "120"}
    read = facts(ups)
    assert (read.on_mains, read.battery_share) == (None, 1.0)
    assert facts({f"{SUPPLY}/ups/status": "Full"}).on_mains is True
    assert facts({f"{SUPPLY}/ups/scope": "Device", f"{SUPPLY}/ups/status": "Discharging"}).on_mains is True


def test_load_is_by_core_and_files_that_say_something_else_say_nothing(facts) -> None:
    assert facts({"proc/loadavg": "3.00 2.10 1.50 1/234 5678\n"}).load_per_core == 0.75
    rubbish = {
        "proc/loadavg": "",
        FIRMWARE: "not a word",
        HWMON: "\xff",
        f"{ZONE}/temp": "",
        f"{SUPPLY}/x/type": "Battery",
    }
    assert facts(rubbish) == KernelFacts(None, None, None, None, None)


def test_this_machine_can_be_read() -> None:
    read = read_kernel()
    assert read.load_per_core is None or read.load_per_core >= 0
    assert Path("/proc/loadavg").exists() == (read.load_per_core is not None)
