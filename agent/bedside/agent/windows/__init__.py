"""Model inputs cut from streams: online from memory, for training from the buffer, by one cutter."""
