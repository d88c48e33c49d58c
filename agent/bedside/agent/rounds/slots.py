"""Which models serve: one note, `active.json`, that is replaced durably.

A *slot* is a model's name in its manifest. What comes under the same name (a round's result, a newer bundle) replaces
that slot's model; another name is another slot.

Invariants:
    * The note changes after the files that it names are on the disk, so that after any power cut the last verified
      models serve again, without a coordinator.
    * There are never more than `MAX_SLOTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from bedside.core.errors import RefusedError, StoreError
from bedside.core.limits import MAX_WIRE_INTEGER
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import read_regular, write_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NOTE_NAME: Final = "active.json"
MAX_SLOTS: Final = 16
"""Models that serve beside each other: each has a session in memory and a queue."""
_MAX_NOTE_BYTES: Final = 1 << 20
UNNAMED: Final = ""
"""Slot of a note that held one model and not its name; it goes when its model is activated under its name."""

Stage = Literal["gate", "shadow", "held"]
Outcome = Literal[
    "passed",
    "refused",
    "not-judged",
    "uncompared",
    "agreed",
    "disagreed",
    "failed",
    "rolled-back",
    "by-hand",
    "rejected",
]
"""What was decided about a model.

`passed`, `refused`, `not-judged`, and `uncompared` where there are labels and no comparison came of them: by the
accuracy gate; `agreed`, `disagreed`: in the shadow; `failed`: at work or in
the shadow; `rolled-back`, `by-hand` (promoted or accepted), `rejected`: by somebody.
"""


class ActiveModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model serves.

    Attributes:
        bundle: hexadecimal digest of the manifest.
        checkpoint: hexadecimal digest of the parameters; empty for the bundle's own.
        signer_pks: hexadecimal keys under which the bundle was accepted.
    """

    bundle: str
    checkpoint: str
    signer_pks: tuple[str, ...]

    def __post_init__(self) -> None:
        for text in (self.bundle, self.checkpoint, *self.signer_pks):
            bytes.fromhex(text)

    @property
    def name(self) -> str:
        """The checkpoint's digest, or the bundle's, in hexadecimal."""
        return self.checkpoint or self.bundle

    @property
    def digest(self) -> bytes:
        """What predictions carry: `name` in bytes (32)."""
        return bytes.fromhex(self.name)

    def same(self, other: ActiveModel) -> bool:
        """Whether both are one model, under whatever keys they were accepted."""
        return (self.bundle, self.checkpoint) == (other.bundle, other.checkpoint)


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configured file that a slot began with.

    Attributes:
        path: as the configuration names it; empty when a plan brought the model.
        file: hexadecimal BLAKE2b-256 of its bytes when it was accepted, so that another file there is news.
    """

    path: str = ""
    file: str = ""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that may come to serve.

    Attributes:
        model: which.
        stage: `gate`: it is to be compared on local validation windows; `shadow`: it runs beside the one that serves;
            `held`: somebody must decide.
        origin: the configured file that it came from; None when a plan or a result brought it.
    """

    model: ActiveModel
    stage: Stage = "gate"
    origin: Origin | None = None


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was decided about a model. The numbers stay on this device.

    Attributes:
        model: hexadecimal digest of its checkpoint or bundle.
        outcome: what was decided.
        sentence: why.
        score: what `old` and `new` are, for instance `accuracy`; empty where nothing was measured.
        windows: validation windows, or windows of the shadow run.
        old: score of the model that served; None where nothing was measured.
        new: score of this one; likewise.
        at_s: Unix time.
    """

    model: str
    outcome: Outcome
    sentence: str
    score: str = ""
    windows: int = 0
    old: float | None = None
    new: float | None = None
    at_s: int = 0

    def __post_init__(self) -> None:
        bytes.fromhex(self.model)
        if not 0 <= min(self.windows, self.at_s) <= max(self.windows, self.at_s) <= MAX_WIRE_INTEGER:
            raise ValueError("a number of windows or a time is out of bounds")


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What serves under one name, where it came from, and what could serve instead.

    Attributes:
        model: serves.
        origin: the configured file that it began with.
        previous: the last known good one: what a rollback returns to; None after one, and at the beginning.
        candidate: may come to serve.
        waiting: came while another candidate ran in the shadow; it is next.
        withdrawn: refused, rejected or rolled back, the newest last: these do not come back by themselves.
        verdicts: the last decisions, the newest last.
        lost: the newest checkpoint could not be read, and its result is wanted again.
    """

    model: ActiveModel
    origin: Origin = Origin()
    previous: ActiveModel | None = None
    candidate: Candidate | None = None
    waiting: Candidate | None = None
    withdrawn: tuple[ActiveModel, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    lost: bool = False

    def needed(self) -> tuple[ActiveModel, ...]:
        """The models whose files stay; of those that were withdrawn the newest, which somebody may still accept."""
        beside = (self.candidate, self.waiting)
        others = (self.previous, *(one.model for one in beside if one is not None), *self.withdrawn[-1:])
        return (self.model, *(one for one in others if one is not None))


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: dict[str, Slot]


class SlotNote:
    """Reads and writes the note at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[str, Slot] | None = None

    def read(self) -> dict[str, Slot]:
        """Slots by name, the oldest first; a note of one model, as it was before there were slots, is `UNNAMED`.

        Raises:
            StoreError: `active-model` when the note is damaged.
        """
        if self._unwritten is not None:
            return self._unwritten
        if not self._path.exists():
            return {}
        try:
            data = read_regular(self._path, _MAX_NOTE_BYTES)
            if "slots" in msgspec.json.decode(data, type=dict[str, msgspec.Raw]):
                return msgspec.json.decode(data, type=_Note).slots
            return {UNNAMED: Slot(msgspec.json.decode(data, type=ActiveModel))}
        except (*UNREADABLE, OSError) as error:
            raise StoreError("active-model", f"{self._path} is damaged: {error}", remedy="remove it") from error

    def known(self) -> dict[str, Slot]:
        """As `read`; empty as well for a note that is damaged."""
        try:
            return self.read()
        except StoreError:
            return {}

    def put(self, name: str, model: ActiveModel, origin: Origin | None) -> dict[str, Slot]:
        """Note durably what serves under a name and return every slot; the origin stays unless another is given.

        Raises:
            RefusedError: `too-many-models`.
        """

        def replaced(slot: Slot | None) -> Slot:
            if slot is None:
                return Slot(model, origin or Origin())
            return msgspec.structs.replace(slot, model=model, origin=origin or slot.origin)

        return self.update(name, replaced)

    def update(self, name: str, change: Callable[[Slot | None], Slot], *, insist: bool = False) -> dict[str, Slot]:
        """Note durably what `change` makes of a name's slot, and return every slot.

        Args:
            name: of the slot.
            change: is given None while there is no such slot.
            insist: hold to the change until this process ends also where the disk does not take it.

        Raises:
            RefusedError: `too-many-models`, or what `change` refuses.
            StoreError: `file-write`: the note is what it was, and with `insist` only the disk's.
        """
        before = self.known()
        slots = {known: slot for known, slot in before.items() if known != UNNAMED}
        check_room(slots, name)
        slots[name] = change(slots.get(name))
        self._write(before, slots, insist=insist)
        return slots

    def drop(self, name: str) -> dict[str, Slot]:
        """Note durably that nothing serves under a name, and return the slots that are left."""
        before = self.known()
        slots = {known: slot for known, slot in before.items() if known != name}
        self._write(before, slots)
        return slots

    def _write(self, before: Mapping[str, Slot], after: dict[str, Slot], *, insist: bool = False) -> None:
        if before == after and self._unwritten is None:
            return  # at a start nothing is written, so that a full disk does not matter
        try:
            write_durable(self._path, msgspec.json.encode(_Note(after)))
        except StoreError:
            self._unwritten = after if insist else self._unwritten
            raise
        self._unwritten = None


def check_room(slots: Mapping[str, object], name: str) -> None:
    """Refuse one name too many.

    Raises:
        RefusedError: `too-many-models`.
    """
    if name not in slots and len(slots) >= MAX_SLOTS:
        raise RefusedError(
            "too-many-models",
            f"{MAX_SLOTS} models serve already; there is no room for {name}",
            remedy="take one out of [[models]] in agent.toml and start the agent again",
        )
