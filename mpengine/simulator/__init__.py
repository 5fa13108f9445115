"""A local exchange that speaks the venues' real protocols. Before: a synthetic market or a capture. After: `ingest`."""
