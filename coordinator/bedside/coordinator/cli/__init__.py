"""The commands `bedside coordinator`, `federation`, `fleet`, `privacy` and `round`."""

from bedside.coordinator.cli.coordinator import coordinator
from bedside.coordinator.cli.federation import federation
from bedside.coordinator.cli.fleet import fleet
from bedside.coordinator.cli.privacy import privacy
from bedside.coordinator.cli.rounds import round_

__all__ = ["coordinator", "federation", "fleet", "privacy", "round_"]
