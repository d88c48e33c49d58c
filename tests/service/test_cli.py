import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, version

import click
import pytest

from bedside.core.errors import ConfigError, UnavailableError
from bedside.service import cli as cli_module
from bedside.service.cli import run


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


def test_a_mistake_in_the_command_line_keeps_status_2(capsys):
    assert run(["completion", "tcsh"], {}) == 2
    assert "tcsh" in capsys.readouterr().err
    assert run(["no-such-command"], {}) == 2


def test_a_bug_is_not_disguised_as_an_operator_error(part):
    part("raise ValueError('bug')")
    with pytest.raises(ValueError, match="bug"):
        run(["probe"], {})


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


def test_a_broken_import_inside_a_part_is_a_bug_and_no_missing_package(commands, monkeypatch):
    def importing(_name):
        raise ModuleNotFoundError("No module named 'bedside.trustee.duty'", name="bedside.trustee.duty")

    commands(broken="bedside.trustee.cli:broken")
    monkeypatch.setattr(cli_module.importlib, "import_module", importing)
    with pytest.raises(ModuleNotFoundError):
        run(["broken"], {})


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
    with pytest.raises(TypeError):
        run(["odd"], {})
    assert issubclass(cli_module.LazyGroup, click.Group)
