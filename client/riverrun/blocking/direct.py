"""Who may take records of a batch that is open already: the calling thread itself, if nobody else acts."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from riverrun.blocking.loop_thread import LoopThread
from riverrun.errors import ClosedError

T = TypeVar("T")


class Direct:
    """Keeps two threads from acting on one consumer at a time, at the price of a lock for a record.

    Transitions: off -> on (a record was taken on the loop, and no other call is under way) -> off
    (any other call begins).

    While it is on, no call of this consumer runs on the loop, so that the thread that iterates may
    take records itself; a change of threads for each record would cost fifty times as much.
    """

    def __init__(self, thread: LoopThread) -> None:
        self.thread = thread
        # Held while one record is taken, and never while anything waits.
        self.lock = threading.Lock()
        # One thread at a time waits for records; the others wait for their turn.
        # Reentrant, for that one knows who has it: an interrupt may come just when it was got.
        self.taking = threading.RLock()
        self.on = False
        self._under_way: set[object] = set()

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Do something with the consumer on the loop."""
        call = object()
        try:
            self.begin(call)
            return self.thread.call(make)
        finally:
            self.end(call)

    def take(
        self,
        make: Callable[[], Awaitable[T]],
        late: Callable[[T], None],
        *,
        then_on: bool = False,
        turn_s: float | None = None,
    ) -> T:
        """Take records on the loop; `late` puts them back where the calling thread is interrupted.

        Args:
            make: takes them.
            late: is called on the loop.
            then_on: records of the same batch may follow, which the calling thread takes itself.
            turn_s: how long to wait while other threads wait for records; None is for ever.

        Raises:
            TimeoutError: they did all the time.
        """
        result: list[T] = []
        call = object()
        try:
            try:
                self._wait_for_turn(turn_s)
                try:
                    self.begin(call)
                    result.append(self.thread.call(make, late))
                finally:
                    self.end(call, then_on=then_on and bool(result))
            finally:
                self._end_turn()
        except BaseException:
            if result:
                self.put_back(partial(late, result[0]))
            raise
        return result[0]

    def put_back(self, put: Callable[[], None]) -> None:
        """Have something put back on the loop before anybody takes again, the calling thread included."""
        call = object()

        def put_and_end() -> None:
            try:
                put()
            finally:
                self.end(call)

        self.begin(call)
        # Of a client that is closed nobody takes anything any more.
        with suppress(ClosedError):
            self.thread.post(put_and_end)

    def begin(self, call: object) -> None:
        """Turn it off, for a call begins."""
        with self.lock:
            self.on = False
            self._under_way.add(call)

    def end(self, call: object, *, then_on: bool = False) -> None:
        """Note the end of a call; turn it on if that is asked for and was the last one.

        An interrupt may have come before the call's beginning was noted, or just behind that.
        """
        with self.lock:
            self._under_way.discard(call)
            self.on = then_on and not self._under_way

    def _wait_for_turn(self, turn_s: float | None) -> None:
        if not self.taking.acquire(timeout=-1 if turn_s is None else turn_s):
            raise TimeoutError

    def _end_turn(self) -> None:
        try:
            self.taking.release()
        except RuntimeError:
            # It was never this thread's turn.
            return
