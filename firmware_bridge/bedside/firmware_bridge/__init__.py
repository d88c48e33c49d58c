"""The Python side of the sensor boards: framing, messages, serial source, virtual board."""
