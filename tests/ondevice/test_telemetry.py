"""onnxruntime tells its maker nothing, and makes no identifier of this machine."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.ondevice.runtimes.installed import is_installed

REPOSITORY = Path(__file__).parents[2]
ROOTS = ("core", "service", "firmware_bridge", "ondevice", "agent", "trustee", "authoring", "coordinator", "demo")
INFER = """
import numpy as np
{first}
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf
try:
    onnxruntime.InferenceSession(b"no model")
except InvalidProtobuf:
    print("asked")
"""


def left_behind(first, home):
    """Files below a home in which onnxruntime was used, after a first statement."""
    environ = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    command = [sys.executable, "-c", INFER.format(first=first)]
    done = subprocess.run(command, env={**environ, "HOME": str(home)}, capture_output=True, text=True, check=True)
    assert done.stdout == "asked\n"
    return {path.name for path in home.rglob("*") if path.is_file()}


@pytest.mark.skipif(not is_installed("onnx"), reason="onnxruntime is not installed")
def test_no_identifier_of_the_machine_is_made(tmp_path):
    assert left_behind("import bedside.ondevice", tmp_path) == set()


def test_onnxruntime_is_imported_below_ondevice_only():
    importers = set()
    for root in ROOTS:
        for path in (REPOSITORY / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] == "onnxruntime" for name in names):
                    importers.add(root)
    assert importers == {"ondevice"}
