"""Model bundles: what a device must know about a model, and how it checks it before it believes it."""
