"""A mistake of the person who sets a device up: one line, the remedy, an exit that is not zero."""

import os
import subprocess
import sys

import pytest


def refused(device, *words: str) -> None:
    done = device.call("run")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def edit(device, old: str, new: str) -> None:
    path = device.path / "agent.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_unknown_key_names_its_line_and_the_nearest_key(device) -> None:
    edit(device, 'model = "tiny.tar"', 'modle = "tiny.tar"')
    refused(device, "agent.toml:1", "'modle'", "did you mean 'model'")


@pytest.mark.parametrize("name", ["sign.key", "buffer.key"])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(device, name) -> None:
    (device.path / "state" / "identity" / name).chmod(0o644)
    refused(device, name, "chmod 600")


def test_an_identity_directory_that_others_may_enter_is_refused(device) -> None:
    (device.path / "state" / "identity").chmod(0o755)
    refused(device, "0755", "chmod 700")


def test_an_unknown_kind_of_source_names_the_source(device) -> None:
    edit(device, 'kind = "replay"', 'kind = "telepathy"')
    refused(device, "source wrist", "telepathy", "the kinds are ble, csv,", "replay, serial, sql")


def test_an_unknown_option_of_a_source_names_the_source(device) -> None:
    edit(device, "speed = 10.0", "sped = 10.0")
    refused(device, "source wrist", "sped")


def test_a_recording_that_is_not_there_is_named(device) -> None:
    (device.path / "signal.npz").unlink()
    refused(device, "signal.npz", "check the path")


def test_a_text_file_is_no_recording_and_no_word_is_said_of_pickles(device) -> None:
    (device.path / "signal.npz").write_text("hello\n")
    refused(device, "signal.npz is not a recording", "it is not an .npz file")
    assert "pickle" not in device.call("run").stderr


def test_nobody_waits_for_a_recording_that_is_a_fifo(device) -> None:
    (device.path / "signal.npz").unlink()
    os.mkfifo(device.path / "signal.npz")
    refused(device, "signal.npz is not a recording", "it is not a regular file")


def test_a_wrong_value_names_its_line(device) -> None:
    edit(device, 'model = "tiny.tar"', "model = 3")
    refused(device, "agent.toml:1", "'model'")


@pytest.mark.parametrize("command", [("predictions",), ("session", "list")])
def test_what_is_stored_before_the_first_run_is_nothing_and_the_agent_is_to_be_run(device, command) -> None:
    done = device.call(*command)
    assert done.returncode == 69
    assert "[nothing-stored] — bedside agent run" in done.stderr


def test_a_directory_without_an_agent_names_the_file_that_is_missing(device) -> None:
    (device.path / "agent.toml").unlink()
    refused(device, "agent.toml")


def test_a_token_is_read_from_standard_input_where_no_other_user_sees_it(device) -> None:
    command = [sys.executable, "-m", "bedside.service", "agent", "enrol", str(device.path), "-"]
    done = subprocess.run(command, input="bedside1.!damaged\n", capture_output=True, text=True, timeout=30)
    direct = subprocess.run([*command[:-1], "bedside1.!damaged"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (direct.returncode, direct.stderr)
    assert "bad-token" in done.stderr
