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
# What follows from these rules, in plain words: bedside policy explain policy.toml

# --- Who takes part, and in what

# Tasks to take part in; empty means any whose model is signed by a key at the end of this file.
tasks = []

# What may be summed: "train", "evaluate", "statistic".
purposes = ["train"]

# Statistics of the catalogue that may be summed: "signal-quality", "labelled-windows". A free question could be about
# one patient, so there is none; and a count of one is a patient, so statistics are opened with noise only.
statistics = []

# --- Who is in a sum together

# Sites whose devices count towards min_trusted; the own site always does. Name those that you know to be real: a
# coordinator can invent sites and devices as it likes.
trusted_sites = []

# A sum that holds one of our devices holds at least so many devices of trusted sites. Never under 3.
min_trusted = 5

# The largest part of a set that one site may fill, above 0 to 1. 1 sets no limit.
max_share_one_site = 1.0

# The trustees of so many different sites must open a round together. 1 only in a federation of one site.
min_trustees = 2

# The smallest set that a plan may ask for.
min_contributors = 3

# Where the same is computed twice, two sets that differ by a few devices tell about these; that is always refused.
# true refuses it for training that goes on as well, against the last eight sets of a task. Rounds then wait for a
# steady fleet.
guard_membership = false

# --- What protects a single device inside a sum

max_clip = 10.0          # largest norm of one contribution: how far one device can move the sum
value_bits = [4, 8]      # least and most bits of one value
word_bits = [8, 32]      # least and most bits of one word of the sum
min_subsample = 0.0625   # least share of a model's coordinates that a round may ask for; 1: whole updates only
min_examples = 64        # fewest windows that a device takes part with: few windows stand out
min_sessions = 1         # fewest recordings in them: with one, the contribution is about one person
min_batch = 8            # smallest batch: tiny ones tell more about single windows
min_local_steps = 4      # a single step is a gradient, from which windows can be computed back
max_epochs = 20          # more passes learn single windows by heart
min_learning_rate = 0.0001 # tiny steps add up to a single gradient
max_learning_rate = 1.0  # a huge one writes the last batch into the model
max_proximal_pull = 0.1  # learning rate times proximal term: at 1, all steps but the last are undone
min_gradient_clip = 0.1  # smallest bound of a gradient that a plan may set: tiny gradients are tiny steps
max_parameters = 10000000 # a larger model remembers more, and costs memory
max_step_ms = 2000.0     # slowest training step that the model's author may have measured

# --- When, and how often

# Local hours in which new rounds are joined, such as "20:00-06:00"; empty means always.
hours = ""

max_close_hours = 168    # longest time that a round stays open
max_rounds_per_day = 1000 # of all tasks together: every sum tells something

# Most rounds a day of one purpose; a purpose that is not named has max_rounds_per_day only.
quotas = { evaluate = 24, statistic = 4 }

# How often one state of a model may be evaluated: with changing devices, many times tell how single ones score.
max_evaluations_per_checkpoint = 3

# --- Noise

# Noise on every sum, whatever a plan asks for: the multiplier z of a Gaussian mechanism whose unit is one device's
# contribution to one round. 0 adds none. It pays for small vectors (counts, last layers), not for whole nets.
noise_multiplier = 0.0
# What all sums of this site together may cost, as epsilon at delta; 0 sets no bound. With a bound, a sum without noise
# is refused. `bedside site privacy` shows what is spent.
max_epsilon = 0.0
delta = 1e-5             # the chance with which that bound may fail

# --- What a device tells about itself

# "minimal" or "standard". Sensor activity shows who is in bed.
heartbeat = "standard"

# --- What the trustee looks at again

# It recomputes one in so many finished rounds from what the coordinator stored, by its own draw; 0 means none.
audit_one_in = 20

# --- Who may sign models

# name = "64 hexadecimal digits of an Ed25519 public key". Never the coordinator's key: whoever makes a model can make
# it tell about single windows, and whoever plans rounds must not be able to.
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
