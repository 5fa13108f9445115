"""The scale of `u8log` cells, which lies with what clients decode it with."""

from __future__ import annotations

from mpengine.cells import HI_USD, LO_USD, STEPS, Cells, Usd, u8log, usd_of_u8log

__all__ = ["HI_USD", "LO_USD", "STEPS", "Cells", "Usd", "u8log", "usd_of_u8log"]
