"""The main job on real data with one command."""
