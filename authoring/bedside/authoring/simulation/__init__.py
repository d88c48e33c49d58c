"""A federation in one process: the devices' own training, the protocol's own vectors, the coordinator's own step."""
