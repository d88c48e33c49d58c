"""`/usr/bin/bedside` reaches the packages that are installed, and names the one that is not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import GROUP
from parts import PARTS, project

SCRIPT = Path(__file__).parents[2] / "packaging" / "deb" / "bedside"
ALL = ("agent", "trustee", "coordinator")


@pytest.fixture
def install(tmp_path):
    """Environments that say who they are and what they were given."""

    def make(*parts):
        for part in parts:
            program = tmp_path / "opt" / part / "bin" / "bedside"
            program.parent.mkdir(parents=True)
            program.write_text(f'#!/bin/sh\necho "{part}: $*"\n')
            program.chmod(0o755)
            program.with_name("python3").symlink_to("/bin/sh")
        script = tmp_path / "bedside"
        script.write_text(SCRIPT.read_text().replace("environments=/opt/bedside", f"environments={tmp_path}/opt"))

        def call(*words, **environ):
            command = ["/bin/sh", script, *words]
            return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ})

        return call

    return make


def packaged():
    """First-level commands with the part whose package has them; None where each has."""
    for name, reference in project()["entry-points"][GROUP].items():
        root = reference.split(".")[1]
        part = next((part.name for part in PARTS if root == part.name), None)
        if root in {"service", *ALL}:
            yield name, part


@pytest.mark.parametrize(("name", "part"), list(packaged()))
def test_each_command_goes_to_the_package_that_has_it(install, name, part):
    call = install(*ALL)
    assert call("--debug", name, "--help", "a b").stdout == f"{part or 'agent'}: --debug {name} --help a b\n"


@pytest.mark.parametrize("part", ALL)
def test_what_is_nobodys_goes_to_whoever_is_there(install, part):
    call = install(part)
    for words in ([], ["--version"], ["policy", "explain"], ["completion", "bash"]):
        assert call(*words).stdout == f"{part}: {' '.join(words)}\n"


def test_a_package_whose_python_an_upgrade_of_debian_has_taken_is_named_and_another_answers(install, tmp_path):
    call = install("agent", "trustee")
    (tmp_path / "opt/agent/bin/python3").unlink()
    (tmp_path / "opt/agent/bin/python3").symlink_to(tmp_path / "python3.11")
    assert call("doctor").stdout == "trustee: doctor\n"
    for words in (["agent", "status"], ["agent"]):
        done = call(*words)
        assert (done.returncode, "bedside-agent_*.deb" in done.stderr) == (69, True)
        assert "[part-broken]" in done.stderr
    assert call(_BEDSIDE_COMPLETE="bash_complete", COMP_WORDS="bedside agent ", COMP_CWORD="2").stderr == ""


def test_where_no_package_runs_one_of_them_is_named(install, tmp_path):
    call = install("trustee")
    (tmp_path / "opt/trustee/bin/python3").unlink()
    assert "bedside-trustee is for another release" in call("doctor").stderr


def test_a_command_whose_package_is_not_installed_names_it(install):
    done = install("agent")("trustee", "status")
    assert (done.returncode, done.stdout) == (69, "")
    assert "bedside trustee is not installed on this machine [part-missing]" in done.stderr
    assert "apt install ./bedside-trustee_*.deb" in done.stderr


def test_without_any_package_an_agents_is_named(install):
    done = install()("--version")
    assert (done.returncode, done.stdout) == (69, "")
    assert "apt install ./bedside-agent_*.deb" in done.stderr


@pytest.mark.parametrize("command", ["model", "demo"])
def test_an_authors_commands_are_in_no_package(install, command):
    done = install(*ALL)(command, "build")
    assert (done.returncode, done.stdout) == (69, "")
    assert "pip install 'bedside[authoring]'" in done.stderr


@pytest.mark.parametrize(
    ("line", "part"), [("bedside site st", "trustee"), ("bedside fl", "agent"), ("bedside", "agent")]
)
def test_completion_is_answered_by_the_package_of_the_line(install, line, part):
    done = install(*ALL)(COMP_WORDS=line, _BEDSIDE_COMPLETE="bash_complete")
    assert (done.returncode, done.stdout) == (0, f"{part}: \n")


def test_completion_of_what_is_not_installed_is_silent(install):
    call = install("agent")
    for line in ("bedside trustee st", "bedside model b"):
        done = call(COMP_WORDS=line, _BEDSIDE_COMPLETE="zsh_complete")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_words_of_a_line_are_not_expanded(install, tmp_path):
    done = install(*ALL)(COMP_WORDS="bedside /* site", _BEDSIDE_COMPLETE="bash_complete")
    assert done.stdout == "agent: \n"


@pytest.mark.parametrize("script", [SCRIPT, *sorted((SCRIPT.parent / "scripts").iterdir())], ids=lambda path: path.name)
def test_a_script_is_sound_shell(script):
    assert subprocess.run(["/bin/sh", "-n", script]).returncode == 0
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("sh -n is content; shellcheck is not installed")
    done = subprocess.run([shellcheck, "--shell=sh", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
