"""Pure rules that more than one part must agree on: no IO, no clock, no randomness of its own."""
