"""Posts what leaves as JSON to a program of the hospital's own, signed.

A request is `{"version": 1, "device": ..., "advisory": ..., "items": [...]}`; every item has an `id` of the thing and a
`message_id` of this delivery, by which a receiver knows what it has already. With a secret the request carries

    Bedside-Signature: t=SECONDS,v1=HEX

where HEX is HMAC-SHA-256, under the secret, of `SECONDS`, a dot and the body's bytes. A receiver compares it in
constant time and refuses old times.

Source: RFC 2104; draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Final

from bedside.agent.sinks.http.client import HttpClient, HttpOptions, as_json
from bedside.agent.sinks.kind import SinkContext, SinkKind, option
from bedside.agent.sinks.outgoing import ADVISORY, Outgoing, derive_id
from bedside.agent.sinks.rows import fields_of
from bedside.core.errors import ConfigError
from bedside.service.secret import read_secret

MAX_BATCH_ROWS: Final = 1_000
VERSION: Final = 1
_NS_PER_S: Final = 1_000_000_000


class WebhookOptions(HttpOptions, frozen=True, kw_only=True):
    """A program of the hospital's own."""

    secret: Annotated[str, option("where the secret of signatures lies: credential:NAME, or a file of mode 0600")] = ""
    batch_rows: Annotated[int, option("items of one request")] = 100


class WebhookSink:
    """A `Sink` on one URL."""

    def __init__(self, options: WebhookOptions, context: SinkContext) -> None:
        self._options = options
        self._context = context
        self._client = HttpClient(options, context.directory, context.clock)
        self.batch_rows = options.batch_rows

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Post one request; a 2xx acknowledges all that is in it."""
        body = as_json(_message(batch))
        self._client.send("POST", self._options.url, body, _headers(batch) | self._signature(body))

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """The request; its signature is left out."""
        heads = "".join(f"{name}: {value}\n" for name, value in _headers(batch).items())
        body = json.dumps(_message(batch), ensure_ascii=False, indent=2)
        return f"POST {self._options.url}\n{heads}\n{body}\n"

    def _signature(self, body: bytes) -> dict[str, str]:
        if not self._options.secret:
            return {}
        import hmac

        seconds = str(self._context.clock.now_ns() // _NS_PER_S)
        key = read_secret(self._context.directory, self._options.secret, option="secret").encode()
        digest = hmac.new(key, f"{seconds}.".encode() + body, "sha256").hexdigest()
        return {"Bedside-Signature": f"t={seconds},v1={digest}"}


def _message(batch: Sequence[Outgoing]) -> dict[str, object]:
    return {
        "version": VERSION,
        "device": batch[0].device,
        "advisory": ADVISORY,
        "items": [fields_of(one) for one in batch],
    }


def _headers(batch: Sequence[Outgoing]) -> dict[str, str]:
    ids = [one.message_id.hex for one in batch]
    key = batch[0].message_id if len(batch) == 1 else derive_id("batch", *ids)
    return {"Content-Type": "application/json", "Idempotency-Key": str(key)}


def _build(options: WebhookOptions, context: SinkContext) -> WebhookSink:
    if not 1 <= options.batch_rows <= MAX_BATCH_ROWS:
        raise ConfigError("sink-config", f"sink {options.name}: batch_rows must be 1 to {MAX_BATCH_ROWS}")
    return WebhookSink(options, context)


KIND: Final = SinkKind(WebhookOptions, _build)
