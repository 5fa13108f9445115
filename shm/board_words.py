"""Names of the words in a board row (`spec: shared-memory`, section 8). Pure; the one place that knows what a word means.

A row is 16 lines of 8 words. Lines 0-12 have the process of the row as their only writer, lines 13-15 the supervisor.
Counters only rise; a restart shows as a new epoch. The labels are written into the board file, so another version can print them.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final

ROW_WORDS: Final = 128
SUPERVISOR_FIRST: Final = 104  # words 104..127 (lines 13-15) are the supervisor's


class Role(IntEnum):
    """What kind of process a row belongs to."""

    NONE = 0
    SUPERVISOR = 1
    INGEST = 2
    ENGINE = 3
    API_MASTER = 4
    API_WORKER = 5
    SIMULATOR = 6
    TOOL = 7


class State(IntEnum):
    """State of a child: as it says itself (word STATE) and as the supervisor sees it (word ACTUAL)."""

    NONE = 0
    STARTING = 1
    LIVE = 2
    HUNG = 3
    DEAD = 4
    BACKOFF = 5
    FAILED = 6
    STOPPING = 7
    STOPPED = 8


@unique
class Word(IntEnum):
    """Index of each word in its row."""

    # line 0: identity
    PID = 0
    START_TICKS = 1
    BOOT_HI = 2
    BOOT_LO = 3
    EPOCH = 4
    ROLE = 5  # role * 1000 + index
    STARTED_NS = 6
    STATE = 7
    # line 1: life. beat and last input are monotonic, last error is wall clock
    BEAT_NS = 8
    TURNS = 9
    PROGRESS = 10
    LAST_INPUT_NS = 11
    BACKLOG = 12
    RSS_BYTES = 13
    OPEN_FDS = 14
    LAST_ERROR_NS = 15
    # line 2: heads of what the process publishes
    HEAD_DEPTH = 16
    HEAD_LIQUIDATION = 17
    HEAD_CANDLES = 18
    HEAD_LIQUIDATIONS = 19
    HEAD_DOCUMENTS = 20
    # line 3: requests (engine -> ingest) and positions; 24 + venue - 1
    RESYNC_ASKED_BINANCE = 24
    RESYNC_ASKED_BYBIT = 25
    RESYNC_ASKED_OKX = 26
    RESYNC_ASKED_GATE = 27
    RESYNC_ASKED_BITGET = 28
    RESYNC_ASKED_HYPERLIQUID = 29
    CHECKPOINT_POSITION = 30
    RELOAD_SEEN = 31
    # lines 4-12: counters
    MESSAGES = 32
    EVENTS = 33
    BATCHES = 34
    BYTES_IN = 35
    DROPPED_RECORDS = 36
    DROPPED_BATCHES = 37
    GAPS = 38
    RESYNCS = 39
    RESYNC_DONE = 40
    PARSE_ERRORS_BINANCE = 41
    PARSE_ERRORS_BYBIT = 42
    PARSE_ERRORS_OKX = 43
    PARSE_ERRORS_GATE = 44
    PARSE_ERRORS_BITGET = 45
    PARSE_ERRORS_HYPERLIQUID = 46
    UNKNOWN_SYMBOL = 47
    REFUSED_EVENTS = 48
    REFUSED_FRAMES = 49
    REFUSED_DOCUMENTS = 50
    DIGEST_RETRIES = 51
    LAPPED_READS = 52
    DUPLICATES_SKIPPED = 53
    RECONNECTS = 54
    REST_REQUESTS = 55
    REST_ERRORS = 56
    RATE_LIMITED = 57
    LOG_ERRORS = 58
    WRITE_ERRORS = 59
    HANDLER_ERRORS = 60
    CAPTURE_RECORDS = 61
    CAPTURE_DROPPED = 62
    LATE_EVENTS = 63
    MINUTES_ROLLED = 64
    MINUTES_SKIPPED = 65
    DEPTH_FRAMES = 66
    DEPTH_SLOTS_EMPTY = 67
    TRADES = 68
    DEPTH_UPDATES = 69
    SNAPSHOTS = 70
    MARKS = 71
    LIQUIDATIONS = 72
    CHECKPOINTS = 73
    QUARANTINED = 74
    HTTP_REQUESTS = 75
    HTTP_4XX = 76
    HTTP_5XX = 77
    CACHE_HITS = 78
    CACHE_MISSES = 79
    CACHE_ENTRIES = 80
    CACHE_BYTES = 81
    SENDS_CONFLATED = 82
    CLOCK_JUMPS = 83
    SYNC_ERRORS = 84
    IN_FLIGHT_POSITION = 85  # engine: position + 1 of the batch being applied, 0 between batches; survives the process
    CRASH_POSITION = 86  # engine: position + 1 of the batch that the process before died in,
    CRASHES_THERE = 87  # and how many processes in a row died in the same record of it
    DEPTH_WRITE_NS = 88  # engine: how long the newest depth frame took to write,
    DEPTH_WRITE_NS_SUM = 89  # and all of DEPTH_FRAMES together
    IN_FLIGHT_RECORD = 90  # engine: place + 1 in that batch of the record being applied, while it takes them one by one
    CRASH_RECORD = 91
    # ingest: state of each venue (`VENUE_STATES`), and its streams: LIVE + (STALE << 16) + (all others << 32); + venue - 1
    VENUE_STATE_BINANCE = 92
    VENUE_STATE_BYBIT = 93
    VENUE_STATE_OKX = 94
    VENUE_STATE_GATE = 95
    VENUE_STATE_BITGET = 96
    VENUE_STATE_HYPERLIQUID = 97
    VENUE_STREAMS_BINANCE = 98
    VENUE_STREAMS_BYBIT = 99
    VENUE_STREAMS_OKX = 100
    VENUE_STREAMS_GATE = 101
    VENUE_STREAMS_BITGET = 102
    VENUE_STREAMS_HYPERLIQUID = 103
    # lines 13-15: the supervisor's view of this row
    DESIRED = 104
    ACTUAL = 105
    RESTARTS = 106
    LAST_EXIT = 107
    LAST_SIGNAL = 108
    BACKOFF_UNTIL_NS = 109
    KILLS = 110
    HANG_REASON = 111
    GENERATION = 112
    OOM_SUSPECTED = 113
    FAILED_SINCE_NS = 114


def resync_word(venue: int) -> Word:
    """Word in which an engine asks for a snapshot of `venue`'s book (a count that only rises)."""
    return Word(Word.RESYNC_ASKED_BINANCE + venue - 1)


def parse_errors_word(venue: int) -> Word:
    """Counter of messages of `venue` that could not be read."""
    return Word(Word.PARSE_ERRORS_BINANCE + venue - 1)


VENUE_STATES: Final = ("", "LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED")
"""Names of the values of a venue-state word; 0: not said yet."""


def venue_state_word(venue: int) -> Word:
    """Word in which ingest says the state of `venue`."""
    return Word(Word.VENUE_STATE_BINANCE + venue - 1)


def venue_streams_word(venue: int) -> Word:
    """Word in which ingest says how many streams of `venue` are in which state."""
    return Word(Word.VENUE_STREAMS_BINANCE + venue - 1)
