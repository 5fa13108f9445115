"""mpengine: wire messages of crypto venues -> events -> maps -> frames in shared memory.

`venues` map wire text to event records, `ingest` owns the sockets and writes the event rings, `engine` turns one symbol's
events into frames, `simulator` is a local exchange to run against. Arrow before: the exchanges. Arrow after: `shm`, then `api`;
`client`, at the other end, reads what the API serves.
Importing this package opens nothing and starts nothing.
"""

__version__ = "0.1.0"
