"""Recomputing a finished round from its stored bytes: bytes in, a checklist out. No clock, no disk, no coordinator."""
