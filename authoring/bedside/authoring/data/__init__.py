"""An author's data set, as the clients of a federation would have it."""
