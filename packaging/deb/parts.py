"""The three packages with code: which parts of Bedside each carries, what it requires, and how it describes itself."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

REPOSITORY: Final = Path(__file__).parents[2]
LOCKS: Final = REPOSITORY / "packaging" / "locks"


@dataclass(frozen=True)
class Part:
    """One package.

    Attributes:
        name: agent, trustee or coordinator.
        roots: source roots that it carries; no others are in it.
        only: names of the base requirements that it needs; empty for all.
        extras: extras of pyproject.toml that it needs too.
        template: `module:name` of the configuration that it ships, a string or a function without arguments; see
            `template_place`.
        summary: first line of its description.
        description: the lines below.
    """

    name: str
    roots: tuple[str, ...]
    only: frozenset[str]
    extras: tuple[str, ...]
    template: str
    summary: str
    description: str

    @property
    def package(self) -> str:
        """The Debian package, also the unit and the system user."""
        return f"bedside-{self.name}"

    @property
    def home(self) -> str:
        """The virtual environment, without a leading slash."""
        return f"opt/bedside/{self.name}"

    @property
    def template_place(self) -> str:
        """Where its template goes, without a leading slash.

        A policy is the site's, of its devices and its trustee alike, and so no package's: tmpfiles.d copies the
        template to /etc where there is none.
        """
        return f"usr/share/{self.package}/policy.toml" if self.name == "trustee" else f"etc/bedside/{self.name}.toml"

    def lock(self, target_name: str) -> Path:
        """The hashed requirements for one target."""
        return LOCKS / f"{self.name}-{target_name}.txt"

    def requirements(self) -> list[str]:
        """What pyproject.toml asks for on behalf of this part, sorted."""
        declared = project()
        base = [text for text in declared["dependencies"] if not self.only or Requirement(text).name in self.only]
        extra = [text for name in self.extras for text in declared["optional-dependencies"][name]]
        return sorted({*base, *extra})


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    return table


_ANY_SERVICE: Final = frozenset(
    {
        "blake3",
        "click",
        "cryptography",
        "grpcio",
        "grpcio-health-checking",
        "msgspec",
        "numpy",
        "protobuf",
        "pynacl",
        "rich",
    }
)
"""Of the base requirements, what `core`, `service`, a trustee and a coordinator import."""

PARTS: Final = (
    Part(
        name="agent",
        roots=("protos", "core", "service", "firmware_bridge", "ondevice", "agent"),
        only=frozenset(),
        extras=(),
        template="bedside.agent.config:TEMPLATE",
        summary="federated learning that stays at the bedside: the agent of a device",
        description="Reads sensors and monitors, keeps their signal in a bounded, sealed buffer,\n"
        "predicts, raises alarms, and learns with other hospitals without a patient's\n"
        "signal leaving this machine.",
    ),
    Part(
        name="trustee",
        roots=("protos", "core", "service", "trustee"),
        only=_ANY_SERVICE,
        extras=(),
        template="bedside.trustee.site.founding:POLICY_TEMPLATE",
        summary="federated learning that stays at the bedside: a hospital's trustee",
        description="Holds a hospital's policy, approves its devices, and opens sums of masked\n"
        "updates, never a single one. It dials out only.",
    ),
    Part(
        name="coordinator",
        roots=("protos", "core", "service", "coordinator"),
        only=_ANY_SERVICE,
        extras=("coordinator", "postgres", "privacy"),
        template="bedside.coordinator.config:default_toml",
        summary="federated learning that stays at the bedside: the coordinator",
        description="Plans rounds, adds up masked updates that it cannot read, publishes models and\n"
        "keeps the log that every trustee checks.",
    ),
)
