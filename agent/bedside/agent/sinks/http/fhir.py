"""Puts Observations into a FHIR R4 server: one by one, or many in a transaction.

Invariant: a row has one id for ever, so that it is one resource however often it is sent; the changes of an alarm are
versions of one resource.

Source: HL7 FHIR R4 (4.0.1), RESTful API: update, conditional update, transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec

from bedside.agent.formats.fhir.operation_outcome import outcome_sentence
from bedside.agent.sinks.http.client import HttpClient, HttpOptions, as_json
from bedside.agent.sinks.kind import SinkContext, SinkKind, option
from bedside.agent.sinks.observation import URN, Coding, Json, observation
from bedside.agent.sinks.outgoing import Outgoing
from bedside.core.errors import ConfigError, MalformedError

MAX_BUNDLE_ROWS: Final = 500
_HEADERS: Final = {
    "Content-Type": "application/fhir+json",
    "Accept": "application/fhir+json",
    "Prefer": "return=minimal",
}

Key = Literal["id", "identifier"]


class FhirOptions(HttpOptions, frozen=True, kw_only=True):
    """A FHIR R4 server."""

    bundle_rows: Annotated[int, option("Observations of one transaction; 1 puts each for itself")] = 1
    key: Annotated[Key, option("put by our ids, or by identifier where the server gives ids")] = "id"
    device: Annotated[str, option("reference of this device in the server; empty: by identifier")] = ""
    codes: Annotated[dict[str, Coding], option("codes of classes, rules, models, fields")] = msgspec.field(
        default_factory=dict
    )


class FhirSink:
    """A `Sink` on one server."""

    def __init__(self, options: FhirOptions, context: SinkContext) -> None:
        self._options = options
        self._base = options.url.rstrip("/")
        self._client = HttpClient(options, context.directory, context.clock, explain=_explain)
        self.batch_rows = options.bundle_rows

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Put them; a transaction is taken as a whole or not at all."""
        if self._options.bundle_rows == 1:
            for one in batch:
                self._client.send("PUT", f"{self._base}/{self._place(one)}", as_json(self._resource(one)), _HEADERS)
        else:
            self._client.send("POST", self._base, as_json(self._bundle(batch)), _HEADERS)

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """The requests."""
        if self._options.bundle_rows == 1:
            return "".join(f"PUT {self._base}/{self._place(one)}\n{_shown(self._resource(one))}\n" for one in batch)
        return f"POST {self._base}\n{_shown(self._bundle(batch))}\n"

    def _resource(self, one: Outgoing) -> Json:
        by_id = self._options.key == "id"
        return observation(one, self._options.codes, self._options.device, with_id=by_id)

    def _place(self, one: Outgoing) -> str:
        if self._options.key == "id":
            return f"Observation/{one.id}"
        return f"Observation?identifier={quote(f'{URN}|{one.id.urn}', safe='')}"

    def _bundle(self, batch: Sequence[Outgoing]) -> Json:
        """A transaction; a row of the buffer is in a batch once, and so is its resource."""
        entries = [
            {
                "fullUrl": one.id.urn,
                "resource": self._resource(one),
                "request": {"method": "PUT", "url": self._place(one)},
            }
            for one in batch
        ]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _explain(body: bytes) -> str:
    try:
        return outcome_sentence(body)
    except MalformedError:
        return ""  # a proxy's page says nothing about a resource


def _shown(resource: Json) -> str:
    return json.dumps(resource, ensure_ascii=False, indent=2)


def _build(options: FhirOptions, context: SinkContext) -> FhirSink:
    if not 1 <= options.bundle_rows <= MAX_BUNDLE_ROWS:
        raise ConfigError("sink-config", f"sink {options.name}: bundle_rows must be 1 to {MAX_BUNDLE_ROWS}")
    return FhirSink(options, context)


KIND: Final = SinkKind(FhirOptions, _build)
