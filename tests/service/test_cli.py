import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, version

import click
import pytest

from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.service import cli as cli_module
from bedside.service.cli import run
from bedside.service.failures import INTERNAL_STATUS


@pytest.fixture
def commands(monkeypatch):
    """Register commands for one test: name -> click command, exception to raise, or module text."""

    def register(**values):
        entries = {name: EntryPoint(name, value, "bedside.commands") for name, value in values.items()}
        monkeypatch.setattr(cli_module, "_entry_points", lambda: entries)

    return register


@pytest.fixture
def part(tmp_path, monkeypatch, commands):
    """Write a part's cli module and register its command `probe`."""

    def write(body):
        name = f"probe_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text("import click\n@click.command()\ndef probe():\n    " + body + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        commands(probe=f"{name}:probe")

    return write


def test_an_error_is_one_line_with_code_and_remedy_and_its_own_exit_status(part, capsys):
    part("from bedside.core.errors import ConfigError; raise ConfigError('x-y', 'it broke\\nbadly', remedy='mend it')")
    assert run(["probe"], {}) == ConfigError.exit_status == 78
    assert capsys.readouterr().err == "error: it broke\\nbadly [x-y] — mend it\n"


def test_debug_adds_the_traceback(part, capsys):
    part("from bedside.core.errors import ConfigError; raise ConfigError('x-y', 'it broke')")
    assert run(["probe"], {"BEDSIDE_DEBUG": "1"}) == 78
    assert "Traceback" in capsys.readouterr().err


def test_control_c_exits_130(part):
    part("raise KeyboardInterrupt")
    assert run(["probe"], {}) == 130


def test_a_command_chooses_its_exit_status(part):
    part("click.get_current_context().exit(1)")
    assert run(["probe"], {}) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["demo", "--rounds", "few"], "error: invalid value for '--rounds': 'few' is not a whole number [usage] — "),
        (["no-such-command"], "error: no such command 'no-such-command' [usage] — bedside --help\n"),
        (["completion"], "error: missing argument"),
        (["completion", "tcsh"], "error: invalid value for"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_too(capsys, arguments, line):
    assert run(arguments, {}) == cli_module.USAGE_STATUS == 64
    told = capsys.readouterr()
    assert told.err.startswith(line)
    assert (told.err.count("\n"), told.out) == (1, "")
    assert told.err.endswith(" --help\n")


def test_a_bug_is_one_line_that_asks_for_a_report_and_has_a_status_of_its_own(part, capsys):
    part("raise ValueError('bug')")
    assert run(["probe"], {}) == INTERNAL_STATUS == 70
    line = capsys.readouterr().err
    assert line.startswith("error: unexpected ValueError: bug [internal-error] — ")
    assert "bedside --debug" in line
    assert line.count("\n") == 1


def test_of_tasks_that_failed_side_by_side_the_one_that_knows_what_to_say_is_heard(part, capsys):
    part(
        "from bedside.core.errors import ConfigError; raise ExceptionGroup('tasks', [ValueError('bug'),"
        " ExceptionGroup('more', [ConfigError('x-y', 'it broke', remedy='mend it')])])"
    )
    assert run(["probe"], {}) == 78
    assert capsys.readouterr().err == "error: it broke [x-y] — mend it\n"


@pytest.mark.parametrize(("arguments", "environ"), [(["--debug", "probe"], {}), (["probe"], {"BEDSIDE_DEBUG": "1"})])
def test_the_traceback_of_a_bug_is_shown_to_those_who_ask(part, capsys, arguments, environ):
    part("raise ValueError('bug')")
    assert run(arguments, environ) == 70
    assert "Traceback" in capsys.readouterr().err
    run(["probe"], {})
    assert "Traceback" not in capsys.readouterr().err, "asking once is not asking for ever"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("open('/proc/version/x')", "/proc/version/x cannot be used: Not a directory [path-unusable]"),
        ("raise OSError(30, 'Read-only file system', '/ro')", "on a file system that can be written"),
        ("raise OSError(28, 'No space left on device')", "the system says: No space left on device [system-error]"),
    ],
)
def test_what_the_system_refuses_is_told_with_the_path(part, capsys, body, words):
    part(body)
    assert run(["probe"], {}) == StoreError.exit_status == 74
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1


def test_the_help_of_completion_shows_a_line_for_each_shell(capsys):
    assert run(["completion", "--help"], {}) == 0
    shown = capsys.readouterr().out
    assert "\\b" not in shown
    assert "\b" not in shown
    for shell in ("bash", "zsh", "fish"):
        assert [line for line in shown.splitlines() if line.strip().startswith(f"{shell}: ")], shell


@pytest.mark.parametrize(
    ("part_name", "remedy"),
    [("coordinator", "pip install 'bedside[coordinator]'"), ("trustee", "pip install --force-reinstall bedside")],
)
def test_a_missing_third_party_package_names_what_brings_it(commands, monkeypatch, capsys, part_name, remedy):
    commands(thing=f"bedside.{part_name}.cli:thing")

    def importing(_name):
        raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    monkeypatch.setattr(cli_module.importlib, "import_module", importing)
    assert run(["thing"], {}) == UnavailableError.exit_status == 69
    line = capsys.readouterr().err
    assert "sqlalchemy" in line
    assert line.rstrip().endswith(remedy)


def test_a_missing_part_says_so(commands, capsys):
    commands(gone="bedside.nowhere.cli:gone")
    assert run(["gone"], {}) == 69
    assert "[part-missing]" in capsys.readouterr().err


def test_a_broken_import_inside_a_part_is_a_bug_and_no_missing_package(commands, monkeypatch, capsys):
    def importing(_name):
        raise ModuleNotFoundError("No module named 'bedside.trustee.duty'", name="bedside.trustee.duty")

    commands(broken="bedside.trustee.cli:broken")
    monkeypatch.setattr(cli_module.importlib, "import_module", importing)
    assert run(["broken"], {}) == 70
    assert "[internal-error]" in capsys.readouterr().err


def test_listing_the_commands_imports_no_part(commands, capsys):
    commands(agent="bedside.nowhere.cli:agent", site="bedside.nowhere.cli:site")
    assert run(["--help"], {}) == 0
    listing = capsys.readouterr().out
    assert "agent" in listing
    assert "Act for a hospital" in listing


def test_every_installed_command_has_a_summary():
    names = set(cli_module._entry_points())
    assert names
    assert names <= set(cli_module._SUMMARIES)


def test_the_version_is_that_of_the_package(capsys):
    assert run(["--version"], {}) == 0
    assert capsys.readouterr().out == f"bedside {version('bedside')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_calls_bedside_back(shell, capsys):
    assert run(["completion", shell], {}) == 0
    assert "_BEDSIDE_COMPLETE" in capsys.readouterr().out


def test_completion_of_a_command_name_imports_no_part():
    code = (
        "import sys, json; from bedside.service.cli import cli; import click;"
        "items = cli.shell_complete(click.Context(cli), 'co');"
        "print(json.dumps([[i.value for i in items], sorted(m for m in sys.modules if m.startswith('bedside.'))]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    names, modules = json.loads(out.stdout)
    assert names == ["completion", "coordinator"]
    assert not [module for module in modules if module.split(".")[1] not in {"core", "service"}]


def test_an_entry_point_that_is_no_command_is_a_bug(commands):
    commands(odd="bedside.service.cli:run")
    assert run(["odd"], {}) == 70
    assert issubclass(cli_module.LazyGroup, click.Group)
