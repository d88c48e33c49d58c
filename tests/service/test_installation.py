"""What a remedy says of installing is true where the program runs."""

import pytest

from bedside.service.installation import how_to_install, how_to_repair


@pytest.mark.parametrize("prefix", ["/usr", "/srv/bedside/.venv", "/opt/bedside", "/opt/bedsides/agent"])
def test_an_environment_of_pip_s_has_a_pip(prefix):
    assert how_to_install("bedside[sql]", prefix) == "pip install 'bedside[sql]'"
    assert how_to_repair(prefix) == "pip install --force-reinstall bedside"


def test_a_package_s_environment_has_none_and_is_named():
    told = how_to_install("bedside[sql]", "/opt/bedside/agent")
    command = "python3 -m pip --python /opt/bedside/agent/bin/python3 install 'bedside[sql]'"
    assert told == f"apt install python3-pip, then {command}"
    assert how_to_repair("/opt/bedside/trustee") == "apt install --reinstall ./bedside-trustee_*.deb"
