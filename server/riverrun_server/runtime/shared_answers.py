"""Asks a question once for all who have it at the same time, so that a crowd costs what one does.

Intuition: an answer is good for whoever asked before the question was sent. So there is at most one
question under way, and one more for all who have come since it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedAnswers(Generic[T]):
    """The answers to one question.

    Transitions: idle -> asking -> idle; asking -> asking, and another one waits for that -> asking.
    A question that nobody waits for any more is given up.

    Args:
        ask: asks; what it raises, everybody gets.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None
        self._waiting: dict[asyncio.Task[T], int] = {}

    async def answer(self) -> T:
        """Return the answer to a question that was not sent before this call.

        Raises:
            Exception: what asking raises.
        """
        asked = self._next
        if asked is None:
            asked = self._next = asyncio.create_task(self._in_turn(), name="shared question")
            self._waiting[asked] = 0
        self._waiting[asked] += 1
        try:
            # Shielded: others wait for it, too.
            return await asyncio.shield(asked)
        finally:
            self._waiting[asked] -= 1
            if not self._waiting[asked]:
                del self._waiting[asked]
                await self._give_up(asked)

    async def _in_turn(self) -> T:
        if self._asking is not None:
            await asyncio.wait((self._asking,))
        self._asking, self._next = self._next, None
        return await self._ask()

    async def _give_up(self, asked: asyncio.Task[T]) -> None:
        if self._next is asked:
            self._next = None
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
