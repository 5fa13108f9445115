"""Starts, watches, restarts and stops every other process. Before: the settings. After: nothing; it only keeps processes alive.

    settings -> plan (what to run) -> children (spawn, watch, kill) <- policy (what to do) ; process (the loop) calls them

Nobody imports this package; the command line executes `python -m supervisor`.
"""
