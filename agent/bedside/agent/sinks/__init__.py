"""Outputs of the device: what it decided, in the formats of hospital systems. Without configuration nothing leaves."""
