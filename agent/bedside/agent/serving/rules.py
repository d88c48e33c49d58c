"""`[serving]` of agent.toml."""

from __future__ import annotations

import msgspec


class ServingConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a new model comes to serve.

    Attributes:
        gate: whether a model that would replace another is compared with it first, on labelled windows that are held
            out; false trains on all windows and compares none.
        gate_margin: by how much of the score it may surely be worse, 0 to 1.
        gate_min_windows: with fewer validation windows it is not judged, and serves.
        shadow_windows: live windows for which it runs beside the other one before it serves; 0 = none.
        shadow_disagreement: largest share of them on which the two may differ, 0 to 1.
        models: names of the models that may come from a coordinator to serve here; empty = whatever is signed by one
            of the site's signers. Those that agent.toml names itself always serve.
    """

    gate: bool = True
    gate_margin: float = 0.02
    gate_min_windows: int = 50
    shadow_windows: int = 0
    shadow_disagreement: float = 0.1
    models: tuple[str, ...] = ()

    def serves(self, name: str) -> bool:
        """Whether a model of this name may come from a coordinator."""
        return not self.models or name in self.models


def serving_rules(serving: ServingConfig) -> tuple[tuple[bool, str], ...]:
    """Whether each number lies in its bounds, with the sentence for one that does not."""
    return (
        (0 <= serving.gate_margin <= 1, "serving.gate_margin must be 0 to 1"),
        (1 <= serving.gate_min_windows <= 100_000, "serving.gate_min_windows must be 1 to 100000"),
        (0 <= serving.shadow_windows <= 10_000_000, "serving.shadow_windows must be 0 to 10000000"),
        (0 <= serving.shadow_disagreement <= 1, "serving.shadow_disagreement must be 0 to 1"),
    )
