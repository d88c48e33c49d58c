"""docs/units.md: what it says of units, reloads and credentials is so."""

from __future__ import annotations

import re
from pathlib import Path

from bedside.agent.buffer.keys import CREDENTIAL, OLD_CREDENTIAL
from bedside.agent.config import AgentConfig
from bedside.agent.reload import LIVE
from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.reload import BOUND_AT_START

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "units.md").read_text()
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))


def words(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_unit_has_its_row() -> None:
    for unit in UNITS:
        text = unit.read_text()
        user, state = (re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)[0] for key in ("User", "StateDirectory"))
        assert f"| `{unit.stem}` | `{user}` | `/var/lib/{state}` |" in PAGE


def test_every_key_of_agent_toml_is_either_taken_up_or_named_as_needing_a_restart() -> None:
    rows = dict(re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE))
    (waits,) = [row for row, what in rows.items() if what.startswith("not: the reload names them")]
    taken = set().union(*(words(row) for row, what in rows.items() if words(row) <= set(LIVE)))
    assert taken == set(LIVE)
    assert words(waits) == set(AgentConfig.__struct_fields__) - set(LIVE)


def test_what_a_coordinator_does_not_take_up_is_named() -> None:
    (sentence,) = re.findall(r"For (.*?), and for a new federation document", PAGE)
    assert words(sentence) == set(BOUND_AT_START)
    assert words(sentence) <= set(CoordinatorConfig.__struct_fields__)


def test_the_limits_that_it_tells_are_those_of_the_units() -> None:
    agent = next(unit for unit in UNITS if unit.stem == "bedside-agent").read_text()
    trustee = next(unit for unit in UNITS if unit.stem == "bedside-trustee").read_text()
    assert "MemoryMax=1200M" in agent
    assert "1200 MB (`MemoryMax=`)" in PAGE
    assert "WatchdogSec=30s" in agent
    assert "WatchdogSec=2min" in trustee
    assert "30 s without it (trustee: two minutes)" in PAGE
    for credential in (CREDENTIAL, OLD_CREDENTIAL):
        assert f"`{credential}`" in PAGE
        assert f"LoadCredentialEncrypted={credential}\n" in agent


def test_every_drop_in_and_every_link_is_there() -> None:
    for name in set(re.findall(r"`([a-z]+\.conf)`", PAGE)):
        assert list((ROOT / "packaging").rglob(name)), name
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
