"""Whether a runtime of this machine computes: the golden vectors of a bundle that comes with the program, in a child.

A runtime that is installed may still end the process that loads it (a processor without the instructions that it was
built for), fail with its first graph (built for another numpy), or compute something else. All of it is seen here.

`self_check.tar` is built from `tests/recipes/self_check.toml` by `tests/ondevice/test_self_check.py`; its author's key
is no secret, and no policy names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.core.errors import UnavailableError
from bedside.ondevice.confinement import Limits, read_outcome, run_child
from bedside.ondevice.golden import Replay, replay_golden
from bedside.ondevice.runtimes import RuntimeName
from bedside.ondevice.runtimes.installed import is_installed
from bedside.ondevice.trial import CHILD, Measured, Trial

BUNDLE: Final = Path(__file__).with_name("self_check.tar")
SIGNER_PK: Final = "a821a3adcd7f377b2ea65802027cf9afd89471da2c2fa2ba27a696cba8ecdc29"
LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=60)


async def self_check(runtime: RuntimeName, limits: Limits = LIMITS) -> float:
    """Replay the bundle on one runtime: training and inference on onnxruntime, inference on LiteRT.

    Returns:
        On onnxruntime the largest difference from a golden vector; on LiteRT the median time of a window, microseconds.

    Raises:
        UnavailableError: `runtime-missing`, `child-died`, `child-timeout`.
        MalformedError, TrustError: `bad-graph`, `golden-mismatch`: it computes something else.
    """
    if not is_installed(runtime):
        raise UnavailableError("runtime-missing", f"{runtime} is not installed")
    if runtime == "onnx":
        return max((await replay_golden(Replay(str(BUNDLE), (SIGNER_PK,)), limits)).differences.values())
    job = msgspec.json.encode(Trial(str(BUNDLE), (SIGNER_PK,), ("litert",)))
    (measured,) = read_outcome(await run_child(CHILD, job, limits), tuple[Measured, ...])
    return measured.median_us
