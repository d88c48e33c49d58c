"""What every long-lived process shares: CLI dispatch, configuration, logs, journal store, link, health."""
