"""The larger packages, in every target: what they import is in them. Slow, as it fetches and unpacks 800 MB."""

import os
import subprocess

import pytest
from built_debs import REPOSITORY, Deb, build, interpreter
from parts import PARTS
from targets import TARGETS

NATIVE = os.uname().machine
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PART = {part.name: part for part in PARTS}
IMPORTS = {
    "agent": "aiomqtt, bleak, cobs.cobs, dbus_fast.aio, fastcrc, onnxruntime, psutil, serial, sqlite_utils, urllib3",
    "trustee": "grpc_health.v1, rich.table",
    "coordinator": "alembic.command, dp_accounting.pld, scipy.stats, sqlalchemy, psycopg, psycopg_binary.pq,"
    " bedside.coordinator.server",
}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("part", list(PART))
def test_every_module_and_library_is_in_the_package(part, target, tmp_path):
    build(tmp_path / "out", part, target.name)
    (path,) = (tmp_path / "out").glob(f"bedside-{part}_*.deb")
    site = Deb(path, tmp_path / "deb").root / PART[part].home / f"lib/python{target.python}/site-packages"
    libraries = [file for file in site.rglob("*.so*") if file.is_file()]
    assert libraries
    machine = {"amd64": 62, "arm64": 183}[target.arch]
    assert {int.from_bytes(file.read_bytes()[18:20], "little") for file in libraries} == {machine}
    python = interpreter(target.python)
    if MACHINES[target.arch] != NATIVE or python is None:
        return
    environ = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    subprocess.run([python, "-S", "-c", f"import {IMPORTS[part]}"], check=True, env=environ)
    # Migrations are scripts that Alembic runs, no modules.
    names = ["bedside.core", "bedside.service", *([] if part == "coordinator" else [f"bedside.{part}"])]
    subprocess.run([python, "-S", REPOSITORY / ".ci" / "import_all.py", *names], check=True, env=environ)
