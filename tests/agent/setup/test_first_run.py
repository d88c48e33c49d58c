"""`bedside agent setup`, step by step, against an enrolment port that is scripted."""

import asyncio
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bedside.agent.cli import first_run
from bedside.agent.config import load_agent_config
from bedside.agent.setup import preparing
from bedside.agent.setup.preparing import Standing, identity_in
from bedside.core.errors import ConfigError, MalformedError, RefusedError, TrustError, UnavailableError
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.service import systemd
from bedside.service.account import account_of
from bedside.service.cli import run
from bedside.service.doctor.check import Check, bad
from bedside.service.tls import create_ca
from ports import free_port
from scripted_enrolment import CLOCK, ScriptedCoordinator, serving, token

UNCHECKED = (
    "import sys; from dataclasses import replace; from bedside.agent.cli import first_run as f; "
    "f.PART = replace(f.PART, early=()); f.MACHINE = (); from bedside.service.cli import run; sys.exit(run())"
)
"""`bedside` whose set-up does not look at the machine, for which there are tests of its own."""
POLICY = f'[bundle_signers]\nauthor = "{"ab" * 32}"\n'


@pytest.fixture(scope="module")
def authority():
    return create_ca("demo", CLOCK.now_ns())


@pytest.fixture
def coordinator(authority, tmp_path):
    return ScriptedCoordinator(authority, tmp_path / "hub")


@pytest.fixture
def fit(monkeypatch):
    """A machine about which nothing is asked; what is asked of a real one has tests of its own."""

    def set_up(*checks):
        monkeypatch.setattr(first_run, "MACHINE", checks)
        monkeypatch.setattr(first_run, "PART", replace(first_run.PART, early=()))

    set_up()
    return set_up


@pytest.fixture
def setup(tmp_path, fit, capsys, monkeypatch):
    """Run `agent setup`, in a thread, as it runs loops of its own; returns its status and what it printed."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    async def set_up(*options, directory=tmp_path / "device"):
        capsys.readouterr()
        status = await asyncio.to_thread(run, ["agent", "setup", str(directory), *options], {})
        return status, *capsys.readouterr()

    set_up.directory = tmp_path / "device"
    return set_up


@pytest.fixture
def token_file(tmp_path):
    def write(text):
        path = tmp_path / "token"
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    return write


async def test_an_empty_folder_becomes_a_member_and_a_second_call_goes_on(setup, coordinator, token_file, tmp_path):
    (tmp_path / "site.toml").write_text(POLICY)
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        text = token(address, coordinator.authority)
        status, out, _ = await setup("--token", token_file(text), "--policy", str(tmp_path / "site.toml"), "--json")
        told = json.loads(out)
        assert (status, told["state"], told["site"]) == (0, "enrolled", "north")
        assert told["ports"] == [address, other]
        assert told["next"] == f"bedside agent run {setup.directory}"
        assert "missing" not in told
        assert text not in out
        identity = identity_in(setup.directory)
        assert (told["device"], told["fingerprint"]) == (identity.subject, identity.fingerprint)
        kept = {path: path.read_bytes() for path in setup.directory.rglob("*") if path.is_file()}
        assert oct(setup.directory.stat().st_mode)[-3:] == "700"
        status, out, _ = await setup("--json")
        assert (status, json.loads(out)["state"]) == (0, "enrolled")
    assert len(coordinator.requests) == 1
    assert {path: path.read_bytes() for path in setup.directory.rglob("*") if path.is_file()} == kept


async def test_a_person_reads_what_to_compare_and_what_to_do_next(setup, coordinator, token_file):
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        status, out, _ = await setup("--token", token_file(token(address, coordinator.authority)))
    identity = identity_in(setup.directory)
    assert status == 0
    for words in (identity.fingerprint, address, other, "north of federation demo", identity.pins.ca_digest):
        assert words in out
    assert "policy       there is none" in out
    assert out.splitlines()[-1] == f"next         bedside agent run {setup.directory}"


async def test_a_request_that_waits_ends_with_words_and_the_next_call_takes_the_answer(setup, coordinator, token_file):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        status, out, _ = await setup("--token", token_file(token(address, coordinator.authority)), "--json")
        told = json.loads(out)
        assert (status, told["state"]) == (75, "pending")
        assert told["next"] == f"bedside agent setup {setup.directory}"
        status, out, _ = await setup()  # nobody has approved it yet, and no token is needed to ask
        assert status == 75
        assert f"bedside site approve DIRECTORY {told['fingerprint']}" in out
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        status, out, _ = await setup("--json")
        assert (status, json.loads(out)["state"]) == (0, "enrolled")
    assert len(coordinator.requests) == 1


async def test_who_waits_sees_the_approval_come(setup, coordinator, token_file):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        waits = asyncio.create_task(
            setup("--token", token_file(token(address, coordinator.authority)), "--wait", "60", "--json")
        )
        while not coordinator.requests:
            await asyncio.sleep(0.02)
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        status, out, _ = await waits
    assert (status, json.loads(out)["state"]) == (0, "enrolled")


async def test_a_refusal_is_an_error_and_another_token_may_be_tried(setup, coordinator, token_file):
    coordinator.phase = wire.REQUEST_PHASE_REFUSED
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        status, _, err = await setup("--token", token_file(token(address, coordinator.authority)))
        assert (status, "[token-used]" in err) == (RefusedError.exit_status, True)
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        status, _, _ = await setup("--token", token_file(token(address, coordinator.authority, site="north")))
    assert status == 0


async def test_who_inspects_tls_is_named_before_the_token_is_shown(setup, coordinator, token_file, tmp_path):
    inspecting = ScriptedCoordinator(create_ca("Hospital Web Gateway", CLOCK.now_ns()), tmp_path / "x")
    async with serving(inspecting) as address:
        status, _, err = await setup("--token", token_file(token(address, coordinator.authority)))
    assert status == TrustError.exit_status
    assert "Hospital Web Gateway" in err
    assert "TLS-inspecting proxy" in err
    assert inspecting.requests == []


async def test_a_closed_second_port_is_named_and_uses_no_token_up(setup, coordinator, token_file):
    coordinator.service_address = f"127.0.0.1:{free_port()}"
    async with serving(coordinator) as address:
        text = token_file(token(address, coordinator.authority))
        status, out, err = await setup("--token", text)
        assert status == UnavailableError.exit_status
        assert coordinator.service_address in err
        assert "firewall" in err
        assert address in out
        assert coordinator.requests == []
        async with serving(coordinator) as other:
            coordinator.service_address = other
            status, _, _ = await setup("--token", text)  # it goes on where it stopped
    assert status == 0


async def test_a_machine_that_is_unfit_stops_with_the_remedy_unless_it_is_forced(setup, fit, coordinator, token_file):
    fit(Check("disk", "", "make room", lambda _place: [bad("no room")]))
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        text = token_file(token(address, coordinator.authority))
        status, out, err = await setup("--token", text)
        assert status == ConfigError.exit_status
        assert "disk: no room [machine-unfit] — make room; or say --force" in err
        assert "→ make room" in out
        assert not setup.directory.exists()
        status, out, _ = await setup("--token", text, "--force", "--json")
    assert status == 0
    assert json.loads(out)["checks"] == [
        {"check": "disk", "level": "fail", "found": "no room", "remedy": "make room"},
    ]


async def test_a_configuration_that_lies_elsewhere_is_left_alone(setup, coordinator, token_file, tmp_path):
    """As packages have it: a link to a file in /etc that is root's."""
    conffile = tmp_path / "agent.toml"
    conffile.write_text('heartbeat = "minimal"\n')
    setup.directory.mkdir()
    (setup.directory / "agent.toml").symlink_to(conffile)
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        status, _, _ = await setup("--token", token_file(token(address, coordinator.authority)))
    assert status == 0
    assert (setup.directory / "agent.toml").is_symlink()
    assert load_agent_config(setup.directory).heartbeat == "minimal"


async def test_a_device_that_never_dials_out_needs_no_token(setup):
    setup.directory.mkdir()
    (setup.directory / "agent.toml").write_text("[link]\nenabled = false\n")
    status, out, _ = await setup("--json")
    assert (status, json.loads(out)["state"]) == (0, "alone")


@pytest.mark.parametrize("place", ["credential:token", ""])
async def test_a_token_may_be_a_credential_of_systemd(setup, coordinator, tmp_path, monkeypatch, place):
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        name = place.removeprefix("credential:") or "bedside-token"
        (folder / name).write_text(token(address, coordinator.authority))
        status, _, _ = await setup(*(("--token", place) if place else ()))
    assert status == 0


async def test_no_token_a_bad_one_and_one_that_others_may_read_are_refused(setup, token_file, tmp_path):
    status, _, err = await setup()
    assert (status, "[token-needed]" in err) == (ConfigError.exit_status, True)
    status, _, err = await setup("--token", token_file("bedside1.abcdef"))
    assert (status, "bedside1.abcdef" in err) == (MalformedError.exit_status, False)
    (tmp_path / "token").chmod(0o644)
    status, _, err = await setup("--token", str(tmp_path / "token"))
    assert (status, "[secret-mode]" in err) == (ConfigError.exit_status, True)


async def test_a_token_cannot_say_another_fingerprint_than_its_own(setup, coordinator, token_file):
    """A person compares what is printed, before anything is known of who has made the token."""
    told = f"fed.example.org:7444, whose CA has the fingerprint {'5f' * 32}\x1b[8m"
    status, out, err = await setup("--token", token_file(token(told, coordinator.authority)))
    assert (status, "[bad-token]" in err) == (MalformedError.exit_status, True)
    assert "5f5f" not in out + err


async def test_a_token_on_standard_input_may_be_any_bytes(setup, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bedside1.\xff\xfe"), encoding="utf-8"))
    status, _, err = await setup("--token", "-")
    assert (status, "[bad-token]" in err) == (MalformedError.exit_status, True)


async def test_what_is_no_policy_is_not_taken(setup, tmp_path):
    (tmp_path / "site.toml").write_text("colour = 1\n")
    status, _, err = await setup("--policy", str(tmp_path / "site.toml"))
    assert status == ConfigError.exit_status
    assert "colour" in err
    assert [path.name for path in setup.directory.glob("*policy*")] == []


async def test_the_policy_of_a_package_lies_in_etc_and_no_other_link_leads_root_anywhere(setup, tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text(POLICY)
    monkeypatch.setattr(preparing, "SHARED_POLICY", tmp_path / "etc" / "policy.toml")
    setup.directory.mkdir()
    (tmp_path / "etc").mkdir()
    (setup.directory / "agent.toml").write_text("[link]\nenabled = false\n")
    link = setup.directory / "policy.toml"
    link.symlink_to(tmp_path / "etc" / "policy.toml")
    status, _, _ = await setup("--policy", str(tmp_path / "site.toml"))
    assert (status, link.is_symlink(), link.read_text()) == (0, True, POLICY)
    link.unlink()
    link.symlink_to(tmp_path / "shadow")
    status, _, _ = await setup("--policy", str(tmp_path / "site.toml"))
    assert (status, link.is_symlink(), link.read_text()) == (0, False, POLICY)
    assert not (tmp_path / "shadow").exists()


async def test_pins_of_a_set_up_that_was_interrupted_before_it_asked_bind_nobody(setup, coordinator, token_file):
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        text = token_file(token(address, coordinator.authority))
        await setup()  # no token
        identity = identity_in(setup.directory)
        from bedside.core.signing.tokens import read_token
        from bedside.service.link.enrolment import pins_of

        elsewhere = read_token(token(address, coordinator.authority, site="south"))
        identity.save_pins(pins_of(elsewhere))
        status, _, _ = await setup("--token", text)
    assert (status, identity.pins.site) == (0, "north")


async def test_who_may_not_write_there_is_told_to_be_root(setup, monkeypatch):
    setup.directory.mkdir()
    stranger = setup.directory.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    status, _, err = await setup()
    assert (status, f"[not-yours] — sudo bedside agent setup {setup.directory}" in err) == (
        ConfigError.exit_status,
        True,
    )
    setup.directory.rmdir()
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert "[not-yours]" in (await setup())[2]


@pytest.mark.parametrize("name", ["https_proxy", "no_proxy"])
async def test_a_proxy_puts_no_lines_of_its_own_into_the_unit(setup, monkeypatch, name):
    for each in ("https_proxy", "no_proxy"):
        monkeypatch.setenv(each, "")
    monkeypatch.setenv(name, 'http://proxy:3128\n"\nExecStartPre=/bin/false')
    status, _, err = await setup()
    assert (status, "[bad-proxy]" in err) == (ConfigError.exit_status, True)


async def test_a_proxy_with_a_password_goes_into_no_file(setup, monkeypatch):
    monkeypatch.setenv("https_proxy", "")
    status, _, err = await setup("--proxy", "http://me:secret@proxy:3128")
    assert (status, "[proxy-password]" in err, "secret@" in err) == (ConfigError.exit_status, True, False)
    assert not setup.directory.exists()


def test_without_a_package_a_directory_must_be_named(capsys, monkeypatch, tmp_path):
    module = sys.modules["bedside.agent.cli.setup"]  # the package has the command by this name
    monkeypatch.setattr(module, "PART", replace(module.PART, directory=tmp_path / "none"))
    assert run(["agent", "setup"], {}) == ConfigError.exit_status
    assert "[which-directory]" in capsys.readouterr().err


WISHES = first_run.Wishes("", "", b"", wait_s=None, asks=False, force=False, as_json=True)
OURS = os.pathsep.join(path for path in sys.path[1:] if not path.startswith(sys.base_prefix))
"""Where this Python finds what is not its own."""


@pytest.fixture
def public_python():
    """A Python of our version that everybody may run and load from."""
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": ()}
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info[1]}"):
        code = "import difflib, numpy, bedside.agent.config"
        with suppress(OSError):
            done = subprocess.run([python, "-c", code], env={"PYTHONPATH": OURS}, **nobody, capture_output=True)
            if done.returncode == 0:
                return python
    pytest.skip("neither this Python nor the system's, of the same version, may be run by everybody from here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do something as somebody else")
async def test_what_root_sets_up_belongs_to_the_user_of_the_service(coordinator, token_file, public_python):
    folder = Path(tempfile.mkdtemp(prefix="bedside-setup-"))
    try:
        folder.chmod(0o755)
        directory = folder / "device"
        directory.mkdir(mode=0o700)
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        async with serving(coordinator) as address, serving(coordinator) as other:
            coordinator.service_address = other
            text = token_file(token(address, coordinator.authority))  # which root alone can read
            words = ("-c", UNCHECKED, "agent", "setup", str(directory), "--token", text)
            child = await asyncio.create_subprocess_exec(
                *(public_python, *words),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": OURS},
            )
            _, err = await child.communicate()
        assert (child.returncode, err) == (0, b"")
        made = list(directory.rglob("*"))
        assert len(made) > 8
        assert {path.stat().st_uid for path in made} == {nobody.pw_uid}
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_root_gives_nothing_away_behind_a_link_that_somebody_has_put_there(tmp_path, monkeypatch):
    """In a folder of somebody else, between the making of a directory and the giving of it."""
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(Path, "mkdir", lambda self, **_: self.symlink_to(tmp_path / "etc"))
    run = first_run.FirstRun(tmp_path / "device", WISHES)
    run._account = account_of(Path("/nonexistent"), "nobody")
    monkeypatch.setattr(run, "_as_owner", lambda _work, _kind: Standing("new", "", ""))
    run._prepare()
    assert (tmp_path / "device").lstat().st_uid == run._account.uid
    assert (tmp_path / "etc").stat().st_uid == 0


@pytest.fixture
def manager(tmp_path, monkeypatch, setup):
    """A `systemctl` whose `enable` starts the agent, as the manager would; ends what it started."""
    (tmp_path / "booted").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(systemd, "BOOTED", tmp_path / "booted")
    monkeypatch.setattr(systemd, "_DROP_INS", tmp_path / "units")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    command = f"{sys.executable} -m bedside.service agent run {setup.directory}"
    proxy = tmp_path / "units/bedside-agent.service.d/proxy.conf"
    script = tmp_path / "bin" / "systemctl"
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case "$2" in
  show)
    echo LoadState=loaded; echo ActiveState=inactive; echo "ExecStart={{ argv[]={command} ; }}"
    if [ -e {proxy} ]; then sed -n 's/^Environment="\\(.*\\)"/Environment=\\1/p' {proxy}; fi
    ;;
  enable)
    if [ -e {tmp_path}/idle ] || [ -e {tmp_path}/pid ]; then exit 0; fi
    {command} > {tmp_path}/log 2>&1 &
    echo $! > {tmp_path}/pid
    ;;
esac
"""
    )
    script.chmod(0o755)
    yield tmp_path
    if (tmp_path / "pid").exists():
        process = psutil.Process(int((tmp_path / "pid").read_text()))
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(os.geteuid() != 0, reason="units are started by root")
async def test_where_systemd_runs_the_service_is_started_and_says_how_it_is(
    setup, manager, coordinator, token_file, monkeypatch
):
    monkeypatch.setattr(first_run, "SETTLE_S", 0.0)
    async with serving(coordinator) as address, serving(coordinator) as other:
        coordinator.service_address = other
        monkeypatch.setenv("https_proxy", "")
        text = token_file(token(address, coordinator.authority))
        status, out, err = await setup("--token", text, "--proxy", "http://proxy:3128", "--json")
        assert status == 0, err
        told = json.loads(out)
        assert told["state"] == "running"
        assert set(told["health"]) == {"state", "sentence"}
        drop_in = (manager / "units/bedside-agent.service.d/proxy.conf").read_text()
        assert drop_in == '[Service]\nEnvironment="https_proxy=http://proxy:3128"\n'
        calls = [line.split()[1] for line in (manager / "calls").read_text().splitlines()]
        assert calls[-2:] == ["daemon-reload", "enable"]
        status, out, _ = await setup()
        assert status == 0
        assert "this device is set up: nothing was changed" in out
        assert out.splitlines()[-1].startswith("health ")
        assert (manager / "calls").read_text().splitlines()[-1].split()[1] == "show"
        status, out, _ = await setup("--proxy", "http://other:3128")
    assert (status, "nothing was changed" in out) == (0, False)
    assert "other:3128" in (manager / "units/bedside-agent.service.d/proxy.conf").read_text()
    assert (manager / "calls").read_text().splitlines()[-1].split()[1] == "restart"


@pytest.mark.skipif(os.geteuid() != 0, reason="units are started by root")
async def test_a_service_that_starts_and_does_not_answer_is_an_error(setup, manager, monkeypatch):
    monkeypatch.setattr(first_run, "START_S", 0.3)
    (manager / "idle").touch()
    setup.directory.mkdir()
    (setup.directory / "agent.toml").write_text("[link]\nenabled = false\n")
    status, _, err = await setup()
    assert (status, "[agent-silent]" in err) == (UnavailableError.exit_status, True)
    assert "journalctl" in err
