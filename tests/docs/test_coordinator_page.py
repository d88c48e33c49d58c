"""docs/coordinator.md: its commands on PostgreSQL are typed; those for Docker are read, and their files made."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from walkthrough import File, Line, section_of, shell, steps_of

from bedside.coordinator.cli import coordinator, round_
from bedside.service.doctor.command import doctor
from postgres_server import PASSWORD, Postgres, program, running_postgres

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "coordinator.md").read_text()
COMMANDS = {"coordinator": coordinator, "round": round_, "doctor": doctor}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as running:
        yield running


def test_what_is_said_about_postgresql_works_as_it_is_typed(server, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("createuser", "createdb"):
        (tmp_path / "bin" / name).symlink_to(program(name))
    written, here = PAGE.split('database = "')[1].split('"')[0], f"postgresql://bedside@/bedside?host={server.folder}"
    with shell(tmp_path, {}) as typed:
        typed.must(f"export PGHOST={server.folder} PGUSER=owner PATH={tmp_path}/bin:$PATH")
        looked = ""
        for step in steps_of(section_of(PAGE, "PostgreSQL")):
            if isinstance(step, File):
                assert step.name == "database.toml"
                (tmp_path / "hub" / "conf.d" / step.name).write_text(step.body.replace(written, here))
                (tmp_path / "hub" / "database-password").write_text(f"{PASSWORD}\n")
                server.write(f"ALTER ROLE bedside PASSWORD '{PASSWORD}'")
            elif isinstance(step, Line) and step.command == "bedside doctor hub":
                _, looked = typed.run(step.command)
            elif isinstance(step, Line):
                typed.must(step.command)
    assert "answers: PostgreSQL" in looked
    assert "secret-" not in looked
    assert server.sessions("postgresql://x/bedside") == []


def lines_of_containers() -> list[list[str]]:
    return [shlex.split(step.command) for step in steps_of(section_of(PAGE, "In containers")) if isinstance(step, Line)]


def test_every_command_inside_a_container_is_one_of_ours():
    services = yaml.safe_load((REPOSITORY / "packaging" / "container" / "compose.yaml").read_text())["services"]
    inside = []
    for words in lines_of_containers():
        if words[:2] != ["docker", "compose"] or words[2] not in {"run", "exec"}:
            continue
        at = words.index("coordinator")
        assert words[at] in services
        rest = words[at + 1 :]
        if words[2] == "exec":
            assert rest[0] == "bedside"
            rest = rest[1:]
        if "--entrypoint" not in words:
            inside.append(rest)
    assert len(inside) == 4
    for command, *arguments in inside:
        found: click.Command = COMMANDS[command]
        if isinstance(found, click.Group):
            found, arguments = found.commands[arguments[0]], arguments[1:]
        _, left, _ = found.make_parser(click.Context(found)).parse_args(list(arguments))
        assert left == []


def test_the_secret_is_made_as_the_compose_file_wants_it(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    here = [words for words in lines_of_containers() if words[0] in {"mkdir", "openssl", "chmod"}]
    with shell(tmp_path, {}) as typed:
        for words in here:
            typed.must(" ".join(words))
    secret = tmp_path / "secrets" / "database-password"
    assert len(secret.read_text()) == 65
    assert (secret.stat().st_mode & 0o777, secret.parent.stat().st_mode & 0o777) == (0o444, 0o700)
