"""The shape of the repository: roots, layers, freshness, size, versions."""

import ast
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TOOL = PYPROJECT["tool"]
ROOTS = TOOL["hatch"]["build"]["dev-mode-dirs"]
CODE_ROOTS = [root for root in ROOTS if root != "protos"]
PROTOS = REPOSITORY / "protos" / "bedside" / "proto" / "v1"


def part_of(root):
    return "proto" if root == "protos" else root


def hand_written():
    files = [file for root in ROOTS for file in (REPOSITORY / root).rglob("*.py")]
    files += (REPOSITORY / "tests").rglob("*.py")
    return [file for file in files if "_pb2" not in file.name and "__pycache__" not in file.parts]


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_claims_the_namespace(root):
    assert not (REPOSITORY / root / "bedside" / "__init__.py").exists()


@pytest.mark.parametrize("root", ROOTS)
def test_every_part_is_typed_and_alone_in_its_root(root):
    assert (REPOSITORY / root / "bedside" / part_of(root) / "py.typed").is_file()
    packages = [entry.name for entry in (REPOSITORY / root / "bedside").iterdir() if entry.name != "__pycache__"]
    assert packages == [part_of(root)]


def test_every_folder_with_code_of_a_part_is_a_package():
    missing = {
        str(file.parent.relative_to(REPOSITORY))
        for root in ROOTS
        for file in (REPOSITORY / root / "bedside" / part_of(root)).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
    }
    # Migration scripts are data that Alembic loads by path.
    assert {folder for folder in missing if not folder.endswith(("migrations", "versions"))} == set()


def test_all_tools_agree_on_the_roots():
    wheel = TOOL["hatch"]["build"]["targets"]["wheel"]
    prefix = "$MYPY_CONFIG_FILE_DIR/"
    assert wheel["sources"] == ROOTS
    assert wheel["only-include"] == [f"{root}/bedside" for root in ROOTS]
    assert [path.removeprefix(prefix) for path in TOOL["mypy"]["mypy_path"].split(":")] == ROOTS
    assert TOOL["mypy"]["files"][: len(CODE_ROOTS)] == CODE_ROOTS
    assert TOOL["pyright"]["include"] == CODE_ROOTS
    assert TOOL["pyright"]["extraPaths"] == ROOTS
    assert TOOL["ruff"]["namespace-packages"] == [f"{root}/bedside" for root in ROOTS]
    assert [root for root in TOOL["ruff"]["src"] if root != "tests"] == ROOTS
    assert TOOL["coverage"]["run"]["source_pkgs"] == [f"bedside.{root}" for root in CODE_ROOTS]
    sdist = TOOL["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {f"/{root}" for root in ROOTS} <= set(sdist)


def test_layers_and_forbidden_imports_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    result = subprocess.run([lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_generated_code_is_fresh(tmp_path):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    protos = sorted(str(file) for file in PROTOS.glob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{tmp_path}" for kind in ("mypy", "mypy_grpc")]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'protos'}", *outputs, *protos]
    subprocess.run(command, check=True, env={"PATH": path})
    fresh = {file.name: file.read_bytes() for file in (tmp_path / "bedside/proto/v1").iterdir()}
    committed = {file.name: file.read_bytes() for file in PROTOS.glob("*_pb2*.py*")}
    assert fresh.keys() == committed.keys()
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, "run `make proto`"


def test_generated_code_asks_for_no_newer_grpc_than_we_do():
    floor = next(text for text in PYPROJECT["project"]["dependencies"] if text.startswith("grpcio>="))
    least = floor.removeprefix("grpcio>=").split(",")[0]
    for file in PROTOS.glob("*_pb2_grpc.py"):
        generated = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", file.read_text())
        assert generated is not None
        assert generated[1].startswith(least)


def test_no_hand_written_file_is_over_400_lines_and_no_test_over_700():
    limits = {file: 700 if file.is_relative_to(REPOSITORY / "tests") else 400 for file in hand_written()}
    long = {str(file.relative_to(REPOSITORY)): count(file) for file, limit in limits.items() if count(file) > limit}
    assert long == {}


def count(file):
    return len(file.read_text().splitlines())


def test_no_child_takes_code_from_the_folder_that_somebody_stands_in():
    """Without -P, `python -m` looks there first: root may stand in a folder that anybody writes to."""
    code = [file for root in CODE_ROOTS for file in (REPOSITORY / root).rglob("*.py")]
    spots = [call for file in code for call in re.findall(r"sys\.executable,[^\n]*\"-m\"", file.read_text())]
    assert spots
    assert [call for call in spots if '"-P", "-m"' not in call] == []


def test_no_file_is_named_after_nothing():
    shapeless = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [file for file in hand_written() if file.stem in shapeless] == []


def test_the_repository_names_no_machine():
    # Written apart, so that this file does not name them either.
    machine = re.compile("|".join(["/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/[a-z]+/"]))
    named = [str(file) for file in hand_written() if machine.search(file.read_text())]
    assert named == []


def test_the_version_is_the_same_everywhere():
    stated = PYPROJECT["project"]["version"]
    assert version("bedside") == stated
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{stated}]" in changelog


def test_every_registered_command_lives_in_a_part():
    for value in PYPROJECT["project"]["entry-points"]["bedside.commands"].values():
        module, _, attribute = value.partition(":")
        _, part, *_ = module.split(".")
        assert part in CODE_ROOTS
        assert attribute.isidentifier()


def loaded_by(statement):
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(output.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import bedside.agent.config", {"asyncio", "ssl"}),
        ("import bedside.service.cli", {"rich", "grpc", "numpy", "onnxruntime", "cryptography", "msgspec", "nacl"}),
        ("import bedside.service.output", {"rich", "grpc", "numpy", "onnxruntime", "msgspec"}),
        ("import bedside.service.config, bedside.service.logs, bedside.service.health", {"rich", "grpc", "numpy"}),
        ("import bedside.agent.sources.csv.source, bedside.agent.sources.sql.source", {"sqlalchemy", "psycopg"}),
        ("from bedside.agent.sources.recordings import edf, wfdb", {"wfdb", "pandas", "pyedflib"}),
        ("import bedside.service.link.server, bedside.service.link.connection", {"rich", "numpy", "cryptography"}),
    ],
)
def test_what_is_costly_is_imported_late(statement, absent):
    assert loaded_by(statement) & absent == set()


def test_time_and_randomness_are_read_in_one_file_only():
    banned = {("time", "time"), ("time", "time_ns"), ("os", "urandom"), ("datetime", "now")}
    offenders = []
    for root in CODE_ROOTS:
        for file in (REPOSITORY / root).rglob("*.py"):
            if file.match("service/bedside/service/platform.py"):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                if named and (node.value.id, node.attr) in banned:
                    offenders.append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert offenders == []


def test_the_licence_is_the_unmodified_text_of_apache_2() -> None:
    text = (REPOSITORY / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
