"""The steps of a set-up in their order, and what is said of each.

Invariants:
    * Root checks, asks, and speaks to the service manager. Whatever makes a file or reads from the network is done as
      the user that the device belongs to.
    * A token is neither shown nor kept: it is in memory, and, signed over, in the request.
    * Each step looks at what is there first, so that an interrupted set-up goes on, and a second one changes nothing.
"""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec

from bedside.agent.cli.looking import await_answer, health_words
from bedside.agent.doctor import PART
from bedside.agent.setup import preparing
from bedside.agent.setup.preparing import (
    DIRECTORY_MODE,
    Standing,
    identity_in,
    is_prepared,
    policy_is_missing,
    prepare_device,
    standing_of,
    take_policy,
)
from bedside.agent.setup.token import find_token
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.account import account_of, run_as
from bedside.service.doctor.check import LEVEL_WORDS, Finding, Place
from bedside.service.doctor.command import examine_as_owner, show
from bedside.service.doctor.machine import MACHINE
from bedside.service.doctor.storage import nearest
from bedside.service.files import write_durable
from bedside.service.health import Level
from bedside.service.output import emit
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.systemd import PROXIES, Unit, find_unit, keep_proxies, start_unit

if TYPE_CHECKING:
    from bedside.core.signing.tokens import BearerToken

WAITS_STATUS: Final = 75
"""EX_TEMPFAIL: the site has not approved the device yet."""
START_S: Final = 60.0
"""Seconds in which an agent that was started answers."""
SETTLE_S: Final = 10.0
"""Seconds more for it to be well; a device without sources is not."""

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says.

    Attributes:
        token_place: where the token lies; empty to ask, or to go on with what was asked for.
        label: for the site's lists.
        policy: bytes of the site's policy; empty to leave what is there.
        wait_s: seconds to wait for approval; None as long as somebody waits.
        asks: whether a person can be asked.
        force: go on where the machine is unfit.
        as_json: print one document at the end instead of lines.
    """

    token_place: str
    label: str
    policy: bytes
    wait_s: float | None
    asks: bool
    force: bool
    as_json: bool


class FirstRun:
    """One set-up of one device."""

    def __init__(self, directory: Path, wishes: Wishes) -> None:
        self._directory = directory.absolute()
        self._wishes = wishes
        unit = find_unit(PART.unit)
        self._unit = unit if unit is not None and unit.runs(self._directory) else None
        self._account = account_of(self._directory, PART.unit, self._unit.groups if self._unit is not None else ())
        self._report: dict[str, object] = {"state": "", "directory": str(self._directory)}

    def run(self) -> int:
        """Take every step that is left; returns the exit status.

        Raises:
            BedsideError: of the step that failed.
        """
        self._check_rights()
        known = self._known()
        if known is not None and known.phase in ("enrolled", "alone") and self._is_served():
            self._note(known)
            self._take_policy()
            again = self._unit is not None and self._keep_proxy(self._unit)
            if again:
                start_unit(PART.unit, again=True)
            changed = again or bool(self._wishes.policy)
            self._tell("already", "this device is set up" if changed else "this device is set up: nothing was changed")
            return self._finish(known, self._health(START_S if again else 0.0))
        self._check_machine()
        standing = self._prepare()
        self._take_policy()
        if standing.phase in ("new", "pending"):
            standing = self._join(standing)
        if standing.phase == "pending":
            return self._wait_later(standing)
        return self._finish(standing, self._start())

    def _check_rights(self) -> None:
        there = nearest(self._directory)
        mine = self._account.uid == os.geteuid() if there == self._directory else os.access(there, os.W_OK)
        if os.geteuid() != 0 and not mine:
            raise ConfigError(
                "not-yours",
                f"{self._directory} is not this user's to set up",
                remedy=f"sudo bedside agent setup {shlex.quote(str(self._directory))}",
            )
        if not all(os.environ.get(name, "").isprintable() for name in PROXIES):
            raise ConfigError(
                "bad-proxy",
                f"{' or '.join(PROXIES)} has a line break, or another character that nobody can read",
                remedy="correct it: it would become lines of the unit",
            )
        if "@" in os.environ.get("https_proxy", ""):
            raise ConfigError(
                "proxy-password",
                "https_proxy names a user or a password: they are not sent, and everybody could read them in the unit",
                remedy="name a proxy that lets this machine through without",
            )

    # The machine

    def _check_machine(self) -> None:
        place = Place(self._directory, SystemClock())
        findings = examine_as_owner(MACHINE, place, PART.unit) + examine_as_owner(PART.early, place, PART.unit)
        worse = [one for one in findings if one.level]
        failed = [one for one in worse if one.level is Level.FAILED]
        self._report["checks"] = [_fields(one) for one in worse]
        self._tell("machine", f"{len(findings)} checks, {len(worse) - len(failed)} to look at, {len(failed)} failed")
        if not self._wishes.as_json:
            show(worse)
        if failed and not self._wishes.force:
            raise ConfigError(
                "machine-unfit",
                "; ".join(f"{one.check}: {one.found}" for one in failed),
                remedy=f"{failed[0].remedy}; or say --force",
            )

    # Keys and files

    def _known(self) -> Standing | None:
        def look() -> Standing | None:
            return standing_of(self._directory) if is_prepared(self._directory) else None

        return self._as_owner(look, Standing | None) if self._directory.is_dir() else None  # type: ignore[arg-type]  # a union is a type to msgspec

    def _prepare(self) -> Standing:
        if self._account.is_other and not self._directory.exists():
            self._directory.mkdir(mode=DIRECTORY_MODE, parents=True)
            # Where others may write to what it lies in, a link may be there by now.
            os.chown(self._directory, self._account.uid, self._account.gid, follow_symlinks=False)

        def make() -> Standing:
            prepare_device(self._directory, SystemEntropy())
            return standing_of(self._directory)

        standing = self._as_owner(make, Standing)
        self._note(standing)
        return standing

    def _note(self, standing: Standing) -> None:
        self._report |= {"device": standing.device, "fingerprint": standing.fingerprint}
        self._tell("device", f"{standing.device} in {self._directory}")
        self._tell("fingerprint", standing.fingerprint)

    def _take_policy(self) -> None:
        if self._wishes.policy:
            shared = self._as_owner(lambda: take_policy(self._directory, self._wishes.policy), bool)
            if shared:  # a fixed name: nothing that the device's user has made decides where root writes
                write_durable(preparing.SHARED_POLICY, self._wishes.policy, preparing.CONFIG_MODE)
            self._tell("policy", f"copied to {preparing.SHARED_POLICY if shared else self._directory}")

    # The site

    def _join(self, standing: Standing) -> Standing:
        if standing.phase == "new" or self._wishes.token_place:
            bearer = find_token(self._wishes.token_place, asks=self._wishes.asks)
            self._show_site(bearer)
            self._try_ports(bearer)
            standing = self._enrol(bearer)
        else:
            self._tell("site", f"{standing.site}; {standing.enrolment_address} was asked before")
        return self._await_approval(standing) if standing.phase == "pending" else standing

    def _show_site(self, bearer: BearerToken) -> None:
        token = bearer.token
        self._report |= {"site": token.site, "federation": token.federation, "ca_fingerprint": token.ca_digest.hex()}
        self._tell("site", f"{token.site} of federation {token.federation}")
        self._tell("coordinator", f"{token.enrolment_address}, whose CA has the fingerprint {token.ca_digest.hex()}")
        if self._wishes.asks:
            click.confirm("Join this site?", default=True, abort=True)

    def _try_ports(self, bearer: BearerToken) -> None:
        """Both, before the token is shown to anybody."""
        from bedside.agent.setup.joining import find_service_port, try_service_port
        from bedside.service.doctor.reach import way

        first = bearer.token.enrolment_address
        self._tell("ports", f"outwards, TCP: {way(first, os.environ)} to enrol and to renew certificates")
        second = self._as_owner(lambda: asyncio.run(find_service_port(bearer)), str)
        self._report["ports"] = [one for one in (first, second) if one]
        if second:
            self._tell("", f"and {way(second, os.environ)} for everything else")
            self._as_owner(lambda: asyncio.run(try_service_port(second, bearer.token.ca_digest)), type(None))
        self._tell("", "they answer, and nobody inspects TLS on the way")

    def _enrol(self, bearer: BearerToken) -> Standing:
        from bedside.agent.setup.joining import join_site

        def enrol() -> Standing:
            identity = identity_in(self._directory)
            if identity.is_pinned and identity.request is None and identity.credential is None:
                identity.forget()  # of a set-up that was interrupted before it had asked
            text, clock = bearer.text(), SystemClock()
            asyncio.run(join_site(identity, text, self._wishes.label, 0.0, clock=clock, entropy=SystemEntropy()))
            return standing_of(self._directory)

        return self._as_owner(enrol, Standing)

    def _await_approval(self, standing: Standing) -> Standing:
        from bedside.agent.setup.joining import await_approval

        wait_s = self._wishes.wait_s if self._wishes.wait_s is not None else math.inf if self._wishes.asks else 0.0
        self._tell("approval", f"site {standing.site} compares the fingerprint {standing.fingerprint}, and types")
        self._tell("", f"bedside site approve DIRECTORY {standing.fingerprint}")

        def wait() -> Standing:
            seen: list[str] = []

            def tell(sentence: str) -> None:
                if sentence not in seen[-1:]:
                    seen.append(sentence)
                    self._tell("", f"{sentence} (Ctrl-C to go on later)" if wait_s else sentence)

            identity, clock = identity_in(self._directory), SystemClock()
            asyncio.run(await_approval(identity, wait_s, tell, clock=clock, entropy=SystemEntropy()))
            return standing_of(self._directory)

        return self._as_owner(wait, Standing)

    def _wait_later(self, standing: Standing) -> int:
        again = f"bedside agent setup {shlex.quote(str(self._directory))}"
        self._report |= {"state": "pending", "site": standing.site, "next": again}
        self._tell("next", f"{again}, when the site has approved it")
        self._emit()
        return WAITS_STATUS

    # The service

    def _start(self) -> tuple[str, str]:
        """Have the agent started where that can be done here; its health, or what is left to do."""
        if self._unit is None:
            return (
                self._health(0.0)
                if self._is_served()
                else ("", f"bedside agent run {shlex.quote(str(self._directory))}")
            )
        if os.geteuid() != 0:
            return "", f"sudo systemctl enable --now {self._unit.name}"
        changes = self._keep_proxy(self._unit)
        start_unit(self._unit.name, again=changes and self._unit.state == "active")
        self._tell("service", f"{self._unit.name} is started, now and with the machine")
        return self._health(START_S)

    def _keep_proxy(self, unit: Unit) -> bool:
        """Have the service keep a proxy that the environment names; whether it has to start again for that."""
        proxies = {name: os.environ[name] for name in PROXIES if os.environ.get(name)}
        if not proxies or proxies == unit.environment() or os.geteuid() != 0:
            return False
        self._tell("proxy", str(keep_proxies(unit.name, proxies)))
        return True

    def _health(self, wait_s: float) -> tuple[str, str]:
        """The agent's health in a word and a sentence.

        Raises:
            UnavailableError: `agent-silent`.
        """

        def ask() -> tuple[int, str, str]:
            return health_words(await_answer(self._directory, wait_s, SETTLE_S if wait_s else 0.0))

        try:
            _, word, sentence = self._as_owner(ask, tuple[int, str, str])
        except UnavailableError as error:
            raise UnavailableError(
                "agent-silent",
                f"the agent was started, and does not answer: {error.sentence}",
                remedy=f"journalctl -u {PART.unit} -n 50; sudo bedside doctor {shlex.quote(str(self._directory))}",
            ) from error
        return word, sentence

    def _is_served(self) -> bool:
        from bedside.agent.config import load_agent_config
        from bedside.agent.writer import is_served

        return self._as_owner(lambda: is_served(load_agent_config(self._directory).api.socket), bool)

    def _finish(self, standing: Standing, health: tuple[str, str]) -> int:
        word, sentence = health
        site = {"site": standing.site} if standing.site else {}
        self._report |= {"state": "running" if word else standing.phase, **site}
        if self._as_owner(lambda: policy_is_missing(self._directory), bool):
            self._report["missing"] = "policy.toml"
            self._tell("policy", "there is none: copy the site's to the device (--policy FILE), or it learns nothing")
        if word:
            self._report["health"] = {"state": word, "sentence": sentence}
            self._tell("health", f"{word.upper()} {sentence}")
        else:
            self._report["next"] = sentence
            self._tell("next", sentence)
        self._emit()
        return 0

    # What is common to the steps

    def _as_owner(self, work: Callable[[], object], kind: type[Told]) -> Told:
        return msgspec.json.decode(run_as(self._account, work), type=kind)

    def _tell(self, step: str, words: str) -> None:
        if not self._wishes.as_json:
            click.echo(f"{click.style(f'{step:<12}', bold=True)} {words}")
            sys.stdout.flush()

    def _emit(self) -> None:
        if self._wishes.as_json:
            emit(self._report, as_json=True)


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "level": LEVEL_WORDS[finding.level],
        "found": finding.found,
        "remedy": finding.remedy,
    }
