"""A mistake of the coordinator's operator or of the root holder: one line, its code, a remedy, a status from 64."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from bedside.coordinator.home import Home
from bedside.service.cli import run

LINE = re.compile(r"error: (?P<sentence>.+) \[(?P<code>[a-z-]+)\] — (?P<remedy>.+)\n")
KEY = "ab" * 32


@pytest.fixture
def refused(capsys):
    def refused(*arguments, code):
        """The one line that came of it."""
        status = run([str(argument) for argument in arguments], {})
        told = capsys.readouterr()
        assert status >= 64, told
        line = LINE.fullmatch(told.err)
        assert line is not None, f"not one line with a remedy:\n{told.err}"
        assert (line["code"], told.out) == (code, "")
        return told.err

    return refused


@pytest.fixture
def works(capsys):
    def works(*arguments):
        assert run([str(argument) for argument in arguments], {}) == 0, capsys.readouterr()
        return capsys.readouterr().out

    return works


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("hello\n")
    return path


INITS = [("agent",), ("coordinator",), ("site", "--site", "alder"), ("federation", "--name", "fed")]


@pytest.mark.parametrize("command", INITS, ids=lambda command: command[0])
@pytest.mark.parametrize("parent", ["plain.txt", "/proc"])
def test_init_below_a_file_or_where_no_directory_can_be(refused, tmp_path, text_file, command, parent):
    where = tmp_path / parent / "x"
    assert str(where) in refused(command[0], "init", where, *command[1:], code="path-unusable")


@pytest.mark.parametrize("content", [b"hello\n", b"", b"\x0a\x02hi"])
def test_a_file_that_is_no_federation_document(refused, works, tmp_path, text_file, content):
    text_file.write_bytes(content)
    assert "plain.txt is not a federation document" in refused("federation", "show", text_file, code="bad-public-file")
    if content == b"hello\n":
        works("coordinator", "init", tmp_path / "hub")
        refused("coordinator", "install", tmp_path / "hub", text_file, "--root-pk", KEY, code="bad-public-file")
        works("site", "init", tmp_path / "alder", "--site", "alder")
        where = ("--root-pk", KEY, "--enrolment-address", "gw:1")
        refused("site", "join", tmp_path / "alder", text_file, *where, code="bad-federation")


@pytest.mark.parametrize("key", ["abcd", "xyz"])
def test_a_root_key_that_is_no_key(refused, works, tmp_path, text_file, key):
    works("coordinator", "init", tmp_path / "hub")
    refused("coordinator", "install", tmp_path / "hub", text_file, "--root-pk", key, code="root-unknown")


def test_a_sites_directory_is_no_coordinators(refused, works, tmp_path):
    hub, site, root, document = (tmp_path / name for name in ("hub", "alder", "root", "federation.bin"))
    works("coordinator", "init", hub)
    works("site", "init", site, "--site", "alder")
    root_pk = json.loads(works("federation", "init", root, "--name", "fed", "--json"))["root_pk"]
    named = ("--coordinator", hub / "coordinator.public.json", "--site", site / "site.public.json")
    works("federation", "sign", "--root", root, *named, "--out", document)
    for directory in (site, tmp_path / "nowhere"):
        refused("coordinator", "install", directory, document, code="not-a-coordinator")
    works("site", "join", site, document, "--root-pk", root_pk, "--enrolment-address", "gw.example:7444")
    line = refused("coordinator", "install", site, document, code="not-a-coordinator")
    assert "bedside coordinator init" in line


@pytest.fixture
def founded(works, tmp_path):
    """A root directory, a coordinator's, and `sign` with the files of the sites that are named."""

    class Founded:
        root, hub = tmp_path / "root", tmp_path / "hub"

        def words(self, *sites, drop=()):
            for site in sites:
                if not (tmp_path / site).exists():
                    works("site", "init", tmp_path / site, "--site", site)
            files = [word for site in sites for word in ("--site", tmp_path / site / "site.public.json")]
            dropped = [word for site in drop for word in ("--drop", site)]
            named = ("--coordinator", self.hub / "coordinator.public.json", *files, *dropped)
            return ("federation", "sign", "--root", self.root, *named, "--out", tmp_path / "federation.bin", "--json")

        def sign(self, *sites, drop=()):
            return json.loads(works(*self.words(*sites, drop=drop)))["sites"]

    works("federation", "init", Founded.root, "--name", "fed")
    works("coordinator", "init", Founded.hub)
    return Founded()


def test_signing_again_with_a_new_site_alone_drops_nobody(founded):
    assert founded.sign("alder", "birch") == ["alder", "birch"]
    assert founded.sign("cedar") == ["alder", "birch", "cedar"]
    assert founded.sign(drop=["birch"]) == ["alder", "cedar"]
    assert founded.sign("alder") == ["cedar", "alder"]


def test_a_site_that_cannot_be_dropped_is_named_with_those_that_can(founded, refused):
    founded.sign("alder", "birch")
    line = refused(*founded.words(drop=["brich"]), code="unknown-site")
    assert "--drop brich" in line
    assert "alder, birch" in line
    refused(*founded.words("alder", drop=["alder"]), code="site-named-twice")
    refused(*founded.words(drop=["alder", "birch"]), code="no-sites")


def test_a_site_that_is_named_twice_is_refused_with_a_remedy(founded, refused):
    refused(*founded.words("alder", "alder"), code="bad-federation")


def test_a_coordinators_directory_is_no_root(founded, refused):
    founded.root = founded.hub
    assert "bedside federation init" in refused(*founded.words("alder"), code="not-a-root")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *[(("--host", host), "bad-host") for host in ("http://gw", "gw:7443", "a b", "-gw", "[::1]", "")],
        *[(("--service-address", text), "bad-address") for text in ("gw", "gw:99999", "unix:/run/x", "")],
        (("--enrolment-address", "gw"), "bad-address"),
    ],
)
def test_an_address_that_nobody_could_call_makes_no_coordinator(refused, tmp_path, words, code):
    refused("coordinator", "init", tmp_path / "hub", *words, code=code)
    assert not (tmp_path / "hub").exists()


def test_a_host_of_ipv6_is_told_in_brackets(works, tmp_path):
    works("coordinator", "init", tmp_path / "hub", "--host", "2001:db8::1", "--host", "gw.example.org")
    assert 'public_service_address = "[2001:db8::1]:7443"' in (tmp_path / "hub" / "coordinator.toml").read_text()


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_text_file_is_no_bundle(refused, text_file, command):
    assert "this is no model bundle" in refused("model", command, text_file, code="bad-archive")


@pytest.mark.parametrize("runs", [True, False])
def test_an_installation_under_a_running_coordinator_says_that_it_waits_for_a_restart(founded, works, tmp_path, runs):
    founded.sign("alder")
    with Home(founded.hub).claimed() if runs else contextlib.nullcontext():
        shown = works("coordinator", "install", founded.hub, tmp_path / "federation.bin")
    assert ("restart the coordinator" in shown) is runs
    assert "[" not in shown, "lists are for programs"


@pytest.mark.parametrize(
    "words",
    [
        *[("coordinator", "token", "--site", "alder", *more) for more in (("--uses", "-1"), ("--hours", "-5"))],
        *[
            ("round", "start", "--task", "t", "--bundle", "b", option, value)
            for option, value in (
                ("--rounds", "-1"),
                ("--rounds", "99999999999"),
                ("--epochs", "-1"),
                ("--clip", "-1"),
                ("--clip", "inf"),
                ("--collect-seconds", "-3"),
                ("--learning-rate", "nan"),
                ("--noise-multiplier", "nan"),
                ("--subsample", "nan"),
                ("--trim-cohorts", "-1"),
            )
        ],
        ("round", "show", "--round", "-1"),
        ("round", "watch", "--round", "-1"),
        ("round", "list", "--limit", "-1"),
    ],
    ids=lambda words: "".join(words[-2:]),
)
def test_a_number_out_of_range_is_refused_before_anybody_is_asked(refused, words):
    line = refused(*words, code="usage")
    assert words[-2] in line
    assert f"bedside {words[0]} {words[1]} --help" in line
