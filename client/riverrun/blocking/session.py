"""The async client behind a blocking one: made, used and closed on its own thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TypeVar
from weakref import WeakSet

import riverrun.client
import riverrun.producer
from riverrun.blocking.direct import Direct
from riverrun.blocking.lifetimes import Lifetime
from riverrun.blocking.loop_thread import LoopThread
from riverrun.blocking.send_queue import SendQueue
from riverrun.errors import ClosedError

T = TypeVar("T")


class Session:
    """What all objects of one blocking client share; it knows none of them, so they can be let go.

    Args:
        client: the async client.
    """

    def __init__(self, client: riverrun.client.Client) -> None:
        self.client = client
        self.thread = LoopThread()
        self.lifetime = Lifetime(self.thread, self._close)
        self.queues: set[SendQueue] = set()
        self.directs: WeakSet[Direct] = WeakSet()

    def make(self, make: Callable[[], T]) -> T:
        """Make something, or ask something that needs no waiting, on the loop."""

        async def made() -> T:
            return make()

        return self.thread.call(made)

    def ask(self, ask: Callable[[], T]) -> T:
        """Ask something that needs no waiting, also from a callback, and after the end."""
        if not self.thread.is_current:
            with suppress(ClosedError):
                return self.make(ask)
            self.thread.join()
        return ask()

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate in the calling thread over what comes on the loop."""

        async def following() -> T:
            return await anext(items)

        while True:
            try:
                item = self.thread.call(following)
            except StopAsyncIteration:
                return
            yield item

    async def close_producer(
        self,
        producer: riverrun.producer.Producer[bytes, bytes],
        queue: SendQueue,
        timeout_s: float | None,
    ) -> None:
        """Give a producer what is on its way to it, and close it, within that time."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await queue.taken()
        try:
            await producer.close(timeout_s=_left_s(timeout_s, loop.time() - began_s))
        finally:
            queue.close()
            self.queues.discard(queue)

    async def _close(self, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for direct in tuple(self.directs):
            direct.begin(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(queue.taken() for queue in self.queues))
        try:
            await self.client.close(timeout_s=_left_s(timeout_s, loop.time() - began_s))
        finally:
            for queue in self.queues:
                queue.close()


def _left_s(timeout_s: float | None, passed_s: float) -> float | None:
    return None if timeout_s is None else max(0.0, timeout_s - passed_s)
