"""Alembic's entry: runs the steps on the connection that the store hands over."""

from alembic import context

from bedside.coordinator.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
