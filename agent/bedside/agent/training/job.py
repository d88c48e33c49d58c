"""What a training child is asked to do, and where its inputs lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.agent.training.budget import Budget
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.bundle.verify import Bundle, Parameters, check_parameters, verify_archive
from bedside.core.errors import BedsideError, ConfigError, MalformedError, StoreError
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.train import Counts, Schedule


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training run.

    Attributes:
        bundle: path of the bundle's tar.
        signer_pks: Ed25519 keys of accepted signers, hexadecimal.
        schedule: how to train.
        parameters: path of the checkpoint (safetensors); empty for the bundle's own parameters.
        state_dir: the agent's state directory, whose buffer holds the labelled windows; or empty.
        task: names the training, when it is one of the buffer's: an unfinished one of the same name and inputs goes on.
        max_windows: newest windows of the buffer that are used at most.
        examples: path of a safetensors file with `x` and `y`, used when `state_dir` is empty.
        result: path of the safetensors file to write the delta to; empty to write none.
        budget: what it may take of this device.
    """

    bundle: str
    signer_pks: tuple[str, ...]
    schedule: Schedule
    parameters: str = ""
    state_dir: str = ""
    task: str = "job"
    max_windows: int = 4_096
    examples: str = ""
    result: str = ""
    budget: Budget = Budget()


class Outcome(msgspec.Struct, frozen=True):
    """What the training child reports on its last line; the delta itself lies in `result`."""

    counts: Counts
    result: str


def load_bundle(job: Job) -> Bundle:
    """Read and verify the job's bundle.

    Raises:
        StoreError: `file-read`.
        TrustError, MalformedError: from the bundle.
    """
    return verify_archive(read_file(job.bundle), [bytes.fromhex(key) for key in job.signer_pks])


def load_parameters(job: Job, bundle: Bundle) -> Parameters:
    """Return the parameters to start from.

    Raises:
        StoreError: `file-read`.
        MalformedError: `bad-tensors`, `bad-parameters`.
    """
    if not job.parameters:
        return dict(bundle.parameters)
    return check_parameters(bundle.manifest, decode_tensors(read_file(job.parameters)))


def load_examples(job: Job) -> Windows:
    """Return the training examples of a job that brings its own.

    Raises:
        ConfigError: `no-examples-source`.
        StoreError: `file-read`.
        MalformedError: `bad-tensors`, `bad-examples`.
    """
    if not job.examples:
        raise ConfigError("no-examples-source", "the training job names neither a state directory nor a file")
    tensors = decode_tensors(read_file(job.examples))
    if not {"x", "y"} <= set(tensors):
        raise MalformedError("bad-examples", f"{job.examples} has no tensors x and y")
    # `train` checks both dtypes before it uses them.
    return Windows(cast("npt.NDArray[np.float32]", tensors["x"]), cast("npt.NDArray[np.int64]", tensors["y"]))


def read_file(path: str) -> bytes:
    """Read a file of this machine, whole.

    Raises:
        StoreError: `file-read`.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> BedsideError:
    return StoreError(
        "file-read",
        f"{path} cannot be read: {error.strerror or error}",
        remedy="check that it exists and that this user may read it",
    )
