"""The operators' side: a unix socket that only the coordinator's user can open."""
