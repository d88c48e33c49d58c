"""How a site begins: its authority's key and policy, and then its place in a federation."""

from __future__ import annotations

from typing import Final

import msgspec

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ConfigError, TrustError
from bedside.core.ids import check_id
from bedside.core.signing.trust import authority_of, open_federation
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.files import write_durable
from bedside.service.identity import Identity, Pins, create_identity
from bedside.service.keys import create_signing_key, load_signing_key
from bedside.service.link.address import parse_address
from bedside.trustee.paths import SitePaths, SitePublic
from bedside.trustee.site.authority import SiteAuthority
from bedside.trustee.site.desk import Desk
from bedside.trustee.site.register import Register
from bedside.trustee.store import TrusteeStore

PUBLIC_MODE: Final = 0o644

POLICY_TEMPLATE: Final = """\
# What the devices and the trustee of this site allow. The coordinator can ask for no more than this.
# A running trustee takes a change up within a second; a file with a mistake is refused and the old rules hold.

# Sites whose devices count towards min_trusted; the own site always does.
trusted_sites = []

# A sum that holds one of our devices holds at least so many devices of trusted sites. Never under 3.
min_trusted = 5

# The trustees of so many different sites must open a round together.
min_trustees = 2

# The smallest set that a plan may ask for.
min_contributors = 3

# Tasks to take part in; empty means any whose model is signed by a key below.
tasks = []

# What may be summed: "train".
purposes = ["train"]

# Ranges that protect a single device inside a sum.
max_clip = 10.0          # largest norm of one contribution
min_subsample = 0.0625   # least share of the coordinates that a round may ask for; 1 allows whole updates only
min_examples = 64        # fewest windows that a device trains on
min_sessions = 1         # fewest recordings in them
min_batch = 8            # smallest batch
min_local_steps = 4      # never a single gradient step
max_epochs = 20
max_learning_rate = 1.0
max_close_hours = 168    # longest time that a round stays open
max_rounds_per_day = 1000

# How much a device tells about itself: "minimal" or "standard". Sensor activity shows who is in bed.
heartbeat = "standard"

# Who may sign models: name = "64 hexadecimal digits of an Ed25519 public key". Never the coordinator's key.
[bundle_signers]
"""


def found_site(paths: SitePaths, name: str, entropy: Entropy) -> SitePublic:
    """Make authority key, policy and `site.public.json`.

    Raises:
        MalformedError: `bad-id`.
        ConfigError: `key-exists`: there is a site already.
    """
    check_id(name, "site")
    paths.make_directories()
    key = create_signing_key(paths.authority_key, entropy)
    public = SitePublic(site=name, authority_pk=bytes(key.verify_key).hex())
    if not paths.policy.exists():
        write_durable(paths.policy, POLICY_TEMPLATE.encode())
    write_durable(paths.public, msgspec.json.format(msgspec.json.encode(public), indent=2) + b"\n", PUBLIC_MODE)
    return public


def join_federation(
    paths: SitePaths, signed: Signed, root_pk: bytes, enrolment_address: str, clock: Clock, entropy: Entropy
) -> Identity:
    """Pin the federation, make the trustee's identity, countersign it, and sign the first roster.

    May be repeated: what is there already is kept.

    Raises:
        TrustError: `bad-signature`, `unknown-site` or `other-authority`.
        ConfigError: `no-site`, `bad-address`, or `pins-differ` for another federation.
    """
    public = paths.read_public()
    parse_address(enrolment_address)
    federation = open_federation(signed, root_pk)
    if authority_of(federation, public.site).hex() != public.authority_pk:
        raise TrustError(
            "other-authority",
            f"the federation names another authority for site {public.site}",
            remedy="hand this site's site.public.json to the holder of the federation root again",
        )
    paths.make_directories()
    identity = create_identity(paths.identity, Role.ROLE_TRUSTEE, entropy)
    identity.save_pins(
        Pins(
            federation=federation.federation,
            root_pk=root_pk.hex(),
            authority_pk=public.authority_pk,
            ca_digest=federation.coordinator.ca_digest.hex(),
            site=public.site,
            enrolment_address=enrolment_address,
        )
    )
    identity.save_federation(signed)
    if identity.credential is None:
        _enlist(paths, identity, clock)
    return identity


def _enlist(paths: SitePaths, identity: Identity, clock: Clock) -> None:
    pins = identity.pins
    key = load_signing_key(paths.authority_key)
    if bytes(key.verify_key).hex() != pins.authority_pk:
        raise ConfigError("other-authority", f"{paths.authority_key} does not belong to this site")
    store = TrusteeStore.open(paths.database)
    try:
        authority = SiteAuthority(key, pins.site, pins.federation)
        coordinator_pk = identity.federation.coordinator.sign_pk
        Desk(authority, Register(store.database), coordinator_pk, clock).enlist_trustee(identity, "trustee")
    finally:
        store.close()
