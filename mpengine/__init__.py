"""mpengine: wire messages of crypto venues -> events -> maps -> frames in shared memory.

`venues` map wire text to event records, `ingest` owns the sockets and writes the event rings, `engine` turns one symbol's
events into frames, `simulator` is a local exchange to run against; `client` reads what the API serves. Arrow before: the exchanges. Arrow after: `shm`, then `api`.
Importing this package opens nothing and starts nothing.
"""

__version__ = "0.1.0"
