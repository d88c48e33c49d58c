"""What a device keeps for itself of a model: local tensors, a head of its own, a temperature. None of it leaves."""
