"""How the devices are doing, from what they say: they sit behind address translation and cannot be asked."""
