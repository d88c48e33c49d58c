"""Sensors of Linux's industrial IO: slow ones by sysfs, fast ones by their buffer."""
