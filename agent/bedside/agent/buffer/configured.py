"""The store as `agent.toml` wants it, for whoever is its writer."""

from __future__ import annotations

from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME, AgentConfig
from bedside.core.clock import Clock, Entropy


def open_store(config: AgentConfig, keys: Keys, clock: Clock, entropy: Entropy) -> BufferStore:
    """Open it for writing.

    Raises:
        UnavailableError: `buffer-in-use`.
        StoreError, ConfigError: as `BufferStore`.
    """
    return BufferStore(
        config.state_dir / BUFFER_NAME,
        keys,
        clock,
        entropy,
        cap_bytes=config.buffer.cap_mib << 20,
        gap_s=config.buffer.session_gap_s,
        consent_training=config.buffer.consent_training,
        priorities={stream.stream: stream.priority for stream in config.buffer.streams},
    )
