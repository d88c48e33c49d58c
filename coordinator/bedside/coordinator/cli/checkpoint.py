"""`bedside round model`: the model of a task, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.coordinator.cli.audit_source import gathered
from bedside.coordinator.cli.link import CALL_TIMEOUT_S, ask, socket_option
from bedside.core.errors import TrustError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.signing import digest, parse_strict
from bedside.proto.v1.common_pb2 import BlobRef, BlobRequest
from bedside.proto.v1.operator_pb2 import RoundDetail, RoundQuery
from bedside.proto.v1.plan_pb2 import Plan
from bedside.service.files import write_durable
from bedside.service.output import emit, json_option

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

MODEL_FILE_MODE: Final = 0o644


@click.command()
@click.option("--task", required=True, help="Task.")
@click.option("--round", "number", type=int, default=0, help="The state after this round. [default: the newest]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@socket_option
@json_option
def model(task: str, number: int, out: Path, socket: str, as_json: bool) -> None:
    """Write the parameters that a task has come to, in the safetensors format.

    While a round runs, that is the state it started from. The digest is the one that the round's signed plan or
    result names, and that `bedside round show --json` and `bedside audit round` show.
    """

    async def fetch(stub: OperatorServiceAsyncStub) -> tuple[BlobRef, bytes]:
        query = RoundQuery(task=task, round_number=number)
        named = checkpoint_of(await stub.ShowRound(query, timeout=CALL_TIMEOUT_S))
        return named, await gathered(stub.GetBlob(BlobRequest(digest=named.digest)), MAX_BLOB_BYTES)

    named, data = ask(socket, fetch)
    if digest(data) != named.digest:
        raise TrustError("blob-digest", "the coordinator sent another checkpoint than its signed word names")
    write_durable(out, data, MODEL_FILE_MODE)
    emit({"task": task, "digest": named.digest, "size_bytes": len(data), "file": str(out)}, as_json)


def checkpoint_of(detail: RoundDetail) -> BlobRef:
    """The state after a round; while it runs, the state that it started from."""
    if detail.HasField("result"):
        return detail.checkpoint
    return parse_strict(Plan, detail.plan.payload).checkpoint
