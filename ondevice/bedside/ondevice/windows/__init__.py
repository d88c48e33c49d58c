"""From a stream to model inputs: a manifest's stages, with the same bits online, from a store, and for an author."""
