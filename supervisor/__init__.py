"""Starts, watches, restarts and stops every other process. Before: the settings. After: nothing; it only keeps processes alive."""
