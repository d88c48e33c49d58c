"""Which models serve: one note, `active.json`, that is replaced durably.

A *slot* is a model's name in its manifest. What comes under the same name (a round's result, a newer bundle) replaces
that slot's model; another name is another slot.

Invariants:
    * The note changes after the files that it names are on the disk, so that after any power cut the last verified
      models serve again, without a coordinator.
    * There are never more than `MAX_SLOTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from bedside.core.errors import RefusedError, StoreError
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import read_regular, write_durable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOTE_NAME: Final = "active.json"
MAX_SLOTS: Final = 16
"""Models that serve beside each other: each has a session in memory and a queue."""
_MAX_NOTE_BYTES: Final = 1 << 20
UNNAMED: Final = ""
"""Slot of a note that held one model and not its name; it goes when its model is activated under its name."""


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
    def digest(self) -> bytes:
        """What predictions carry: the checkpoint's digest, or the bundle's (32 bytes)."""
        return bytes.fromhex(self.checkpoint or self.bundle)


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configured file that a slot began with.

    Attributes:
        path: as the configuration names it; empty when a plan brought the model.
        file: hexadecimal BLAKE2b-256 of its bytes when it was accepted, so that another file there is news.
    """

    path: str = ""
    file: str = ""


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What serves under one name, and where it came from."""

    model: ActiveModel
    origin: Origin = Origin()


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: dict[str, Slot]


class SlotNote:
    """Reads and writes the note at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Slot]:
        """Slots by name, the oldest first; a note of one model, as it was before there were slots, is `UNNAMED`.

        Raises:
            StoreError: `active-model` when the note is damaged.
        """
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
        before = self.known()
        slots = {known: slot for known, slot in before.items() if known != UNNAMED}
        check_room(slots, name)
        replaced = slots.get(name)
        slots[name] = Slot(model, origin or (replaced.origin if replaced is not None else Origin()))
        self._write(before, slots)
        return slots

    def drop(self, name: str) -> dict[str, Slot]:
        """Note durably that nothing serves under a name, and return the slots that are left."""
        before = self.known()
        slots = {known: slot for known, slot in before.items() if known != name}
        self._write(before, slots)
        return slots

    def _write(self, before: Mapping[str, Slot], after: Mapping[str, Slot]) -> None:
        if before != after:  # at a start nothing is written, so that a full disk does not matter
            write_durable(self._path, msgspec.json.encode(_Note(dict(after))))


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
