"""What happens to a stream between its sensor and the model: the stages that a manifest can name.

In order: `pick` channels, `resample` to the model's rate, `filter` (these three run over the stream, causally); cut,
by sliding or round R peaks; `detrend` and `normalise` each window; then offset and scale. A model of `fields` takes
records instead. Every stage has the same bits online and in training, which is why they are few and simple.

Source: docs/models.md, docs/adr/0012-preprocessing.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import msgspec

from bedside.core.bundle import bounds
from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.signal.butterworth import Section, pole_radius

if TYPE_CHECKING:
    from bedside.core.bundle.manifest import WindowSpec

Detrend = Literal["none", "mean", "linear"]
"""What is subtracted from each channel of a window: nothing, its mean, or its straight line of least squares."""

Normalise = Literal["none", "zscore"]
"""zscore divides each channel of a window, less its mean, by its standard deviation; a flat one becomes 0."""

RR_CHANNELS: Final = 2
"""Of a beat's window: the interval before it in seconds, and its ratio to the mean of the intervals before that."""

MAX_TEMPLATE_BEATS: Final = 256
_MAX_TEMPLATE_VALUES: Final = 1 << 20
"""Eight MiB of a run, in which the beats wait that a template is the mean of."""

_MAX_HALF_WIDTH: Final = 64
_MAX_BETA: Final = 20.0
_MAX_SECTIONS: Final = 16
_MAX_COEFFICIENT: Final = 1e6
_MAX_POLE: Final = 1 - 1e-6
"""A pole this near to the circle needs seven million samples to settle."""
_MAX_SETTLE_S: Final = 600.0
_BEAT_RATES_HZ: Final = (80.0, 2_000.0)
"""The R-peak detector's band ends at 18 Hz, and its cost grows with the rate."""


class Resample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rational resampling from whatever rate the stream has to the window's.

    Attributes:
        half_width: periods of the slower rate that the anti-aliasing filter reaches to each side.
        beta: of its Kaiser window; 8 suppresses by about 80 dB.
    """

    half_width: int
    beta: float


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Second-order sections at the window's rate, one after the other.

    Attributes:
        sections: (b0, b1, b2, a1, a2) each.
        settle_s: after the beginning of a run, what is filtered is not used for so long.
    """

    sections: tuple[Section, ...]
    settle_s: float


class Beat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Windows round R peaks instead of sliding ones; `length` is `before + after`, and `hop` equals it.

    What a model asks for beside the beat follows it as channels, in the order below; `channels` counts them.

    Attributes:
        channel: where beats are looked for, before `filter`.
        before: samples of the window before the peak.
        after: samples from the peak on.
        rr: whether two constant channels follow: the interval before (s), and its ratio to the mean of the ten before.
        rr_change: whether one constant channel follows: that interval's ratio to the one before it.
        template: for each channel of the stream one follows, before those of intervals: the beat less the mean of at
            most so many beats before it, after `detrend` and `normalise`; 0 for none.
    """

    channel: int
    before: int
    after: int
    rr: bool
    rr_change: bool = False
    template: int = 0

    @property
    def interval_channels(self) -> int:
        """Constant channels, which are the last ones."""
        return RR_CHANNELS * self.rr + self.rr_change


class ChannelReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one channel of the stream looked like to the author, in physical units.

    Attributes:
        edges: ascending borders of bins; below the first and above the last there is one bin more each.
        shares: of the values in each bin; they sum to 1.
        low: physically possible values begin here.
        high: and end here.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    low: float
    high: float


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry per channel that the model takes from its stream, in its order."""

    channels: tuple[ChannelReference, ...]


def check_stages(window: WindowSpec) -> None:
    """Check the stages of a window whose shape was checked before.

    Raises:
        MalformedError: `bad-manifest`.
    """
    if not window.rate_hz <= MAX_RATE_HZ:
        _bad(f"a window's rate is at most {MAX_RATE_HZ:g} Hz")
    if window.fields:
        _check_fields(window)
    if window.beat is not None:
        _check_beat(window.beat, window)
    if window.pick:
        _check_pick(window.pick, signal_channels(window))
    if window.resample is not None:
        _check_resample(window.resample)
    if window.filter is not None:
        _check_filter(window.filter)


def signal_channels(window: WindowSpec) -> int:
    """How many of a window's channels come from the stream."""
    if window.beat is None:
        return window.channels
    of_signal = window.channels - window.beat.interval_channels
    return of_signal // 2 if window.beat.template else of_signal


def check_reference(reference: Reference, channels: int) -> None:
    """Check a reference of `channels` channels.

    Raises:
        MalformedError: `bad-manifest`.
    """
    if len(reference.channels) != channels:
        _bad(f"the reference describes {len(reference.channels)} channels, the model takes {channels} from its stream")
    for channel in reference.channels:
        edges, shares = channel.edges, channel.shares
        if not 1 <= len(edges) <= bounds.MAX_REFERENCE_EDGES or len(shares) != len(edges) + 1:
            _bad(f"a reference has 1 to {bounds.MAX_REFERENCE_EDGES} edges and one share more")
        if not all(map(math.isfinite, (*edges, channel.low, channel.high))) or list(edges) != sorted(set(edges)):
            _bad("the edges of a reference ascend and are finite")
        if not channel.low < channel.high:
            _bad("a reference's low is below its high")
        if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            _bad("the shares of a reference lie between 0 and 1 and sum to 1")


def _check_fields(window: WindowSpec) -> None:
    staged = window.pick or window.resample or window.filter or window.beat
    if staged or (window.detrend, window.normalise) != ("none", "none"):
        _bad("a model of records has no stages of a stream")
    different = len(set(window.fields)) == len(window.fields) == window.channels
    if not different or (window.length, window.hop) != (1, 1):
        _bad("a model of records has one channel per field, and length and hop 1")
    if any(not 0 < len(name) <= bounds.MAX_NAME_CHARS or not name.isprintable() for name in window.fields):
        _bad(f"fields have 1 to {bounds.MAX_NAME_CHARS} printable characters")


def _check_beat(beat: Beat, window: WindowSpec) -> None:
    if not 0 <= beat.channel < signal_channels(window):
        _bad("beats are looked for in a channel that the model does not take")
    if not (beat.before >= 0 and beat.after > 0 and beat.before + beat.after == window.length == window.hop):
        _bad("before + after = length = hop does not hold for the windows round beats")
    if not _BEAT_RATES_HZ[0] <= window.rate_hz <= _BEAT_RATES_HZ[1]:
        _bad(f"beats are found at {_BEAT_RATES_HZ[0]:g} to {_BEAT_RATES_HZ[1]:g} Hz; resample")
    if not 0 <= beat.template <= MAX_TEMPLATE_BEATS:
        _bad(f"a template is of 0 to {MAX_TEMPLATE_BEATS} beats")
    if beat.template and (window.channels - beat.interval_channels) % 2:
        _bad("a template has a channel for each channel of the stream")
    if beat.template * window.length * signal_channels(window) > _MAX_TEMPLATE_VALUES:
        _bad(f"the beats of a template have {_MAX_TEMPLATE_VALUES} values or fewer in all")


def _check_pick(pick: tuple[int, ...], channels: int) -> None:
    if len(pick) != channels or len(set(pick)) != channels:
        _bad("the channels that are picked are different, and as many as the model takes from its stream")
    if not all(0 <= channel < bounds.MAX_CHANNELS for channel in pick):
        _bad(f"channels are numbered from 0 to {bounds.MAX_CHANNELS - 1}")


def _check_resample(resample: Resample) -> None:
    if not 1 <= resample.half_width <= _MAX_HALF_WIDTH or not 0 <= resample.beta <= _MAX_BETA:
        _bad(f"resampling has a half_width of 1 to {_MAX_HALF_WIDTH} and a beta of 0 to {_MAX_BETA:g}")


def _check_filter(stage: Filter) -> None:
    if not 1 <= len(stage.sections) <= _MAX_SECTIONS or not 0 <= stage.settle_s <= _MAX_SETTLE_S:
        _bad(f"a filter has 1 to {_MAX_SECTIONS} sections and settles within {_MAX_SETTLE_S:g} s")
    for section in stage.sections:
        if not all(abs(coefficient) <= _MAX_COEFFICIENT for coefficient in section):
            _bad(f"a filter's coefficients lie within ±{_MAX_COEFFICIENT:g}")
        if not pole_radius(section) <= _MAX_POLE:
            _bad("a section of the filter is not stable")


def _bad(sentence: str) -> NoReturn:
    raise MalformedError("bad-manifest", sentence, remedy="build the bundle again with `bedside model build`")
