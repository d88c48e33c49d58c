"""`bedside doctor`: what is wrong with a machine or with what runs on it, and what to do about each."""
