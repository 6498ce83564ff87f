"""A thread with an event loop of its own, on which everything behind one blocking client runs."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from riverrun._net.forking import forked
from riverrun.blocking.calls import Call
from riverrun.errors import ClosedError, Reason, UsageError

T = TypeVar("T")


class _State(enum.Enum):
    NEW = enum.auto()
    RUNNING = enum.auto()
    CLOSED = enum.auto()
    FORKED = enum.auto()


class LoopThread:
    """Runs calls of any thread on one loop. Transitions: new -> running -> closed; running -> forked.

    It starts with the first call, so that a client that was made and not used survives a fork. The
    thread is a daemon, because what ends it is that the client is closed, let go, or that the
    interpreter exits (`lifetimes`).
    """

    def __init__(self) -> None:
        # A collection in the midst of it may close a client, on the same thread.
        self._lock = threading.RLock()
        self._state = _State.NEW
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self.is_forked = False
        self.is_exiting = False

    @property
    def running(self) -> bool:
        """Whether there is a thread that has to be ended."""
        return self._state is _State.RUNNING

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it: in a callback."""
        return self._thread is threading.current_thread()

    def check(self) -> None:
        """Refuse calls that could never be answered.

        Raises:
            FatalError: this process was forked from the one where the thread runs.
            UsageError: the call comes from the thread itself, which would wait for itself.
        """
        if self.is_forked:
            raise forked("this client belongs to the process that this one was forked from")
        if self.is_current:
            raise UsageError(
                "a blocking call was made on the client's own thread, in a callback (on_delivery, "
                "on_reset, of a future, a partitioner or a deserializer), where it would wait for "
                "itself; make it in a thread of yours",
                reason=Reason.INVALID_REQUEST,
            )

    def call(self, make: Callable[[], Awaitable[T]], late: Callable[[T], None] | None = None) -> T:
        """Run a coroutine on the loop and wait for it.

        Args:
            make: makes it, on the loop.
            late: takes its result, on the loop, where the wait for it was interrupted.

        Raises:
            ClosedError: the client was closed.
            BaseException: whatever the coroutine raises; KeyboardInterrupt at once.
        """
        return self.answer(Call(make, late))

    def answer(self, call: Call[T], meanwhile: Callable[[], None] | None = None) -> T:
        """Start a call, do something in this thread meanwhile, and wait for the call."""
        try:
            self.check()
            self.post(call.start)
            if meanwhile is not None:
                meanwhile()
            return call.take()
        except BaseException as error:
            if self.running:
                self._post(call.abandon)
            self.park_at_exit(error)
            raise

    def post(self, callback: Callable[[], object]) -> None:
        """Have something done on the loop soon, in the order in which it was posted.

        Raises:
            ClosedError: the client was closed.
        """
        if self._state is not _State.RUNNING:
            self._start()
        if not self._post(callback):
            error = _closed()
            self.park_at_exit(error)
            raise error

    def park_at_exit(self, error: BaseException) -> None:
        """Keep a daemon thread from complaining that the interpreter exits, which ends it anyway."""
        if self.is_exiting and isinstance(error, ClosedError) and threading.current_thread().daemon:
            threading.Event().wait()

    def close(self) -> None:
        """Take no more calls, and end the thread behind those posted before; from any thread."""
        with self._lock:
            if self._state is _State.RUNNING:
                assert self._loop is not None, "it runs"
                assert self._end is not None, "it runs"
                self._loop.call_soon_threadsafe(self._end.set)
            if self._state is not _State.FORKED:
                self._state = _State.CLOSED

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has ended; return whether it has."""
        thread = self._thread
        if thread is None or self.is_forked or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def after_fork(self) -> None:
        """Note, in the child, that the thread is not here; its lock may be held by nobody."""
        self._lock = threading.RLock()
        if self._state is not _State.NEW:
            self.is_forked = True
            self._state = _State.FORKED

    def _post(self, callback: Callable[[], object]) -> bool:
        with self._lock:
            if self._state is not _State.RUNNING:
                return False
            assert self._loop is not None, "it runs"
            self._loop.call_soon_threadsafe(callback)
            return True

    def _start(self) -> None:
        with self._lock:
            if self._state is _State.NEW:
                loop, self._end = asyncio.new_event_loop(), asyncio.Event()
                self._loop = loop
                self._thread = threading.Thread(
                    target=self._run, args=(loop, self._end), name="riverrun client", daemon=True
                )
                self._thread.start()
                self._state = _State.RUNNING
            elif self._state is not _State.RUNNING:
                self.check()
                raise _closed()

    def _run(self, loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
        loop.set_exception_handler(_report)
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_until(end))
        finally:
            with self._lock:
                self._state = _State.CLOSED


async def _until(end: asyncio.Event) -> None:
    await end.wait()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what nobody else hears, but for what gRPC has left over for a loop that is closed.

    All loops of a process take gRPC's events from one queue, also those of each other.
    """
    error = context.get("exception")
    of_grpc = "PollerCompletionQueue" in str(context.get("handle"))
    if not (of_grpc and isinstance(error, (RuntimeError, BlockingIOError))):
        loop.default_exception_handler(context)


def _closed() -> ClosedError:
    return ClosedError("the client was closed; make a new one", reason=Reason.CLOSED)
