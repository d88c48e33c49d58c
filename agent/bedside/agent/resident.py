"""`python -m bedside.agent.resident DIRECTORY VERSION`: what `bedside agent run` becomes, for as long as it runs.

A program that runs for months on a small board leaves behind what only started it: command line, metadata of packages,
and Python's OpenSSL, which nothing here uses (gRPC and the ciphers bring their own). That is 8 MB of 80.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from bedside.agent.config import AgentConfig

_OPENSSL: Final = ("ssl", "_ssl", "_hashlib")
"""asyncio and hashlib go on without them: hashlib has algorithms of its own."""
_LOCAL_KINDS: Final = frozenset({"replay", "serial", "csv", "wfdb", "edf", "ivy450c", "iio"})
"""Sources and sinks that speak to no network."""


def become_resident(directory: Path, version: str, *, debug: bool) -> NoReturn:
    """Replace this process, which keeps its id, its limits and its open standard streams.

    Args:
        directory: of the device.
        version: of Bedside, as heartbeats tell it.
        debug: print the traceback of what ends it.
    """
    from bedside.service.failures import DEBUG_VARIABLE

    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", "bedside.agent.resident", str(directory), version]
    environment = os.environ | {DEBUG_VARIABLE: "1" if debug else "0"}
    os.execve(sys.executable, command, environment)  # noqa: S606 - there is no shell, and a list of our own words


def speaks_tls(config: AgentConfig) -> bool:
    """Whether a source or a sink may want Python's OpenSSL."""
    kinds = {source.kind for source in config.sources} | {sink.kind for sink in config.sinks}
    return not kinds <= _LOCAL_KINDS


def main(directory: Path, version: str) -> int:
    """Run the agent until it is told to stop; returns the exit status."""
    for module in _OPENSSL:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # how a module is said not to be there
    from bedside.agent.config import load_agent_config
    from bedside.service.failures import DEBUG_VARIABLE, INTERRUPTED_STATUS, report_failure
    from bedside.service.logs import setup_logging
    from bedside.service.platform import SystemClock, SystemEntropy
    from bedside.service.terminal import degrade

    degrade(sys.stdout, sys.stderr)
    try:
        config = load_agent_config(directory)
        for module in _OPENSSL if speaks_tls(config) else ():
            del sys.modules[module]
        import asyncio

        from bedside.agent.daemon import run_agent

        setup_logging()
        asyncio.run(run_agent(directory, config, SystemClock(), SystemEntropy(), version))
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except Exception as error:  # noqa: BLE001 - the outermost place; nothing above it could say more
        return report_failure(error, debug=os.environ.get(DEBUG_VARIABLE) == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
