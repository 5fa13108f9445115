"""The one digest of shared memory: xxh3_64 with a seed. Named in every file header, so that a change is refused, not misread.

It guards against torn and stale bytes (2**-64 per attempt), not against somebody who wants to deceive.
xxh3 and not crc32: 64 bits, and 8-27 times the speed at the slot sizes in use (bench/rings.py).
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

DIGEST_XXH3_64: Final = 1

digest = xxh3_64_intdigest
"""digest(data, seed) -> u64. `data` is any contiguous private buffer; the seed is the frame number or ring position."""
