"""The arithmetic of federated learning that every part must agree on: optimisers, weights, metrics of sums."""
