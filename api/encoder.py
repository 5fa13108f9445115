"""Compressed forms of kept answers: made when the first client wants one, once, and off the loop where that takes long."""

from __future__ import annotations

import asyncio
from typing import Final

from api.bodies import Answer
from api.cache import Builder, Cache, Key
from api.encodings import Accepted

AT_ONCE: Final = 64 << 10  # up to this size it is made in the loop: about a millisecond


class Encoder:
    """Of one worker. `accepted`: what clients take, by their header."""

    def __init__(self, cache: Cache, builder: Builder) -> None:
        self.accepted = Accepted()
        self._cache = cache
        self._builder = builder
        self._pending: dict[tuple[int, str], asyncio.Task[None]] = {}

    async def prepare(self, key: Key, answer: Answer, coding: str) -> None:
        """Make the form of an answer, unless it is there or not worth it. `key`: under which the answer is kept."""
        # One that is not kept would be compressed for this response alone: that is a proxy's business.
        if coding in answer.forms or not self._cache.holds(key, answer):
            return
        if answer.template.size <= AT_ONCE:
            answer.forms[coding] = answer.encoded(coding)
        else:
            # The answer lives as long as its task: no other one can have its id meanwhile.
            pending = self._pending.get((id(answer), coding))
            if pending is None:
                pending = self._pending[id(answer), coding] = asyncio.create_task(self._encode(answer, coding))
            await asyncio.shield(pending)
        self._cache.grown(key, answer)

    async def _encode(self, answer: Answer, coding: str) -> None:
        try:
            answer.forms[coding] = await self._builder.run(lambda: answer.encoded(coding))
        finally:
            del self._pending[id(answer), coding]
