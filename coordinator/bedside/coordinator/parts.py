"""What the rooms of a running coordinator share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nacl.signing import SigningKey

from bedside.coordinator.aggregation.running import RunningSums
from bedside.coordinator.blobs import BlobStore, Staging
from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.enrolment.desk import EnrolmentDesk
from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.fleet.roll import Roll
from bedside.coordinator.home import Home
from bedside.coordinator.metrics.meters import Meters
from bedside.coordinator.signals import Signals
from bedside.coordinator.store import Store, open_store
from bedside.core.clock import Clock, Entropy
from bedside.proto.v1.identity_pb2 import Federation
from bedside.service.health import Health

_NS_PER_MS: Final = 1_000_000
STORE: Final = "store"
"""The component of `Parts.health` that tells how the database is."""


@dataclass(slots=True)
class Parts:
    """One of each; made by `open_parts`. `config` alone is ever replaced, by a reload: ask for it when it is needed."""

    config: CoordinatorConfig
    clock: Clock
    entropy: Entropy
    sign_key: SigningKey
    store: Store
    blobs: BlobStore
    staging: Staging
    registry: Registry
    desk: EnrolmentDesk
    roll: Roll
    running: RunningSums
    signals: Signals
    health: Health
    meters: Meters

    @property
    def sign_pk(self) -> bytes:
        """Public half of `sign_key`."""
        return bytes(self.sign_key.verify_key)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.clock.now_ns() // _NS_PER_MS


def open_parts(home: Home, config: CoordinatorConfig, clock: Clock, entropy: Entropy) -> Parts:
    """Open everything that a state directory holds.

    Raises:
        ConfigError: `no-federation`, `key-missing`, `key-mode` and the like.
        TrustError: the federation document does not hold.
        StoreError: `store-open` or `store-newer`.
        UnavailableError: `already-running` or `store-unavailable`.
    """
    federation = home.federation
    store = open_database(home, config)
    try:
        return _open_parts(home, config, clock, entropy, store, federation)
    except BaseException:
        store.close()
        raise


def open_database(home: Home, config: CoordinatorConfig) -> Store:
    """Open the database that is configured, and claim it for this coordinator; raises as `open_parts`."""
    store = open_store(
        home.database_path if config.database_url is None else config.database_url, home.password(config)
    )
    try:
        store.begin_tenure(bytes(home.sign_key.verify_key))
    except BaseException:
        store.close()
        raise
    return store


def _open_parts(
    home: Home, config: CoordinatorConfig, clock: Clock, entropy: Entropy, store: Store, federation: Federation
) -> Parts:
    meters = Meters()
    store.measure = lambda name: meters.transactions.labels(name).time()
    blobs = BlobStore(home.blobs_path)
    registry = Registry(store, federation, home.signed_federation)
    return Parts(
        config=config,
        clock=clock,
        entropy=entropy,
        sign_key=home.sign_key,
        store=store,
        blobs=blobs,
        staging=Staging(blobs),
        registry=registry,
        desk=EnrolmentDesk(store, registry, home.authority, clock),
        roll=Roll(store, registry, clock, config.heartbeat_s),
        running=RunningSums(blobs),
        signals=Signals(),
        health=Health(clock, (STORE,)),
        meters=meters,
    )
