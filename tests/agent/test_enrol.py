"""What `bedside agent enrol` tells the person who typed it."""

import json

import pytest

from bedside.service.cli import run
from bedside.service.link import enrolment
from bedside.service.link.enrolment import Enrolment


@pytest.fixture
def enrol(tmp_path, monkeypatch, capsys):
    """`agent enrol` in a new directory, with an enrolment port that has answered already."""
    directory = tmp_path / "device"
    assert run(["agent", "init", str(directory)], {}) == 0

    def enrol(answer, *options):
        async def start(identity, _text, _label, **_clocks):
            monkeypatch.setattr(type(identity), "pins", type("Pins", (), {"site": "alder"}))
            return answer

        monkeypatch.setattr(enrolment, "start_enrolment", start)
        capsys.readouterr()
        status = run(["agent", "enrol", str(directory), "a-token", *options], {})
        return status, *capsys.readouterr()

    return enrol


@pytest.mark.parametrize(
    ("needs_approval", "words"), [(True, "bedside site approve"), (False, "as soon as it is connected")]
)
def test_who_has_to_wait_is_told_for_what_and_what_to_do_then(enrol, needs_approval, words):
    status, out, _ = enrol(Enrolment("pending", needs_approval, "ab-cd", "", "not answered yet"), "--json")
    told = json.loads(out)
    assert (status, told["state"]) == (0, "pending")
    assert words in told["next"]
    assert "enrol again with the same token" in told["next"]


def test_who_is_in_has_nothing_to_do(enrol):
    status, out, _ = enrol(Enrolment("active", False, "ab-cd", "", "enrolled at site alder"), "--json")
    assert (status, "next" in json.loads(out)) == (0, False)


def test_a_revoked_device_is_told_in_one_line(enrol):
    status, out, err = enrol(Enrolment("refused", False, "ab-cd", "revoked", "site alder has revoked this device"))
    assert (status, out) == (77, "")
    assert "site alder has revoked this device [revoked] — " in err
