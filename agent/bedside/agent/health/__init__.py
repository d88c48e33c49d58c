"""How the device is: facts, components, and the heartbeat that leaves it."""
