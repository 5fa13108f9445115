"""Measurements by topology, each with its baseline in the same run. A result to read, never a pass or fail."""
