"""What a device keeps for itself of its models, on the disk.

    <state_dir>/personal/<bundle>.local   local tensors: norms, moments, heads that no update carries
    <state_dir>/personal/<bundle>.tuned   a suffix that was tuned here, a temperature, and what was found
    <state_dir>/personal/<task>.pending   what a child has made, until its parent takes it

    file = a frame of facts, then a frame of tensors (`bedside.agent.frames`)

Invariants:
    * Files are replaced as a whole and durably. Every key of the ring opens them, the newest seals.
    * A file says which sessions it was learnt from, as digests: when one of them is forgotten, or its consent is
      withdrawn, the file goes. One that cannot be read goes with whichever session is forgotten.
    * Nothing that a child made before an erasure is taken after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec
import numpy as np

from bedside.agent.buffer.keys import KeyRing
from bedside.agent.frames import FrameReader, FrameWriter
from bedside.agent.personal.report import Report
from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.verify import Parameters, check_parameters
from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.unreadable import UNREADABLE
from bedside.ondevice.heads import COLDEST, HOTTEST
from bedside.ondevice.runtimes import Float32
from bedside.service.files import durable_file, sync_directory

DIRECTORY_NAME: Final = "personal"
MAX_SESSIONS: Final = 65_536
"""Sessions of one file that are known by name; beyond that it counts as learnt from every one."""

Kind = Literal["local", "tuned"]
KINDS: Final[tuple[Kind, ...]] = ("local", "tuned")

_PENDING: Final = ".pending"
_PURPOSE: Final = b"bedside-personal"
_MAX_FACTS_BYTES: Final = 2 << 20
_TAG_BYTES: Final = 8


class PersonalFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a file's tensors.

    Attributes:
        name: of the model.
        bundle: hexadecimal digest.
        base: of a tuned suffix, the checkpoint or bundle that it was tuned from, in hexadecimal; else empty.
        tags: of the sessions that it was learnt from, 8 bytes each.
        everyone: whether there were more than could be noted.
        temperature: of the logits.
        report: of the run that made it.
    """

    name: str
    bundle: str
    base: str = ""
    tags: bytes = b""
    everyone: bool = False
    temperature: float = 1.0
    report: Report | None = None

    def __post_init__(self) -> None:
        bytes.fromhex(self.bundle + self.base)
        if len(self.tags) % _TAG_BYTES or not COLDEST <= self.temperature <= HOTTEST:
            raise ValueError("tags or a temperature are out of bounds")

    @property
    def sessions(self) -> frozenset[bytes]:
        """The tags, one by one."""
        return frozenset(self.tags[at : at + _TAG_BYTES] for at in range(0, len(self.tags), _TAG_BYTES))

    def learnt_from(self, session: str) -> bool:
        """Whether a session has gone into it."""
        return self.everyone or _tag(session) in self.sessions


@dataclass(frozen=True, slots=True)
class Personal:
    """One file's content: `tensors` are float32 by name."""

    facts: PersonalFacts
    tensors: Mapping[str, Float32] = field(default_factory=dict)

    def over(self, manifest: Manifest, parameters: Mapping[str, Float32]) -> Parameters | None:
        """A model's parameters with these in their places; None when these are not the model's."""
        try:
            return check_parameters(manifest, {**parameters, **self.tensors})
        except MalformedError:
            return None


def facts_of(name: str, bundle: str, sessions: Iterable[str], *before: Personal | None) -> PersonalFacts:
    """Facts of what was learnt from sessions, and from what was learnt before."""
    earlier = [one.facts for one in before if one is not None]
    tags = {_tag(session) for session in sessions}.union(*(one.sessions for one in earlier))
    everyone = len(tags) > MAX_SESSIONS or any(one.everyone for one in earlier)
    return PersonalFacts(name, bundle, tags=b"" if everyone else b"".join(sorted(tags)), everyone=everyone)


class PersonalFiles:
    """`<state_dir>/personal/`, mode 0700, made when something is written.

    Attributes:
        erasures: how often something was taken back since this process began; what was being learnt then is not kept.
        on_erased: called with the bundles of which something was.
    """

    def __init__(self, state_dir: Path, ring: KeyRing) -> None:
        self._directory = state_dir / DIRECTORY_NAME
        self._ring = ring
        self.erasures = 0
        self.on_erased: Callable[[frozenset[str]], None] = lambda _: None

    def read(self, kind: Kind, bundle: str) -> Personal | None:
        """What is kept of a bundle; None where there is nothing, or nothing that can be read."""
        found = self._read(self._path(kind, bundle))
        return found if found is not None and found.facts.bundle == bundle else None

    def tuned(self, bundle: str, base: str) -> Personal | None:
        """What was tuned from this checkpoint, or from the bundle's own parameters."""
        found = self.read("tuned", bundle)
        return found if found is not None and found.facts.base == base else None

    def all(self) -> Iterator[tuple[Kind, Personal]]:
        """Everything that can be read."""
        for kind in KINDS:
            for path in sorted(self._directory.glob(f"*.{kind}")):
                found = self._read(path)
                if found is not None:
                    yield kind, found

    def write_pending(self, task: str, personal: Personal, entropy: Entropy) -> None:
        """In a child: leave something for the parent.

        Raises:
            StoreError: `file-write`.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(self._pending(task), personal, entropy)

    def adopt(self, task: str, kind: Kind, bundle: str, erasures: int) -> bool:
        """Keep what a child has left for a task; False when there is nothing, or something was erased since.

        Args:
            task: of the child.
            kind: what it made.
            bundle: of which model.
            erasures: as they were when the child began.
        """
        pending = self._pending(task)
        if not pending.exists():
            return False
        if erasures != self.erasures:
            self.discard_pending(task)
            return False
        pending.replace(self._path(kind, bundle))
        sync_directory(self._directory)
        return True

    def discard_pending(self, task: str = "*") -> None:
        """Remove what a child has left or was writing, of every task unless one is named."""
        self._remove([*self._directory.glob(f"{task}{_PENDING}"), *self._directory.glob(f".{task}{_PENDING}.*")])

    def forget(self, session: str) -> int:
        """Remove everything that was learnt from a session, and what is being made; returns the number of files."""
        self.erasures += 1
        self.discard_pending()
        found = {path: self._read(path) for path in self._files()}
        return self._erase([path for path, one in found.items() if one is None or one.facts.learnt_from(session)])

    def reset(self, bundle: str) -> int:
        """Remove everything of a bundle; returns the number of files."""
        self.erasures += 1
        self.discard_pending()
        return self._erase([path for path in self._files() if path.stem == bundle])

    def keep(self, bundles: Collection[str]) -> None:
        """Remove everything of other bundles."""
        self._remove([path for path in self._files() if path.stem not in bundles])

    def reseal(self, entropy: Entropy) -> None:
        """Seal every file with the newest key of the ring; one that no key opens is removed.

        Raises:
            StoreError: `file-write`; call again.
        """
        self.discard_pending()
        for path in self._files():
            found = self._read(path)
            if found is not None:
                self._write(path, found, entropy)
            else:
                self._remove([path])

    def _erase(self, paths: Collection[Path]) -> int:
        self._remove(paths)
        if paths:
            self.on_erased(frozenset(path.stem for path in paths))
        return len(paths)

    def _remove(self, paths: Iterable[Path]) -> None:
        removed = False
        for path in paths:
            path.unlink(missing_ok=True)
            removed = True
        if removed:
            sync_directory(self._directory)

    def _files(self) -> list[Path]:
        """Every file, and what a write that was cut off has left, which nobody can read."""
        if not self._directory.is_dir():
            return []
        return sorted(path for path in self._directory.iterdir() if _PENDING not in path.name)

    def _path(self, kind: Kind, bundle: str) -> Path:
        return self._directory / f"{bundle}.{kind}"

    def _pending(self, task: str) -> Path:
        return self._directory / f"{task}{_PENDING}"

    def _write(self, path: Path, personal: Personal, entropy: Entropy) -> None:
        with durable_file(path) as file:
            frames = FrameWriter(file, self._ring.newest, _PURPOSE, entropy)
            frames.write(msgspec.msgpack.encode(personal.facts))
            frames.write(encode_tensors(dict(personal.tensors)))

    def _read(self, path: Path) -> Personal | None:
        for key in self._ring.keys:
            with suppress(OSError, MalformedError), path.open("rb") as file:
                return read_personal(file, key)
        return None


def read_personal(file: BinaryIO, key: bytes) -> Personal:
    """Read a file.

    Raises:
        MalformedError: `bad-frame`, `bad-personal`, `bad-tensors`.
    """
    frames = FrameReader(key, _PURPOSE)
    try:
        facts = msgspec.msgpack.decode(frames.read(file, 0, _MAX_FACTS_BYTES), type=PersonalFacts)
    except UNREADABLE as error:
        raise MalformedError("bad-personal", "what this device keeps of a model cannot be read") from error
    tensors: dict[str, Float32] = {}
    for name, array in decode_tensors(frames.read(file, 1, MAX_BLOB_BYTES)).items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise MalformedError("bad-personal", "a tensor that this device keeps is not of finite float32 values")
        tensors[name] = array.astype(np.float32, copy=False)
    return Personal(facts, tensors)


def _tag(session: str) -> bytes:
    """A session's name is random, so that its digest tells nothing of it."""
    return hashlib.blake2b(session.encode(), digest_size=_TAG_BYTES, person=_PURPOSE).digest()
