"""Every limit of the system, with unit and reason. Nothing is allocated for a message before it passed these."""

from __future__ import annotations

from typing import Final

MAX_ID_CHARS: Final = 64
"""Characters of a site, device, task or stream id: fits a certificate SAN and a terminal column."""

MAX_TEXT_CHARS: Final = 400
"""Characters of any sentence that crosses the wire: one log line."""

MAX_SIGNED_BYTES: Final = 4 << 20
"""Bytes of one signed message. The largest is a seal request's header list, which is sent as blobs above this."""

MAX_WIRE_INTEGER: Final = (1 << 63) - 1
"""Largest integer of any message: what a database column holds."""

MAX_TIME_S: Final = 253_402_300_799
"""Last second, since 1970, of a calendar with four digits for the year: no later time can be shown."""

MAX_PLAN_BYTES: Final = 1 << 20
"""Bytes of a plan: 10,000 sites with their trustees stay below half of it."""

MAX_REQUEST_BYTES: Final = 16 << 10
"""Bytes of a credential request with its token: both hold keys, digests and a label. A real one is below 1 KiB."""

MAX_NONCE_BYTES: Final = 32
"""Bytes of a request's nonce: as many as its digest."""

MAX_COHORTS: Final = 1_024
"""Cohorts in one plan."""

MAX_TRUSTEES: Final = 5
"""Trustees of one cohort: each costs a device one mask, and all must answer."""

MAX_SEGMENTS: Final = 4_096
"""Segments of one vector layout: one per named tensor of a large net."""

MAX_VECTOR_WORDS: Final = 10 << 20
"""Words of one vector: a 10M-parameter model with its padding and counts, 42 MB at 32 bits."""

MAX_CONTRIBUTORS: Final = 10_000
"""Devices in one cohort's set."""

MIN_WORD_BITS: Final = 8
MAX_WORD_BITS: Final = 32
"""Bits of one word of the ring."""

MIN_VALUE_BITS: Final = 2
MAX_VALUE_BITS: Final = 8
"""Bits of one quantised value."""

MIN_SUBSAMPLE_E32: Final = 1 << 28
"""Least share of coordinates that a round sends, in 2^-32: 1/16. Below it, error swamps the update."""

MAX_CHUNK_BYTES: Final = 1 << 20
"""Bytes of one chunk of a blob or upload: keeps both sides' memory flat."""

MAX_BLOB_BYTES: Final = 1 << 30
"""Bytes of one blob (bundle, checkpoint, upload)."""

MAX_CLOSE_AHEAD_S: Final = 7 * 86_400
"""Seconds from a plan's opening to its close (rule T7)."""

MASK_CHUNK_BYTES: Final = 1 << 17
"""Bytes of mask stream expanded at a time: one reused buffer that stays in the second-level cache. Expanding a whole
mask at once is slower by far, for page faults dominate (0.3 against 7 GB/s measured)."""

MAX_WAVEFORM_BLOCK_S: Final = 0.040
"""Seconds of one waveform block: bounds the latency from sensor to decision."""

MAX_RATE_HZ: Final = 1e6
"""Samples per second of a stream or a model's input: far above any biosignal."""

MAX_CHANNELS: Final = 1_024
"""Channels of one stream."""

MAX_SIGNAL_TEXT_CHARS: Final = 64
"""Characters of a stream's unit or metric: UCUM codes and MDC reference ids are shorter."""

MAX_FIELD_RULES: Final = 128
"""Fields that a source's configuration names: with those of the vocabulary a record stays below 256."""

MAX_NOISE_SIGMA: Final = 1 << 20
"""Largest standard deviation of one trustee's noise, in ring steps: above it a ring of 32 bits holds few sums."""

MAX_NOISE_MULTIPLIER: Final = 1_000
"""Largest noise multiplier of a policy or plan: a round at it costs an epsilon of about 0.005 at a delta of 1e-5."""
