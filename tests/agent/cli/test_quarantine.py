"""`bedside agent quarantine`: what was not understood, and what to do about it."""

from __future__ import annotations

from bedside.agent.buffer.configured import open_store
from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.cli.quarantine import REMEDIES
from bedside.agent.config import load_agent_config
from bedside.core.samples import Unmapped
from bedside.core.vocabulary.reading import Reason
from bedside.service.platform import SystemClock, SystemEntropy

T0 = 1_700_000_000_000_000_000


def test_every_reason_has_a_remedy_in_a_sentence() -> None:
    assert REMEDIES.keys() == set(Reason)
    assert all(len(words.split()) >= 8 for words in REMEDIES.values())


def fill(path) -> None:
    keys = load_key_ring(path / "state" / "identity")
    store = open_store(load_agent_config(path), keys, SystemClock(), SystemEntropy())
    store.quarantine(Unmapped("his", "unknown-code", "puls [1/min]", T0, 40))
    store.quarantine(Unmapped("his", "bad-time", "147842^MDC", T0, 2))
    store.quarantine(Unmapped("ward", "unknown-code", "temp", T0, 7))
    store.close()


def test_it_is_listed_with_what_to_do_and_cleared_with_and_without_the_agent(device, typed) -> None:
    fill(device.path)
    shown = typed(device.path)
    text = shown.say("quarantine")
    assert "unknown-code: say what the code is" in text
    assert text.count("unknown-code: ") == 1
    assert "puls [1/min]" in text
    found = shown.json("quarantine --source his --reason unknown-code")
    assert [(one["what"], one["count"], one["remedy"]) for one in found] == [
        ("puls [1/min]", 40, REMEDIES[Reason.UNKNOWN_CODE])
    ]
    assert [one["what"] for one in shown.json("quarantine clear --source ward")] == ["temp"]
    device.start()
    device.await_predictions()
    assert len(shown.json("quarantine list")) == 2
    assert "147842^MDC" in shown.say("quarantine clear --reason bad-time")
    assert [one["reason"] for one in shown.json("quarantine")] == ["unknown-code"]
    assert [one["what"] for one in shown.json("quarantine clear")] == ["puls [1/min]"]
    assert "every reading was understood" in shown.say("quarantine")
    assert "there was nothing to clear" in shown.say("quarantine clear")
    assert shown.call("quarantine --reason no-such").returncode == 64
    assert "the sources are " in shown.refused("quarantine --source nosuch", "no-such-source")
