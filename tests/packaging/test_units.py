"""packaging/systemd and packaging/udev: systemd takes them, calls them safe, and they are as docs/units.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from confined import allowed_calls, why_not
from unit_files import SYSTEMD, UNITS, drop_ins, settings

from bedside.service.cli import cli
from bedside.service.systemd import START_S

ROOT = SYSTEMD.parents[1]
PARTS = {unit: unit.removeprefix("bedside-").removesuffix(".service") for unit in UNITS}
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not there to read the units")
DRAWN_IN = [(unit, optional) for unit in UNITS for optional in (False, True)]


def analysed(unit: str, tmp_path: Path, verb: str, *options: str, optional: bool) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says of a unit and its drop-ins, whose programs need not be installed."""
    assert ANALYZE is not None
    text = re.sub(r"/opt/bedside/\w+/bin/bedside", "/bin/true", (SYSTEMD / unit).read_text())
    (tmp_path / unit).write_text(text)
    (tmp_path / f"{unit}.d").mkdir()
    for path in drop_ins(unit, optional=optional):
        shutil.copy(path, tmp_path / f"{unit}.d")
    command = [ANALYZE, verb, *options, f"./{unit}"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


@needs_analyze
@pytest.mark.parametrize(("unit", "optional"), DRAWN_IN)
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, unit: str, optional: bool) -> None:
    verified = analysed(unit, tmp_path, "verify", "--man=no", optional=optional)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_set_up_waits_for_a_start_until_the_unit_itself_gives_up(unit: str) -> None:
    (start,), (stop,) = settings(unit)["TimeoutStartSec"], settings(unit)["TimeoutStopSec"]
    assert int(start.removesuffix("min")) * 60 + int(stop.removesuffix("s")) <= START_S


@needs_analyze
@pytest.mark.parametrize(("unit", "optional"), DRAWN_IN)
def test_systemd_calls_a_unit_safe(tmp_path: Path, unit: str, optional: bool) -> None:
    judged = analysed(unit, tmp_path, "security", "--offline=true", "--threshold=15", "--no-pager", optional=optional)
    assert judged.returncode == 0, judged.stdout


@needs_analyze
def test_the_back_off_is_one_that_a_newer_systemd_takes(tmp_path: Path) -> None:
    told = subprocess.run([str(ANALYZE), "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.split()[1]) < 254:
        pytest.skip(f"systemd {told.split()[1]} knows no RestartSteps=")
    unit = UNITS[0]
    (tmp_path / f"{unit}.d").mkdir()
    shutil.copy(SYSTEMD / "back-off" / "restart.conf", tmp_path / f"{unit}.d")
    (tmp_path / unit).write_text("[Service]\nExecStart=/bin/true\nRestart=on-failure\nRestartSec=1s\n")
    command = [str(ANALYZE), "verify", "--man=no", f"./{unit}"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_has_no_right_that_it_does_not_need(unit: str) -> None:
    its = settings(unit, optional=True)
    assert its["CapabilityBoundingSet"] == its["AmbientCapabilities"] == []
    for key in ("NoNewPrivileges", "PrivateTmp", "PrivateUsers", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert its[key] == ["yes"], key
    assert its["ProtectSystem"] == ["strict"]
    assert its["User"] == its["Group"] == [f"bedside-{PARTS[unit]}"]
    assert its["UMask"] == ["0077"]
    assert its["LimitCORE"] == ["0"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_is_ready_watched_and_restarted_for_ever(unit: str) -> None:
    its = settings(unit)
    assert its["Type"] == ["notify"]
    assert its["WatchdogSec"]
    assert (its["Restart"], its["RestartSec"], its["StartLimitIntervalSec"]) == (["always"], ["1s"], ["0"])
    assert its["RestartPreventExitStatus"] == ["78"]
    assert "HUP" in its["ExecReload"][0]


@pytest.mark.parametrize("unit", UNITS)
def test_state_is_its_users_alone_and_only_there_a_service_writes(unit: str) -> None:
    its = settings(unit)
    part = PARTS[unit]
    assert its["StateDirectory"] == [f"bedside/{part}"]
    assert its["StateDirectoryMode"] == ["0700"]
    directory = f"/var/lib/bedside/{part}"
    assert re.match(rf"/opt/bedside/{part}/bin/bedside {part} \w+ {directory}( |$)", its["ExecStart"][0])
    assert its["ConditionPathExists"][0].startswith(f"{directory}/")
    assert "ReadWritePaths" not in its


@pytest.mark.parametrize("unit", UNITS)
def test_every_program_of_a_unit_is_a_command_of_ours_or_the_shell(unit: str) -> None:
    its = settings(unit)
    for line in (*its["ExecStart"], *its["ExecReload"]):
        program, *words = line.removeprefix("/usr/bin/env -u CREDENTIALS_DIRECTORY ").split()
        if program == "/bin/sh":
            assert words[0] == "-c"
            continue
        assert program == f"/opt/bedside/{PARTS[unit]}/bin/bedside"
        command: click.Command | None = cli
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, line


def test_round_keys_stay_in_ram_over_a_restart_and_reach_no_swap() -> None:
    its = settings("bedside-trustee.service")
    assert its["RuntimeDirectory"] == ["bedside-trustee"]
    assert its["ExecStart"][0].endswith(" --runtime-dir /run/bedside-trustee")
    assert its["RuntimeDirectoryMode"] == ["0700"]
    assert its["RuntimeDirectoryPreserve"] == ["restart"]
    assert its["MemorySwapMax"] == ["0"]
    assert its["LimitMEMLOCK"] == ["infinity"]


def test_credentials_that_a_machine_does_not_have_stop_no_start() -> None:
    """Only one without a path may be absent (systemd.exec(5)): it is looked for in the credential stores."""
    its = settings("bedside-agent.service")
    assert its["LoadCredentialEncrypted"] == ["bedside-buffer-key", "bedside-buffer-key-old"]
    assert not any(":" in name for unit in UNITS for name in settings(unit).get("LoadCredential", []))


def test_without_its_drop_ins_an_agent_reaches_neither_a_device_nor_the_system_bus() -> None:
    alone = (SYSTEMD / "bedside-agent.service").read_text()
    assert "PrivateDevices=yes" in alone
    assert "DeviceAllow" not in alone
    assert "\nInaccessiblePaths=-/run/dbus\n" in alone
    assert settings("bedside-agent.service")["SupplementaryGroups"] == ["dialout"]
    assert settings("bedside-agent.service", optional=True)["InaccessiblePaths"] == []


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("unit", UNITS)
def test_the_system_calls_that_a_service_makes_are_let_through(unit: str) -> None:
    calls = allowed_calls(settings(unit))
    needed = {"prlimit64", "prctl", "mlockall", "flock", "fsync", "rename", "execve", "clone3", "memfd_create"}
    if unit == "bedside-agent.service":  # what a training child does to itself
        needed |= {"setpriority", "sched_setscheduler"}
    assert needed <= calls
    assert calls.isdisjoint({"chown", "mount", "ptrace", "bpf", "reboot", "init_module", "settimeofday", "setuid"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make users and files of theirs")
@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles is not there")
@pytest.mark.parametrize(("unit", "names"), [(UNITS[0], ["agent.toml", "policy.toml"]), (UNITS[1], ["policy.toml"]),
                                             (UNITS[2], ["coordinator.toml"])])  # fmt: skip
def test_user_and_directory_are_made_and_what_an_administrator_put_there_stays(
    tmp_path: Path, unit: str, names: list[str]
) -> None:
    part = PARTS[unit]
    (tmp_path / "etc").mkdir()
    directory = tmp_path / "var/lib/bedside" / part
    for program, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        file = SYSTEMD / folder / f"bedside-{part}.conf"
        create = ["--create"] if program == "systemd-tmpfiles" else []
        for _twice in range(2):
            made = subprocess.run(
                [program, *create, f"--root={tmp_path}", file], capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr
    assert re.search(
        f"^bedside-{part}:.*:/var/lib/bedside/{part}:.*nologin$", (tmp_path / "etc/passwd").read_text(), re.M
    )
    assert directory.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_uid != 0
    for name in names:
        assert os.readlink(directory / name) == f"/etc/bedside/{name}"
        (directory / name).unlink()
        (directory / name).write_text("own")
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}", file], check=True)
    assert [(directory / name).read_text() for name in names] == ["own"] * len(names)


def test_udev_rules_are_lines_of_known_keys_and_leave_modems_alone() -> None:
    keys = {"ACTION", "SUBSYSTEM", "KERNEL", "GROUP", "MODE", "GOTO", "LABEL", "RUN", "ENV", "ATTR"}
    for path in (ROOT / "packaging" / "udev").glob("*.rules"):
        text = path.read_text().replace("\\\n", "")
        rules = [line for line in text.splitlines() if line and not line.startswith("#")]
        for rule in rules:
            terms = re.findall(r'(\w+)(?:\{\w+\})?(==|!=|\+=|=)"([^"]*)"(?:, *|$)', rule)
            assert {term[0] for term in terms} <= keys, rule
            assert re.sub(r'\w+(?:\{\w+\})?(?:==|!=|\+=|=)"[^"]*"(?:, *|$)', "", rule).strip() == "", rule
            ignoring = "ID_MM_DEVICE_IGNORE" in rule
            assert not ignoring or "ATTR{idVendor}==" in rule, "every modem would be lost"
    if (udevadm := shutil.which("udevadm")) is not None:
        verified = subprocess.run([udevadm, "verify", "--help"], capture_output=True, check=False)
        if verified.returncode == 0:
            files = sorted((ROOT / "packaging" / "udev").glob("*.rules"))
            subprocess.run([udevadm, "verify", *files], check=True)
