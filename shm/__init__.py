"""Every byte that crosses a process boundary. Before: ingest and engines (writers). After: engines and API workers (readers)."""
