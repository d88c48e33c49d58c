"""A network and machines that fail: everything that can happen to a message or a process, as operations.

An operation is a list of plain values, so that a schedule can be stored, read and run again:

    ["deliver", message, fuse]   hand over a message; with a fuse, the receiver dies at its fuse-th crash point
    ["drop", message]  ["duplicate", message]
    ["poll", party]              a device or trustee dials out
    ["crash", party]             the process dies; durable state and RAM-backed storage stay
    ["reboot", party]            the machine restarts: RAM-backed storage is gone too
    ["start", party]             the process comes back
    ["round", hasty]             the coordinator plans the next round, where the last one has ended; a hasty one does
                                 not wait until its trustees have let go of their keys
    ["seal", cohort]  ["stop", cohort]
    ["second-set", cohort, trustee, victim]  a malicious coordinator asks one trustee for the set without one device
    ["mixed-reveal", cohort]     and then asks for answers on votes for both sets
    ["deny"]                     and tells the next device whose upload it keeps that it came too late
    ["settle"]                   no faults until nothing moves any more
"""

from __future__ import annotations

from dataclasses import dataclass


class Crash(Exception):  # noqa: N818  # a power cut is not an error of the program
    """The process that is at work dies here."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something on its way."""

    number: int
    sender: str
    receiver: str
    kind: str
    body: object


class Network:
    """Messages in flight, in any order."""

    def __init__(self) -> None:
        self.in_flight: dict[int, Message] = {}
        self._count = 0

    def send(self, sender: str, receiver: str, kind: str, body: object) -> None:
        self._count += 1
        self.in_flight[self._count] = Message(self._count, sender, receiver, kind, body)

    def take(self, number: int) -> Message | None:
        return self.in_flight.pop(number, None)

    def duplicate(self, number: int) -> None:
        known = self.in_flight.get(number)
        if known is not None:
            self.send(known.sender, known.receiver, known.kind, known.body)


class Party:
    """A process with durable state. `self.point()` stands wherever a power cut makes a difference."""

    def __init__(self, name: str, network: Network) -> None:
        self.name, self.network = name, network
        self.up = True
        self._fuse: int | None = None

    def point(self) -> None:
        """A place where the process may die."""
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse < 0:
                raise Crash

    def send(self, receiver: str, kind: str, body: object) -> None:
        self.point()
        self.network.send(self.name, receiver, kind, body)

    def work(self, message: Message, fuse: int | None) -> None:
        """Handle a message, or die of it."""
        self._fuse = fuse
        try:
            getattr(self, "on_" + message.kind)(message.body)
        except Crash:
            self.crash()
        finally:
            self._fuse = None

    def crash(self) -> None:
        self.up = False
        self.forget()

    def start(self) -> None:
        if not self.up:
            self.up = True
            self.recover()

    def forget(self) -> None:
        """Lose what was in memory only."""

    def recover(self) -> None:
        """Put things in step after a start."""

    def poll(self) -> None:
        """Dial out."""
