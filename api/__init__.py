"""The HTTP contract, served by gunicorn workers that map the rings read-only. Before: rings, documents, board. After: clients."""
