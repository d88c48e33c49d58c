"""One schedule: parties, a network, and operations drawn from a seed or read from a list."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sim_coordinator import ENDED, SimCoordinator
from sim_device import WAITING, SimDevice
from sim_network import Network, Party
from sim_oracle import Oracle, require
from sim_stage import COHORT_SITES, DEVICES, DEVICES_OF, ROUNDS, WORD_BITS, Stage
from sim_trustee import SimTrustee

from bedside.core.securesum.aggregator import CohortInput, CohortPhase
from bedside.trustee.store import RoundKey

Operation = Sequence[str | int | None]
_MAX_STEPS = 420
_MAX_SETTLING = 60


@dataclass(frozen=True, slots=True)
class Weather:
    """How often things go wrong, per step."""

    drop: float
    duplicate: float
    crash: float
    reboot: float
    fuse: float
    stop: float
    seal: float
    second_set: float


CALM = Weather(0.01, 0.02, 0.002, 0.0, 0.01, 0.0, 0.004, 0.004)
ROUGH = Weather(0.05, 0.05, 0.01, 0.002, 0.03, 0.003, 0.008, 0.01)
STORM = Weather(0.15, 0.10, 0.02, 0.01, 0.08, 0.006, 0.015, 0.02)


class Simulation:
    """A federation in which everything may fail. Safety is judged all along, liveness after the tail."""

    open_states = WAITING

    def __init__(self, stage: Stage, seed: int) -> None:
        self.seed = seed
        self.oracle = Oracle()
        self.network = Network()
        watch = self.oracle.watch
        word_bits = WORD_BITS[seed % len(WORD_BITS)]
        self.coordinator = SimCoordinator(stage, word_bits, self.network, watch)
        self.devices = [SimDevice(stage, number, seed, self.network, watch) for number in range(DEVICES)]
        self.trustees = {site: SimTrustee(stage, site, seed, self.network, watch) for site in DEVICES_OF}
        self.clients: list[Party] = [*self.devices, *self.trustees.values()]
        self.parties: dict[str, Party] = {party.name: party for party in (self.coordinator, *self.clients)}
        self.done: list[Operation] = []
        self._progress: dict[RoundKey, tuple[object, ...]] = {}

    def run(self, operations: Iterable[Operation] | None = None) -> Simulation:
        """Run drawn operations, or given ones; then a tail without faults; then judge."""
        for operation in operations if operations is not None else self._drawn():
            self.apply(operation)
        self.settle()
        self.oracle.judge(self)
        self.oracle.judge_liveness(self)
        return self

    def apply(self, operation: Operation) -> None:
        """Do one thing; what no longer makes sense does nothing, so that lists can be shortened."""
        self.done.append(operation)
        name, *arguments = operation
        getattr(self, "do_" + str(name).replace("-", "_"))(*arguments)

    def do_deliver(self, number: int, fuse: int | None = None) -> None:
        message = self.network.take(number)
        if message is not None and self.parties[message.receiver].up:
            self.parties[message.receiver].work(message, fuse)

    def do_drop(self, number: int) -> None:
        self.network.take(number)

    def do_duplicate(self, number: int) -> None:
        self.network.duplicate(number)

    def do_poll(self, name: str) -> None:
        if self.parties[name].up:
            self.parties[name].poll()

    def do_crash(self, name: str) -> None:
        self.parties[name].crash()

    def do_reboot(self, name: str) -> None:
        trustee = self.parties[name]
        if isinstance(trustee, SimTrustee):
            trustee.reboot()

    def do_start(self, name: str) -> None:
        self.parties[name].start()

    def do_round(self, hasty: bool = False) -> None:
        if self.coordinator.up and len(self.coordinator.rounds) < ROUNDS:
            self.coordinator.begin_round(hasty)

    def do_seal(self, cohort: int) -> None:
        if self.coordinator.up and self.coordinator.rounds:
            round_ = self.coordinator.rounds[-1]
            self.coordinator.seal(round_, round_.cohorts[cohort])

    def do_stop(self, cohort: int) -> None:
        if self.coordinator.up and self.coordinator.rounds:
            self.coordinator.stop(self.coordinator.rounds[-1].cohorts[cohort])

    def do_second_set(self, cohort: int, site: str, victim: int) -> None:
        if self.coordinator.up and self.coordinator.rounds:
            self.coordinator.second_set(self.coordinator.rounds[-1].cohorts[cohort], site, victim)

    def do_mixed_reveal(self, cohort: int) -> None:
        if self.coordinator.up and self.coordinator.rounds:
            self.coordinator.mixed_reveal(self.coordinator.rounds[-1].cohorts[cohort])

    def do_deny(self) -> None:
        self.coordinator.denials += 1

    def do_settle(self) -> None:
        self.settle()

    def settle(self) -> None:
        """No faults: everybody is up and calls, everything arrives; what then still waits is closed."""
        for _ in range(_MAX_SETTLING):
            for party in self.parties.values():
                party.start()
            for client in self.clients:
                client.poll()
            while self.network.in_flight:
                self.do_deliver(next(iter(self.network.in_flight)))
            if not self._waiting():
                break
            self._hurry()
        require(not self._waiting(), "the tail without faults does not come to rest")

    def _waiting(self) -> bool:
        owed = any(made.state in WAITING for d in self.devices for made in d.journal.contributions.values())
        keys = any(trustee.ram.secrets for trustee in self.trustees.values())
        return owed or keys or not all(round_.ended for round_ in self.coordinator.rounds)

    def _hurry(self) -> None:
        """Deadlines pass: seal what collects when all have called, give up what makes no progress."""
        round_ = self.coordinator.rounds[-1]
        for cohort in round_.cohorts:
            before = (cohort.phase, len(cohort.words), len(cohort.uploads))
            if before != self._progress.get(cohort.key):
                self._progress[cohort.key] = before
            elif cohort.phase is CohortPhase.COLLECTING:
                self.coordinator.seal(round_, cohort)
            elif cohort.phase not in ENDED:
                self.coordinator.stop(cohort, CohortInput.TIMED_OUT)

    def _drawn(self) -> Iterator[Operation]:
        draw = random.Random(self.seed)
        for number in range(1, ROUNDS + 1):
            last_is_clean = number == ROUNDS and draw.random() < 0.5
            if last_is_clean or draw.random() < 0.3:
                yield ("settle",)
            yield ("round", not last_is_clean and draw.random() < 0.4)
            if last_is_clean:
                continue
            weather = draw.choice((CALM, ROUGH, ROUGH, STORM))
            for _ in range(_MAX_STEPS):
                if (
                    len(self.coordinator.rounds) == number
                    and self.coordinator.rounds[-1].ended
                    and draw.random() < 0.05
                ):
                    break
                yield from self._step(draw, weather)

    def _step(self, draw: random.Random, weather: Weather) -> Iterator[Operation]:
        chance = draw.random()
        if chance < weather.crash:
            yield ("crash", draw.choice(list(self.parties)))
        elif chance < weather.crash + weather.reboot:
            yield ("reboot", f"trustee {draw.choice(list(self.trustees))}")
        elif chance < weather.crash + weather.reboot + weather.stop:
            yield ("stop", draw.randrange(len(COHORT_SITES)))
        if draw.random() < 0.15:
            down = [party.name for party in self.parties.values() if not party.up]
            if down:
                yield ("start", draw.choice(down))
        if draw.random() < weather.seal:
            yield ("seal", draw.randrange(len(COHORT_SITES)))
        yield from self._malice(draw, weather)
        if draw.random() < 0.02:
            yield ("round", draw.random() < 0.3)
        yield self._traffic(draw, weather)

    def _malice(self, draw: random.Random, weather: Weather) -> Iterator[Operation]:
        if draw.random() < weather.second_set:
            yield ("deny",)
        if draw.random() < 0.2 and self.coordinator.rounds:
            for index, cohort in enumerate(self.coordinator.rounds[-1].cohorts):
                if (
                    cohort.phase in (CohortPhase.SEALED, CohortPhase.REVEALING)
                    and draw.random() < weather.second_set * 10
                ):
                    yield ("second-set", index, draw.choice(cohort.sites), draw.choice(cohort.members))
                if cohort.strays and draw.random() < 0.6:
                    yield ("mixed-reveal", index)

    def _traffic(self, draw: random.Random, weather: Weather) -> Operation:
        waiting = list(self.network.in_flight)
        if not waiting or draw.random() < 0.25:
            return ("poll", draw.choice(self.clients).name if draw.random() < 0.7 else self._a_trustee(draw))
        number = waiting[min(int(draw.expovariate(0.15)), len(waiting) - 1)]
        chance = draw.random()
        if chance < weather.drop:
            return ("drop", number)
        if chance < weather.drop + weather.duplicate:
            return ("duplicate", number)
        return ("deliver", number, draw.randrange(5) if draw.random() < weather.fuse else None)

    def _a_trustee(self, draw: random.Random) -> str:
        return f"trustee {draw.choice(list(self.trustees))}"
