import io
import json
import logging
import os

import pytest

from bedside.core.errors import RefusedError
from bedside.service.logs import event, setup_logging, show

LOGGER = logging.getLogger("bedside.test")


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(environ=None, **fields):
    out = io.StringIO()
    setup_logging(stream=out, environ=environ or {})
    event(LOGGER, "round-opened", **fields)
    return out.getvalue()


def test_an_event_is_one_line_with_its_fields():
    line = logged(round=3, site="north", reason="too few devices")
    assert line.endswith('round-opened round=3 site=north reason="too few devices"\n')


def test_a_library_is_heard_from_warnings_on():
    out = io.StringIO()
    setup_logging(stream=out, environ={})
    library = logging.getLogger("alembic.runtime")
    library.info("context impl")
    library.warning("disk is full")
    assert [line.split(maxsplit=2)[2] for line in out.getvalue().splitlines()] == ["disk is full"]


def test_json_lines_carry_the_same_fields():
    line = json.loads(logged({"BEDSIDE_LOG": "json"}, round=3, ok=True, level=logging.WARNING))
    assert (line["event"], line["round"], line["ok"], line["level"]) == ("round-opened", 3, True, "warning")


def test_a_string_from_elsewhere_cannot_forge_a_second_event():
    assert logged(name="x\nround-closed round=4").count("\n") == 1


def test_long_bytes_show_a_digest_and_never_their_value():
    secret = bytes(range(32))
    line = logged(plan=secret, boot=b"\x01\x02")
    assert secret.hex()[:16] not in line
    assert "plan=32B:" in line
    assert "boot=0102" in line


@pytest.mark.parametrize("key", ["token", "api_token", "round_sk", "client_secret", "tls_key_pem", "sign_seed"])
def test_fields_named_like_secrets_are_withheld(key):
    assert show(key, "abc") == "[withheld]"


def test_values_of_unknown_types_show_their_type_only():
    assert show("window", [1.0, 2.0]) == "<list>"
    assert show("window", {"name": "Jane"}) == "<dict>"


def test_errors_show_sentence_and_code():
    assert show("error", RefusedError("cohort-small", "too few")) == "too few [cohort-small]"
    assert show("error", ValueError("x")) == "ValueError: x"


def test_journald_gets_a_priority_on_every_line(tmp_path):
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        setup_logging(stream=stream, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        event(LOGGER, "a")
        try:
            raise ValueError("x")
        except ValueError:
            LOGGER.exception("b")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<6>a"
    assert lines[1] == "<3>b"
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[1:])


def test_another_streams_journal_is_not_ours():
    assert "<6>" not in logged({"JOURNAL_STREAM": "8:1234"})
