"""The coordinator's database: the only place that speaks SQL."""

from bedside.coordinator.store.database import Store, open_store

__all__ = ["Store", "open_store"]
