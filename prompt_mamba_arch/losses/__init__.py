"""Losses that register with BasicSR; option files name them beside BasicSR's own."""
