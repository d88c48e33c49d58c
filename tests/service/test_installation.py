"""What a remedy says of installing is true where the program runs."""

import pytest

from bedside.service import installation
from bedside.service.installation import how_to_install, how_to_repair, missing_package


@pytest.mark.parametrize("prefix", ["/usr", "/srv/bedside/.venv", "/opt/bedside", "/opt/bedsides/agent"])
def test_an_environment_of_pip_s_has_a_pip(prefix):
    assert how_to_install("bedside[sql]", prefix) == "pip install 'bedside[sql]'"
    assert how_to_repair(prefix) == "pip install --force-reinstall bedside"


def test_a_package_s_environment_has_none_and_is_named():
    told = how_to_install("bedside[sql]", "/opt/bedside/agent")
    command = "python3 -m pip --python /opt/bedside/agent/bin/python3 install 'bedside[sql]'"
    assert told == f"apt install python3-pip, then {command}"
    assert how_to_repair("/opt/bedside/trustee") == "apt install --reinstall ./bedside-trustee_*.deb"


def test_of_the_parts_of_a_machine_with_packages_those_are_named_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "PACKAGED", tmp_path)
    for part in ("agent", "trustee"):
        (tmp_path / part).mkdir()
    here = str(tmp_path / "agent")
    assert [missing_package(part, here) for part in ("agent", "trustee", "service")] == ["", "", ""]
    assert missing_package("coordinator", here) == "in the package bedside-coordinator"
    assert missing_package("demo", here) == "in no package"
    assert missing_package("coordinator", "/srv/.venv") == ""
