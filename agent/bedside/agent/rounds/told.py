"""What the coordinator is told about a refusal or a fault: a code, and the one sentence that belongs to it.

Invariants:
    * No code that is told separates a lack of examples from one of sessions, memory or time.
    * No sentence here depends on this device: local counts, paths and a child's last words stay in its own log,
      journal and local API.
    * What is judged before any sample was looked at tells its own sentence: it holds the plan's numbers and the
      site's rules, both of which the coordinator may know.

Source: DESIGN sections 5 and 8.
"""

from __future__ import annotations

from typing import Final

from bedside.core.errors import BedsideError, ConfigError, StoreError

NOT_ENOUGH: Final = "not-enough-here"
_COUNTED: Final = frozenset(
    {"too-few-examples", "too-few-sessions", "unaffordable-memory", "unaffordable-time", "child-timeout", "diverged"}
)
"""Reasons that depend on how many examples and sessions a device has, or on what they hold: told apart, they would tell
how many, or which."""

_SENTENCES: Final = {
    NOT_ENOUGH: "the plan wants more examples, sessions, memory or time than are here, or it leads to nothing",
    "round-closed": "the round had closed before this device could train",
    "training-disabled": "this device only infers; its configuration says so",
    "training-impossible": "this device only infers: onnxruntime is not installed on it",
    "child-died": "the training process ended without a result",
    "blob-digest": "the model did not arrive as the plan names it",
    "blob-size": "the model is larger than the plan says",
    "bad-parameters": "the checkpoint does not fit the model",
    "too-many-models": "as many models serve here as can beside each other",
    "no-such-graph": "the model cannot be trained as the plan says",
    "golden-mismatch": "the model does not compute here what its author computed",
}
_OTHERWISE: Final = "this device does not take part; its own log says why"

_FAULTS: Final = {
    "ingest": "a source is missing, silent or failing",
    "buffer": "the buffer does not take everything",
    "inference": "not every model serves as it should",
    "trainer": "the last training failed",
    "link": "the link does not work as it should",
    "sinks": "a sink delivers nothing, or has left rows out",
    "config": "the configuration as its file stands is not in force",
    "trustee": "this device refused what its own site's trustee signed",
}

_WAITS: Final = {
    "temperature": "training waits: the device is too warm",
    "throttling": "training waits: the processor is throttled, or the supply's voltage is low",
    "power": "training waits for mains power",
    "load": "training waits: the device is busy",
    "hours": "training waits for its hours",
}
"""Sessions and alarms are not spoken of: they tell who lies in which bed."""


def told_wait(gate: str | None) -> str:
    """The sentence of a gate that training waits for; empty for one that is not told."""
    return _WAITS.get(gate or "", "")


def told_as(code: str) -> str:
    """The code under which one is told: every reason that depends on the examples is told alike."""
    return NOT_ENOUGH if code in _COUNTED else code


def told_code(code: str) -> str:
    """The sentence that belongs to a code."""
    return _SENTENCES.get(told_as(code), _OTHERWISE)


def told_judgement(error: BedsideError) -> str:
    """The sentence of an error by which an offer was judged; a file of this machine is not spoken of."""
    return told_code(error.code) if isinstance(error, ConfigError | StoreError) else error.sentence


def told_fault(component: str) -> str:
    """The sentence of a component that is not well."""
    return _FAULTS.get(component, _OTHERWISE)
