"""The offline root of a federation: one key in a directory of its own, and the documents that it signs.

The root holder names site authorities and the coordinator. The key signs a few times a year and belongs on a machine
that is not on the network; only the small public files of sites and coordinator go there, and the document comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bedside.coordinator.home import CoordinatorPublic, RootPin
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import check_id
from bedside.core.signing import open_federation, parse_strict, sign_message
from bedside.core.signing.envelope import SUITE
from bedside.core.unreadable import UNREADABLE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import CoordinatorIdentity, Federation, SiteAuthority
from bedside.service.files import write_durable
from bedside.service.keys import create_signing_key, load_signing_key

ROOT_KEY: Final = "root.key"
STATE_FILE: Final = "federation.json"
PUBLIC_FILE: Final = "federation.public.json"
MAX_PUBLIC_BYTES: Final = 1 << 16
FEDERATION_DAYS: Final = 5 * 365
_DAY_S: Final = 86_400
_NS_PER_S: Final = 1_000_000_000
_PUBLIC_MODE: Final = 0o644
_KEY_BYTES: Final = 32

File = TypeVar("File", bound=msgspec.Struct)


class SitePublic(msgspec.Struct, kw_only=True, frozen=True):
    """What the root holder needs of a site; hex. A site's tools may say more in the same file."""

    site: str
    authority_pk: str


class FoundingState(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the root directory remembers: versions only ever grow, and a site is dropped by name only."""

    federation: str
    version: int
    sites: tuple[SitePublic, ...] = ()


def found_federation(directory: Path, name: str, entropy: Entropy) -> RootPin:
    """Make the root key of a new federation.

    Raises:
        MalformedError: `bad-id`.
        ConfigError: `key-exists`.
    """
    check_id(name, "federation")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = create_signing_key(directory / ROOT_KEY, entropy)
    pin = RootPin(federation=name, root_pk=bytes(key.verify_key).hex())
    _write_json(directory / STATE_FILE, FoundingState(federation=name, version=0))
    _write_json(directory / PUBLIC_FILE, pin)
    return pin


def sign_federation(
    directory: Path,
    coordinator: CoordinatorPublic,
    sites: Sequence[SitePublic],
    clock: Clock,
    out: Path,
    *,
    drop: Collection[str] = (),
) -> Federation:
    """Sign the next version of the federation document into `out`, with the public root beside it.

    The sites of the version before stay in it. One that is named again is replaced; one in `drop` leaves.

    Raises:
        ConfigError: `not-a-root`, `bad-public-file`, `unknown-site`, `no-sites`, or `key-missing` and the like.
        MalformedError: `bad-federation` when a site stands twice, or `bad-id`.
    """
    if not (directory / STATE_FILE).exists():
        raise ConfigError(
            "not-a-root",
            f"{directory} is no root directory of a federation",
            remedy="name the directory that `bedside federation init` made",
        )
    key = load_signing_key(directory / ROOT_KEY)
    state = read_json(directory / STATE_FILE, FoundingState)
    named = _next_sites(state, sites, drop)
    now_s = clock.now_ns() // _NS_PER_S
    federation = Federation(
        suite=SUITE,
        federation=state.federation,
        version=state.version + 1,
        issued_at_s=now_s,
        not_after_s=now_s + FEDERATION_DAYS * _DAY_S,
        sites=[SiteAuthority(site=site.site, authority_pk=_key(site.authority_pk)) for site in named],
        coordinator=CoordinatorIdentity(sign_pk=_key(coordinator.sign_pk), ca_digest=_key(coordinator.ca_digest)),
    )
    signed = sign_message("federation", federation, key)
    open_federation(signed, bytes(key.verify_key))
    after = FoundingState(federation=state.federation, version=federation.version, sites=named)
    _write_json(directory / STATE_FILE, after)
    write_durable(out, signed.SerializeToString(deterministic=True), _PUBLIC_MODE)
    pin = RootPin(federation=state.federation, root_pk=bytes(key.verify_key).hex())
    _write_json(out.with_suffix(".public.json"), pin)
    return federation


def _next_sites(state: FoundingState, sites: Sequence[SitePublic], drop: Collection[str]) -> tuple[SitePublic, ...]:
    """The sites of the version before, without those that leave, and the ones that are named now."""
    before, now = [site.site for site in state.sites], {site.site for site in sites}
    unknown = sorted(set(drop) - set(before))
    if unknown:
        raise ConfigError(
            "unknown-site",
            f"--drop {unknown[0]}: version {state.version} does not name that site",
            remedy=f"it names {', '.join(before) or 'none'}",
        )
    if now & set(drop):
        site = min(now & set(drop))
        raise ConfigError(
            "site-named-twice", f"site {site} is to be named and dropped at once", remedy="leave one of the two out"
        )
    kept = [site for site in state.sites if site.site not in drop and site.site not in now]
    if not kept and not sites:
        raise ConfigError("no-sites", "the federation would name no site", remedy="name one with --site")
    return (*kept, *sites)


def read_federation(path: Path) -> Signed:
    """Read a federation document; its signature is checked by those who know the root.

    Raises:
        ConfigError: `bad-public-file`.
    """
    try:
        return parse_strict(Signed, _read(path))
    except MalformedError as error:
        raise _bad(path, "is not a federation document") from error


def claimed_federation(path: Path) -> Federation:
    """What a federation document says, its signature unchecked: to be shown, not to be believed.

    Raises:
        ConfigError: `bad-public-file`.
    """
    signed = read_federation(path)
    try:
        federation = parse_strict(Federation, signed.payload)
    except MalformedError as error:
        raise _bad(path, "is not a federation document") from error
    if not federation.federation:
        raise _bad(path, "is not a federation document")
    return federation


def read_json(path: Path, kind: type[File]) -> File:
    """Read one of the small JSON files.

    Raises:
        ConfigError: `bad-public-file`.
    """
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except UNREADABLE as error:
        raise _bad(path, f"cannot be read: {str(error)[:200]}") from error


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _bad(path, f"cannot be opened: {error.strerror}") from error
    if len(data) > MAX_PUBLIC_BYTES:
        raise _bad(path, "is larger than any of its kind")
    return data


def _write_json(path: Path, value: msgspec.Struct) -> None:
    write_durable(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n", _PUBLIC_MODE)


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            "bad-public-file", f"{text[:80]!r} is not 64 hexadecimal digits", remedy="copy the file again"
        )
    return key


def _bad(path: Path, what: str) -> ConfigError:
    remedy = "name the file that `bedside coordinator init`, `bedside site init` or `bedside federation sign` wrote"
    return ConfigError("bad-public-file", f"{path} {what}", remedy=remedy)
