"""Requests on their way in: how long one may take to arrive, and what is said of one that is none.

A request takes memory while it arrives, up to the largest message, and whoever sends it decides how
fast that is. So few may be slow at a time: where there are more, the slowest are given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError

from riverrun_server.core.errors import Reason, Refusal

# 4 MiB take 0.3 s at 100 Mbit/s; whoever is slower is so without harm as long as few are.
SLOW_S: Final = 1.0
# 4 MiB at 1 Mbit/s take 34 s.
GIVEN_UP_S: Final = 60.0

Parse = Callable[[bytes], Any]
# (name of the limit, reason, text) -> the refusal, counted.
Reached = Callable[[str, Reason, str], Refusal]


class Receiving:
    """The requests that have begun and not arrived yet.

    Transitions of a request: arriving -> arrived; arriving -> given up, after GIVEN_UP_S, or after
    SLOW_S where too many are slow, the oldest first.

    Args:
        slow_max: how many may take longer than SLOW_S at a time.
        reached: makes the refusal of those that are given up.
    """

    def __init__(self, slow_max: int, reached: Reached) -> None:
        self._slow_max = slow_max
        self._reached = reached
        # In the order in which they began, with the time.
        self._arriving: dict[asyncio.Task[Any], float] = {}
        self._given_up: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    async def request(
        self, context: grpc.aio.ServicerContext[Any, Any], task: asyncio.Task[Any]
    ) -> Any:
        """Return the one request of a call, which runs in this task.

        Raises:
            Refusal: INVALID_REQUEST where there is none; OVERLOADED where it took too long.
        """
        self._arriving[task] = asyncio.get_running_loop().time()
        if self._timer is None:
            self._look_later()
        try:
            request: object = await context.read()
        except asyncio.CancelledError:
            if task not in self._given_up:
                raise
            task.uncancel()
            raise self._refusal() from None
        finally:
            del self._arriving[task]
            self._given_up.discard(task)
        if request is grpc.aio.EOF:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "the call ended without a request; send one message, empty if need be",
            )
        return request

    def _look(self) -> None:
        """Give up what takes too long; look again in a while, as long as something arrives."""
        now = asyncio.get_running_loop().time()
        if now - self._due > SLOW_S / 2:
            # The loop was held up, and what has arrived meanwhile waits behind this to be read.
            self._look_later()
            return
        slow = [task for task, since in self._arriving.items() if now - since >= SLOW_S]
        old = [task for task in slow if now - self._arriving[task] >= GIVEN_UP_S]
        surplus = max(len(old), len(slow) - self._slow_max)
        for task in slow[:surplus]:
            if task not in self._given_up:
                self._given_up.add(task)
                task.cancel()
        self._timer = None
        if self._arriving:
            self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + SLOW_S
        self._timer = loop.call_at(self._due, self._look)

    def _refusal(self) -> Refusal:
        return self._reached(
            "slow_requests",
            Reason.OVERLOADED,
            f"the request had not arrived after {SLOW_S:g} s, when more than {self._slow_max} were "
            f"as slow, or after {GIVEN_UP_S:g} s; send it again, or send less at once",
        )


def checked(method: str, parse: Parse) -> Parse:
    """Return `parse`, with our own error for bytes that are no message.

    gRPC would answer UNKNOWN, without saying whether something happened, and log a traceback for
    each of them.
    """

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"a message of {len(data)} bytes to {method} cannot be parsed: {error}",
            ) from error

    return parsed
