"""Units, users, folders and rules go to the package and the place that packaging/README.md names."""

import tomllib

import pytest
from commands import load
from parts import PARTS
from service_files import lay_service_files
from targets import TARGETS, chosen_targets

PART = {part.name: part for part in PARTS}


def laid(part, target_name, root):
    (target,) = chosen_targets(target_name)
    lay_service_files(PART[part], target, root)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_an_agent_has_its_unit_boards_drop_ins_and_rules(tmp_path):
    files = laid("agent", "bookworm-arm64", tmp_path)
    assert {
        "etc/default/bedside-agent",
        "usr/lib/systemd/system/bedside-agent.service",
        "usr/lib/systemd/system/bedside-agent.service.d/serial.conf",
        "usr/lib/sysusers.d/bedside-agent.conf",
        "usr/lib/tmpfiles.d/bedside-agent.conf",
        "usr/lib/udev/rules.d/60-bedside-serial.rules",
        "usr/share/bedside-agent/drop-ins/ble.conf",
    } <= files
    assert not any("trustee" in name or "coordinator" in name or "back-off" in name for name in files)


@pytest.mark.parametrize("part", ["trustee", "coordinator"])
def test_the_others_have_no_rules_for_devices(part, tmp_path):
    files = laid(part, "bookworm-amd64", tmp_path)
    assert f"usr/lib/systemd/system/bedside-{part}.service" in files
    assert not any("udev" in name or "agent" in name for name in files)


@pytest.mark.parametrize("part", list(PART))
def test_back_off_is_for_releases_whose_systemd_knows_it(part, tmp_path):
    name = f"usr/lib/systemd/system/bedside-{part}.service.d/back-off.conf"
    assert {target.name for target in TARGETS if name in laid(part, target.name, tmp_path / target.name)} == {
        "trixie-amd64",
        "trixie-arm64",
    }


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_configuration_that_is_shipped_is_the_parts_own_template(part):
    template = load(part.template)
    text = str(template() if callable(template) else template)
    assert tomllib.loads(text)
    assert text.count("#") > 5


def test_the_environment_file_sets_nothing_by_itself(tmp_path):
    laid("trustee", "bookworm-amd64", tmp_path)
    lines = (tmp_path / "etc/default/bedside-trustee").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)
    assert any(line.startswith("#https_proxy=") for line in lines)
