"""The container files, without Docker: read by other people's parsers, held to what we promise, and their steps run.

Docker itself is not asked: no image is built here, and what only a container runtime shows is not shown.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser

from bedside.coordinator.config import CoordinatorConfig
from bedside.service.config import parse_config

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "packaging" / "container"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
SECRET = "database-password"
OWNER = "64101:64101"
STATE = "/var/lib/bedside/coordinator"


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> list[list[tuple[str, str]]]:
    """Instructions of each stage, the line that begins it first."""
    copy = tmp_path_factory.mktemp("dockerfile")
    shutil.copy(FOLDER / "Dockerfile", copy)
    found: list[list[tuple[str, str]]] = []
    for step in DockerfileParser(path=str(copy)).structure:
        if step["instruction"] == "FROM":
            found.append([])
        if step["instruction"] != "COMMENT":
            found[-1].append((step["instruction"], step["value"]))
    return found


def of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def test_the_compose_file_is_valid_by_the_specification():
    parsed = PyCompose.from_yaml((FOLDER / "compose.yaml").read_text())
    assert parsed.service_names() == ["database", "coordinator"]
    broken = (FOLDER / "compose.yaml").read_text().replace("read_only:", "readonly:")
    with pytest.raises(ValueError, match="readonly"):
        PyCompose.from_yaml(broken)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_the_least_that_it_can_work_with(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert any(entry.startswith("/tmp") for entry in service["tmpfs"])
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])


def test_the_two_ports_of_tls_are_open_and_the_database_can_be_reached_by_nobody_else():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["7443:7443", "7444:7444"]
    assert SERVICES["database"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert [name for name, one in SERVICES.items() if "inside" in one["networks"]] == ["database", "coordinator"]


def test_the_password_is_a_file_and_stands_nowhere_else():
    assert COMPOSE["secrets"] == {SECRET: {"file": f"./secrets/{SECRET}"}}
    assert all(service["secrets"] == [SECRET] for service in SERVICES.values())
    assert SERVICES["database"]["environment"]["POSTGRES_PASSWORD_FILE"] == f"/run/secrets/{SECRET}"
    assert not any(re.fullmatch(r".*PASSWORD", key) for key in SERVICES["database"]["environment"])
    assert "environment" not in SERVICES["coordinator"]


def test_images_are_named_with_their_major_version(stages):
    images = [SERVICES["database"]["image"], *(of(stage, "FROM")[0].partition(" AS ")[0] for stage in stages)]
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name.startswith("docker.io/library/")
        assert re.match(r"\d+", tag), image


def test_the_coordinator_finds_the_database_of_the_compose_file():
    config = parse_config((FOLDER / "container.toml").read_text(), CoordinatorConfig, FOLDER / "container.toml")
    url, environment = config.database_url, SERVICES["database"]["environment"]
    assert url is not None
    assert (url.host, url.name, url.parameters["user"]) == (
        "database",
        environment["POSTGRES_DB"],
        environment["POSTGRES_USER"],
    )
    assert config.database_password == f"credential:{SECRET}"
    assert f"./container.toml:{STATE}/conf.d/container.toml:ro" in SERVICES["coordinator"]["volumes"]


def test_the_last_stage_has_no_shell_work_no_root_and_one_volume(stages):
    last = stages[-1]
    assert of(last, "RUN") == []
    assert of(last, "USER") == [OWNER]
    assert of(last, "VOLUME") == [STATE]
    assert of(last, "EXPOSE") == ["7443 7444"]
    copies = of(last, "COPY")
    assert all(copy.startswith("--from=build ") for copy in copies)
    assert f"--from=build --chown={OWNER} /build/state {STATE}" in copies
    (health,) = of(last, "HEALTHCHECK")
    assert "bedside coordinator status" in health
    assert "bedside coordinator status" in SERVICES["coordinator"]["healthcheck"]["test"][1]
    (environment,) = of(last, "ENV")
    assert "CREDENTIALS_DIRECTORY=/run/secrets" in environment
    assert of(last, "CMD") == [f'["coordinator", "serve", "{STATE}"]']


def test_everything_that_is_installed_is_locked_by_hash(stages):
    runs = " && ".join(of(stages[0], "RUN"))
    installs = [step for step in runs.split("&&") if " install " in step and "pip" in step]
    locked = [step for step in installs if "--require-hashes" in step and "--only-binary :all:" in step]
    assert len(locked) == len(installs) - 1, "all but our own wheel"
    for arch in ("amd64", "arm64"):
        assert (REPOSITORY / f"packaging/locks/coordinator-trixie-{arch}.txt").is_file()
    assert "curl" not in runs
    assert "apt-get" not in runs


def test_no_key_of_a_checkout_goes_to_the_builder():
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    roots = {f"!{root}/bedside" for root in declared["dev-mode-dirs"]}
    assert set(rules[1:]) == roots | {"!LICENSE", "!README.md", "!pyproject.toml", "!packaging/locks", "**/__pycache__"}


def python_313() -> str | None:
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("3.13.*/bin/python3"))
    return str(pyenv[-1]) if pyenv else shutil.which("python3.13")


def copied(source: str, arch: str) -> list[Path]:
    """What `COPY source` brings, by the rules of the ignore file."""
    if source != ".":
        return [REPOSITORY / source.replace("${TARGETARCH}", arch)]
    rules = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    return [REPOSITORY / rule.removeprefix("!") for rule in rules if rule.startswith("!")]


def run_stage(stage: list[tuple[str, str]], scratch: Path, python: str) -> None:
    """Its steps in a scratch directory: absolute paths lie below it, and nothing is a container."""
    links = scratch / "links"
    links.mkdir()
    (links / "python").symlink_to(python)
    environment = {"PATH": f"{links}:/usr/bin:/bin", "HOME": str(scratch), "TARGETARCH": "amd64"}
    environment |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    (scratch / "build").mkdir()
    for instruction, value in stage:
        if instruction == "RUN":
            text = re.sub(r"(?<![\w.])/(build|opt)/", lambda found: f"{scratch}/{found[1]}/", value)
            subprocess.run(["/bin/sh", "-euc", text], cwd=scratch / "build", env=environment, check=True, timeout=280)
        elif instruction == "COPY":
            *sources, target = shlex.split(value)
            folder = scratch / target.removeprefix("/")
            for source in sources:
                for path in copied(source, "amd64"):
                    place = folder / path.relative_to(REPOSITORY) if source == "." else folder / path.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place)
        else:
            assert instruction in {"FROM", "ARG", "WORKDIR"}


@pytest.mark.slow
def test_the_steps_of_the_builder_make_a_coordinator_that_serves(stages, tmp_path):
    python = python_313()
    if python is None or sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the locked wheels are for Python 3.13 on amd64")
    run_stage(stages[0], tmp_path, python)
    home = tmp_path / "opt" / "bedside" / "coordinator"
    assert (tmp_path / "build" / "state").stat().st_mode & 0o777 == 0o700
    program = home / "bin" / "bedside"

    def call(*words: str) -> Any:
        return subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path, timeout=60)

    drop_in = tmp_path / "state" / "conf.d"
    drop_in.mkdir(parents=True)
    shutil.copy(FOLDER / "container.toml", drop_in)
    made = call("coordinator", "init", str(tmp_path / "state"), "--host", "fed.example.org")
    assert made.returncode == 0, made.stderr
    loads = [home / "bin" / "python", "-c", "import psycopg, prometheus_client; print(psycopg.pq.version() > 160000)"]
    assert subprocess.run(loads, capture_output=True, text=True, check=True).stdout == "True\n"
    looked = call("doctor", str(tmp_path / "state"))
    assert "secret-missing" in looked.stdout, "the drop-in counts, and there is no /run/secrets here"
    assert call("coordinator", "status").returncode == 69
    parts = {path.name for path in (home / "lib/python3.13/site-packages/bedside").iterdir()}
    assert parts - {"__pycache__"} == {"coordinator", "core", "proto", "service"}
