"""How a blocking client ends: closed, let go by everybody, at the interpreter's exit, or by a fork."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from weakref import WeakSet

from riverrun.blocking.loop_thread import LoopThread
from riverrun.errors import RiverrunError

_FLUSH_S = 5.0
"""So long a client that nobody closed flushes, once it is let go or the interpreter exits."""
# What else closing takes: a stream's end is waited for, the thread has to notice.
_GRACE_S = 7.0

Closing = Callable[[float | None], Awaitable[None]]
"""Closes the async client on the loop; the argument bounds the flushing, in seconds."""


class Lifetime:
    """The end of one loop thread, begun once, from whatever side.

    Args:
        thread: where the client lives.
        closing: closes it.
    """

    def __init__(self, thread: LoopThread, closing: Closing) -> None:
        self._thread = thread
        self._closing = closing
        self._task: asyncio.Task[None] | None = None
        self._over = threading.Event()
        self._error: BaseException | None = None
        _alive.add(self)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to close, or it is another process's."""
        return self._over.is_set() or self.inherited

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self._thread.is_forked

    def close(self, timeout_s: float | None) -> None:
        """Close the client and end its thread; an interrupt ends the waiting, not the closing."""
        # A child process has nothing to close, and must be able to leave its blocks.
        if self.inherited:
            return
        self._thread.check()
        if self.begin(timeout_s):
            self._over.wait()
            self._thread.join()
            if self._error is not None:
                raise self._error

    def begin(self, timeout_s: float | None) -> bool:
        """Begin to close; return whether there is an end to wait for. Safe in a finalizer."""
        thread = self._thread
        # The thread itself may begin, for a collection runs wherever it happens to.
        if self.inherited:
            return False
        if thread.running:
            thread.post(partial(self._start, timeout_s))
            return True
        thread.close()
        return self._task is not None

    def exit(self) -> None:
        """Begin to close because the interpreter exits."""
        self._thread.is_exiting = True
        with suppress(RiverrunError):
            self.begin(_FLUSH_S)

    def wait(self, until_s: float) -> None:
        """Wait until the thread has ended, at most until that time of the monotonic clock."""
        self._thread.join(max(0.0, until_s - time.monotonic()))

    def after_fork(self) -> None:
        """Note, in the child, that this is the parent's business."""
        self._thread.after_fork()

    def _start(self, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(timeout_s), name="riverrun closing")
        elif timeout_s is not None:
            # Whoever began had more time than whoever wants it now.
            loop.call_later(timeout_s, self._task.cancel)

    async def _run(self, timeout_s: float | None) -> None:
        try:
            await self._closing(timeout_s)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that closes
            self._error = error
        finally:
            self._thread.close()
            self._over.set()


_alive: WeakSet[Lifetime] = WeakSet()
# What a child process inherits is neither used nor freed there: freeing it would talk to the parent's broker.
_inherited: list[Lifetime] = []


def ends_with(owner: object, lifetime: Lifetime) -> None:
    """Close a client when nobody has its object any more."""
    weakref.finalize(owner, _let_go, lifetime).atexit = False


def _let_go(lifetime: Lifetime) -> None:
    with suppress(RiverrunError):
        if not lifetime.inherited:
            lifetime.begin(_FLUSH_S)


def _close_all() -> None:
    """At the interpreter's exit: flush what was sent, for a bounded time, all clients at once."""
    ending = [lifetime for lifetime in _alive if not lifetime.inherited]
    for lifetime in ending:
        lifetime.exit()
    until_s = time.monotonic() + _FLUSH_S + _GRACE_S
    for lifetime in ending:
        lifetime.wait(until_s)


def _after_fork() -> None:
    _inherited.extend(_alive)
    for lifetime in _inherited:
        lifetime.after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
