"""The commands `bedside audit`, `coordinator`, `federation`, `fleet`, `privacy` and `round`."""

from bedside.coordinator.cli.audit import audit
from bedside.coordinator.cli.checkpoint import model
from bedside.coordinator.cli.coordinator import coordinator
from bedside.coordinator.cli.federation import federation
from bedside.coordinator.cli.fleet import fleet
from bedside.coordinator.cli.privacy import privacy
from bedside.coordinator.cli.rounds import round_

round_.add_command(model)

__all__ = ["audit", "coordinator", "federation", "fleet", "privacy", "round_"]
