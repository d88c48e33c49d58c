"""Inputs of the device: one file per kind, each supervised apart."""
