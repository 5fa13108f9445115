"""One symbol: event records in, frames, candles and documents out. Before: the event ring. After: rings and documents."""
