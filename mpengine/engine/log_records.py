"""What an engine's parts tell its log files: return values, written by the shell (`spec: engine`, section 20). Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

LogKind = Literal["tape", "sweeps", "inference", "debug", "cycles", "zones", "calibrator", "plot_feed"]


class LogOut(NamedTuple):
    """One line of the log `liq_{kind}_{SYM}` (that of the plot feed has no prefix).

    Plain values; `record["event"]` names what happened.
    """

    kind: LogKind
    record: dict[str, Any]
