"""Pure wire mappers, one file per exchange: text in, event records out. Before: sockets of `ingest`. After: its routing."""
