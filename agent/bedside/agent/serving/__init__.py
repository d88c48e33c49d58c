"""How a model comes to serve: the accuracy gate, the shadow, two slots and the way back."""
