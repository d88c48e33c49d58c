"""What the trustee's process is, and what it is not."""

import subprocess
import sys
from pathlib import Path

from bedside.trustee.hardening import swap_in_use


def run_python(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_trustee_loads_nothing_that_an_auditor_would_have_to_read_for_nothing():
    program = "import sys, bedside.trustee.daemon, bedside.trustee.cli; print(*sys.modules)"
    loaded = set(run_python(program).split())
    heavy = ("onnxruntime", "onnx", "torch", "serial", "rich", "sqlite_utils", "ai_edge_litert")
    assert loaded.isdisjoint(heavy)
    parts = {name.split(".")[1] for name in loaded if name.startswith("bedside.")}
    assert parts == {"core", "proto", "service", "trustee"}


def test_the_process_leaves_no_core_dump_and_cannot_be_traced():
    program = (
        "import ctypes, resource; from bedside.trustee.hardening import harden_process; harden_process();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    assert run_python(program).split() == ["(0,", "0)", "0"]


def test_swap_is_noticed(tmp_path):
    table = tmp_path / "swaps"
    table.write_text("Filename Type Size Used Priority\n")
    assert not swap_in_use(table)
    table.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    assert swap_in_use(table)
    assert not swap_in_use(Path("/nonexistent"))
