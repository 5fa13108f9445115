"""Sockets and REST polls of all venues. Before: the exchanges. After: one event ring per symbol."""
