"""The commands `bedside coordinator`, `federation`, `fleet` and `round`."""

from bedside.coordinator.cli.coordinator import coordinator
from bedside.coordinator.cli.federation import federation
from bedside.coordinator.cli.fleet import fleet
from bedside.coordinator.cli.rounds import round_

__all__ = ["coordinator", "federation", "fleet", "round_"]
