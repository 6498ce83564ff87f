"""Keeps a subscription open, through broken connections, from where it stood.

Intuition: streams come and go, the machine stays; each new stream is asked for exactly what the last
one would have delivered next.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable

from riverrun._core.backoff import Backoff
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import From, PositionReset, TopicPartition
from riverrun._net.channel import Connection, Connections
from riverrun._net.offsets import fetch_group_offsets
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine, SubscribeStream
from riverrun.errors import (
    ClosedError,
    FatalError,
    NoBrokerError,
    Reason,
    RetriableError,
    RiverrunError,
)

_OWN_WRITE = "Internal error from Core"

_log = logging.getLogger("riverrun")


class SubscribeLoop:
    """Drives one consumer's machine. Transitions: idle -> connecting -> streaming -> connecting...

    Owns its task and the timers of partitions that are to be asked for again; `close` ends them.

    Args:
        connections: finds brokers.
        machine: takes what comes.
        settings: what is asked of each stream.
        backoff: delays between streams, and between attempts at a partition.
    """

    def __init__(
        self,
        connections: Connections,
        machine: Machine,
        settings: SubscribeSettings,
        backoff: Backoff,
    ) -> None:
        self._connections = connections
        self._machine = machine
        self._settings = settings
        self._backoff = backoff
        self._stream: SubscribeStream | None = None
        self._changed = asyncio.Event()
        self._seeks: dict[TopicPartition, asyncio.Future[None]] = {}
        self._timers: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._closing = False
        self._lookups: dict[TopicPartition, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="riverrun consumer")
            self._task.add_done_callback(self._ended)

    def _start_again(self) -> None:
        """Begin anew where all had been delivered and there is now something else to read."""
        task = self._task
        if task is not None and task.done() and not task.cancelled() and not task.exception():
            self._task = None
            self.start()

    async def change(self) -> None:
        """Wait until the machine has something new."""
        self._changed.clear()
        await self._changed.wait()

    def credit_freed(self) -> None:
        """Say that the application has taken something."""
        if self._stream is not None:
            self._stream.wake()

    async def seek(self, partition: TopicPartition, to: From) -> None:
        """Go elsewhere in one partition; return once the broker has done so.

        Raises:
            RiverrunError: the broker refuses the place, or nothing will come any more.
        """
        if self._machine.error is not None:
            raise copy.copy(self._machine.error)
        earlier = self._seeks.pop(partition, None)
        if earlier is not None and not earlier.done():
            earlier.set_result(None)
        reader = self._machine.seek(partition, to)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seeks[partition] = done
        self._say_seek(reader)
        self._start_again()
        await done

    def pause(self, partitions: Iterable[TopicPartition]) -> list[PartitionReader]:
        """Stop partitions; return those that were flowing."""
        changed = self._machine.pause(partitions)
        if changed and self._stream is not None:
            self._stream.pause(changed)
        self.credit_freed()
        return changed

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Go on with paused partitions."""
        changed = self._machine.resume(partitions)
        if changed and self._stream is not None:
            for reader, has_seek in changed:
                if has_seek:
                    self._stream.seek(reader)
            self._stream.resume([reader for reader, _ in changed])
        if any(has_seek for _, has_seek in changed):
            self._start_again()
        self._changed.set()

    async def close(self) -> None:
        """End the stream and all that belongs to it. Safe to call twice."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._closing = True
        tasks = [*self._lookups.values()]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._changed.set()

    async def _run(self) -> None:
        """Open one stream after the other until everything asked for has been delivered."""
        give_up_s = asyncio.get_running_loop().time() + self._connections.request_timeout_s
        while True:
            connection: Connection | None = None
            stream: SubscribeStream | None = None
            try:
                connection = await self._connections.connect()
                await self._find_committed()
                stream = self._new_stream(connection)
                self._stream = stream
                await stream.run()
                if self._settings.stop_at_end and self._all_delivered():
                    return
                # The broker goes away, and another one may be there already.
                self._connections.lost(connection)
                delay_s = stream.reconnect_after_s or self._backoff.next_s()
            except RetriableError as error:
                late = asyncio.get_running_loop().time() >= give_up_s
                if not self._begun and (late or isinstance(error, NoBrokerError)):
                    raise
                delay_s = self._after(error, connection, stream)
            finally:
                self._stream = None
            await asyncio.sleep(delay_s)

    async def _find_committed(self) -> None:
        """Look up where a group has come to, before a stream's start says where to begin.

        Explicit partitions are looked up before the first stream, and afterwards all that have
        never begun: what a start says of them counts whatever is committed. The broker is asked for
        the place by its name, so that it is the one committed by then, with its leader epoch.
        """
        settings, machine = self._settings, self._machine
        if machine.readers:
            for partition in [p for p, reader in machine.readers.items() if not reader.begun]:
                await self._place(partition)
        elif settings.committed_first:
            found = await fetch_group_offsets(
                self._connections, settings.group, settings.committed_first
            )
            committed: dict[TopicPartition, From] = {
                p: "committed" for p, at in found.items() if at is not None
            }
            machine.places = {**settings.places, **committed}

    async def _place(self, partition: TopicPartition) -> None:
        """Let a partition that has never begun begin where its group has come to by now."""
        settings, reader = self._settings, self._machine.readers[partition]
        if reader.gone or not settings.follows_group(partition):
            return
        found = await fetch_group_offsets(self._connections, settings.group, [partition])
        # Meanwhile it may have begun after all, or the application has gone elsewhere.
        if not reader.begun:
            begin_at = settings.places.get(partition, settings.begin_at)
            reader.place = begin_at if found.get(partition) is None else "committed"

    def _after(
        self, error: RetriableError, connection: Connection | None, stream: SubscribeStream | None
    ) -> float:
        """Return how long to wait after a broken stream."""
        if connection is not None:
            self._connections.lost(connection)
        level = logging.INFO
        if stream is not None and stream.frames:
            self._backoff.reset()
            # A credit written to a stream that has just ended fails in gRPC's core, which then
            # hides that end: nothing was interrupted.
            if _OWN_WRITE not in str(error):
                level = logging.WARNING
        _log.log(level, "subscription interrupted, going on: %s", error)
        return self._backoff.next_s(error.retry_after_s)

    def _new_stream(self, connection: Connection) -> SubscribeStream:
        return SubscribeStream(
            connection,
            self._machine,
            self._settings,
            changed=self._wake,
            on_sought=self._sought,
            on_failed=self._ask_again_later,
            on_reset=self._position_reset,
        )

    def _wake(self) -> None:
        self._begun = True
        self._changed.set()

    def _all_delivered(self) -> bool:
        """Whether every partition has come to its end, taken by the application or not."""
        return all(
            reader.gone
            or (
                reader.end is not None
                and reader.expected >= reader.end
                and reader.place is None
                # What a pause has dropped is read again when it ends.
                and (reader.paused or not reader.dropped)
            )
            for reader in self._machine.readers.values()
        )

    def _say_seek(self, reader: PartitionReader) -> None:
        """Send a seek, if there is a stream; else the next one begins there."""
        if self._stream is not None and reader.partition in self._machine.readers:
            self._stream.seek(reader)

    def _sought(self, reader: PartitionReader, error: RiverrunError | None) -> None:
        done = self._seeks.pop(reader.partition, None)
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def _ask_again_later(self, partition: TopicPartition, after_s: float) -> None:
        if partition not in self._timers:
            delay_s = self._backoff.next_s(after_s)
            loop = asyncio.get_running_loop()
            self._timers[partition] = loop.call_later(delay_s, self._ask_again, partition)

    def _ask_again(self, partition: TopicPartition) -> None:
        del self._timers[partition]
        reader = self._machine.readers[partition]
        if not reader.begun and self._settings.follows_group(partition):
            if partition not in self._lookups:
                task = asyncio.create_task(self._begin_again(partition), name="riverrun lookup")
                self._lookups[partition] = task
                task.add_done_callback(lambda _: self._lookups.pop(partition, None))
            return
        self._say_seek(self._machine.ask_again(partition))

    async def _begin_again(self, partition: TopicPartition) -> None:
        """Ask once more for a partition that has never begun."""
        try:
            await self._place(partition)
        except RiverrunError as error:
            _log.info("%s: cannot tell yet where its group has come to: %s", partition, error)
            self._ask_again_later(partition, error.retry_after_s or 0.0)
        else:
            self._say_seek(self._machine.ask_again(partition))

    def _position_reset(self, reset: PositionReset) -> None:
        _log.warning(
            "%s: position %d is out of range, reading goes on at %d: %s",
            reset.partition, reset.old_offset, reset.new_offset, reset.cause,
        )  # fmt: skip
        if self._settings.on_reset is not None:
            try:
                self._settings.on_reset(reset)
            except Exception:  # noqa: BLE001
                _log.exception("on_reset failed")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell the application and whoever seeks why nothing more will come."""
        if task is not self._task:
            # It had come to its end, and another one has begun.
            return
        error: RiverrunError | None
        if not task.cancelled():
            error = _as_error(task.exception())
        elif self._closing:
            error = ClosedError("the consumer was closed meanwhile", reason=Reason.CLOSED)
        else:
            error = FatalError("the consumer's task was cancelled", reason=Reason.INTERNAL)
        self._machine.error = error
        if error is not None:
            for done in self._seeks.values():
                if not done.done():
                    done.set_exception(copy.copy(error))
            self._seeks.clear()
        self._changed.set()


def _as_error(error: BaseException | None) -> RiverrunError | None:
    if error is None or isinstance(error, RiverrunError):
        return error
    text = f"a bug in the client: {type(error).__name__}: {error}"
    return FatalError(text, reason=Reason.INTERNAL, outcome_known=False)
