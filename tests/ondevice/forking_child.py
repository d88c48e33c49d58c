"""A limited child that has the runtimes loaded, and forks itself for every bundle that it is to try.

It is confined as `bedside.ondevice.golden` and `trial` are, and its forks do their work; what is saved is the start of
an interpreter for each of hundreds of bundles. Line by line: {"module", "job", "seconds"} in, the outcome out.
"""

import json
import os
import signal
import sys

from bedside.core.errors import BedsideError
from bedside.ondevice import golden, trial
from bedside.ondevice.confinement import confine, forbid_writing


def main():
    confine(sys.argv[1:])
    forbid_writing()
    import bedside.ondevice.refresh
    import bedside.ondevice.replay
    import bedside.ondevice.runtimes.litert
    import bedside.ondevice.runtimes.onnx
    import bedside.ondevice.training.step

    bedside.ondevice.runtimes.litert._interpreter_class()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the runtimes have to say of foreign bytes
    for line in sys.stdin:
        asked = json.loads(line)
        print(
            tried({"golden": golden, "trial": trial}[asked["module"]], asked["job"].encode(), asked["seconds"]),
            flush=True,
        )


def tried(module, job, seconds):
    """`same`, an error's code, or how the fork died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress goes there; the line is the parent's outcome
        try:
            module._run(job)
            outcome = "same"
        except BedsideError as error:
            outcome = error.code
        except BaseException as error:  # noqa: BLE001 - no test may mistake it for a refusal
            outcome = f"raised {type(error).__name__}"
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    outcome = os.read(reading, 1_000).decode()
    os.close(reading)
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    return outcome or f"ended with {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    main()
