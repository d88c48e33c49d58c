"""The coordinator's append-only log: its entries, its signed checkpoints, and who vouches for them."""
