"""Keeps a subscription open, through broken connections, from where it stood.

Intuition: streams come and go, the machine stays; each new stream is asked for exactly what the last
one would have delivered next.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from riverrun._core.backoff import Backoff
from riverrun._core.episodes import Episodes
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import CommittedOffset, From, PositionReset, TopicPartition
from riverrun._net.channel import Connection, Connections
from riverrun._net.offsets import fetch_group_offsets
from riverrun._net.partition_retries import PartitionRetries
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

# How long a start may be held up by what is only worth a line in the log, and how long that line is.
_COMPARING_S = 1.0
_PLACES_TOLD = 10

_OWN_WRITE = "Internal error from Core"
# A stream that breaks sooner is still the same trouble, and no news.
_STEADY_S = 10.0
# Within that a broker is found that is there; who has waited longer is told why nothing comes.
_ALONE_S = 2.0

_log = logging.getLogger("riverrun")


class SubscribeLoop:
    """Drives one consumer's machine. Transitions: idle -> connecting -> streaming -> connecting...

    Owns its task and what asks again for partitions; `close` ends them.

    Args:
        connections: finds brokers.
        machine: takes what comes.
        settings: what is asked of each stream.
        backoff: delays between streams, and between attempts at a partition.

    Attributes:
        reconnects: how many streams there were after the first one that began.
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
        self._retries = PartitionRetries(
            connections,
            machine,
            settings,
            backoff,
            say_seek=self._say_seek,
            on_sought=self._sought,
            changed=self._wake,
        )
        self._breaks: Episodes[str] = Episodes()
        self._opened_s = self._heard_s = self._alone_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._begun = self._compared = False
        self._closing = False
        self.reconnects = 0

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._task is None:
            self._alone_s = asyncio.get_running_loop().time()
            self._task = asyncio.create_task(self._run(), name="riverrun consumer")
            self._task.add_done_callback(self._ended)

    def _start_again(self) -> None:
        """Begin anew where all had been delivered and there is now something else to read."""
        task = self._task
        if task is not None and task.done() and not task.cancelled() and not task.exception():
            self._task = None
            self.start()

    def waited_in_vain(self) -> None:
        """Tell, once, who has waited for records that there is no broker that could send any."""
        if self._stream is not None or self._task is None or self._task.done():
            return
        now_s = asyncio.get_running_loop().time()
        lasted_s = now_s - self._alone_s
        addresses = ", ".join(self._connections.addresses)
        nobody = NoBrokerError(f"no word from {addresses}", reason=Reason.NO_BROKER)
        trouble = self._connections.trouble
        if lasted_s >= _ALONE_S and self._breaks.failed("broker", nobody, now_s, at_once=True):
            _log.warning(
                "nothing can be read, still trying: no broker at %s for %.1f s; that no records come "
                "does not say that there are none%s", addresses, lasted_s, trouble and f"; {trouble}",
            )  # fmt: skip

    async def change(self) -> None:
        """Wait until the machine has something new."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Have whoever waits for records look again."""
        self._changed.set()

    def credit_freed(self) -> None:
        """Say that the application has taken something."""
        if self._stream is not None:
            self._stream.wake()

    async def seek(self, places: Mapping[TopicPartition, From]) -> None:
        """Go elsewhere in some partitions; return once the broker has done so.

        Raises:
            RiverrunError: the broker refuses a place, or nothing will come any more.
        """
        if self._machine.error is not None:
            raise copy.copy(self._machine.error)
        waiting = [self._begin_seek(partition, to) for partition, to in places.items()]
        self._start_again()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _begin_seek(self, partition: TopicPartition, to: From) -> asyncio.Future[None]:
        earlier = self._seeks.pop(partition, None)
        if earlier is not None and not earlier.done():
            earlier.set_result(None)
        reader = self._machine.seek(partition, to)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seeks[partition] = done
        self._say_seek(reader)
        return done

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
        self._closing = True
        try:
            if self._task is not None:
                try:
                    if self._stream is not None:
                        await self._stream.hang_up()
                finally:
                    self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            # Also where whoever closes is cancelled.
            self._changed.set()
            await self._retries.close()

    async def _run(self) -> None:
        """Open one stream after the other until everything asked for has been delivered."""
        self._heard_s = asyncio.get_running_loop().time()
        while True:
            connection: Connection | None = None
            stream: SubscribeStream | None = None
            try:
                connection = await self._connections.connect(again=self._begun)
                await self._find_committed()
                stream = self._new_stream(connection)
                self._stream = stream
                self._breaks.worked("broker")
                self.reconnects += self._begun
                await stream.run()
                # A broker that goes away ends streams that it is not through with.
                if (
                    self._settings.stop_at_end
                    and not stream.going_away
                    and self._machine.stream_ended()
                ):
                    return
                # The broker goes away, and another one may be there already.
                self._connections.lost(connection)
                delay_s = stream.reconnect_after_s or self._backoff.next_s()
            except RiverrunError as error:
                if self._closing:
                    raise asyncio.CancelledError from None  # it was hung up
                if not isinstance(error, RetriableError):
                    raise
                if not self._begun and isinstance(error, NoBrokerError):
                    raise
                self._check_contact(error, stream)
                delay_s = self._after(error, connection, stream)
            finally:
                if self._stream is not None:
                    self._alone_s = asyncio.get_running_loop().time()
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
                await self._retries.place(partition)
        elif settings.committed_first:
            found = await fetch_group_offsets(
                self._connections, settings.group, settings.committed_first
            )
            committed: dict[TopicPartition, From] = {
                p: "committed" for p, at in found.items() if at is not None
            }
            machine.places = {**settings.places, **committed}
        if settings.group and settings.chosen and not machine.readers and not self._compared:
            await self._compare_with_committed()

    async def _compare_with_committed(self) -> None:
        """Tell where the group's offsets count and not the place that the application has chosen.

        That is only told: what it needs is asked for once, for a moment, and may fail.
        """
        settings, self._compared = self._settings, True
        found: Mapping[TopicPartition, CommittedOffset | None] = {}
        with suppress(RiverrunError, TimeoutError):
            async with asyncio.timeout(_COMPARING_S):
                found = await fetch_group_offsets(self._connections, settings.group, ())
        named = {*settings.committed_first}
        going_on = [p for p in found if p in named or p.topic in settings.topics]
        if going_on:
            # The names are said on every start, for a group that is new; a place is meant.
            level = logging.INFO if isinstance(settings.begin_at, str) else logging.WARNING
            _log.log(
                level,
                "group %s goes on where it has committed, and from_ %s counts only elsewhere: %s; "
                "use seek to go there", settings.group, settings.begin_at,
                ", ".join(map(str, going_on[:_PLACES_TOLD])),
                extra={"riverrun_about": "from_"},
            )  # fmt: skip

    def _check_contact(self, error: RetriableError, stream: SubscribeStream | None) -> None:
        """Give up where nothing has been heard for the request timeout, and that is not to be borne.

        A consumer without an end waits for its brokers for ever. One that is to begin, or to come to
        an end, has somebody waiting for it.
        """
        now_s, limit_s = asyncio.get_running_loop().time(), self._connections.request_timeout_s
        if stream is not None and stream.frames:
            self._heard_s = now_s
        if now_s - self._heard_s < limit_s:
            return
        if not self._begun:
            raise error
        if self._settings.stop_at_end:
            final = copy.copy(error)
            final.message = (
                f"gave up waiting for the end after {limit_s:g} s without a word from any broker "
                f"(request_timeout_s): {error.message}"
            )
            raise final

    def _after(
        self, error: RetriableError, connection: Connection | None, stream: SubscribeStream | None
    ) -> float:
        """Return how long to wait after a broken stream."""
        if connection is not None:
            self._connections.lost(connection)
        now_s, flowed = asyncio.get_running_loop().time(), bool(stream and stream.frames)
        if flowed:
            self._backoff.reset()
            if now_s - self._opened_s >= _STEADY_S:
                self._breaks.worked("streams")
        # A credit written to a stream that has just ended fails in gRPC's core, which then hides
        # that end: nothing was interrupted.
        is_break = not flowed or _OWN_WRITE not in str(error)
        is_news = is_break and self._breaks.failed("streams", error, now_s, at_once=flowed)
        level = logging.WARNING if is_news else logging.INFO
        _log.log(level, "subscription interrupted, trying again: %s", error)
        return self._backoff.next_s(error.retry_after_s)

    def _new_stream(self, connection: Connection) -> SubscribeStream:
        self._opened_s = asyncio.get_running_loop().time()
        return SubscribeStream(
            connection,
            self._machine,
            self._settings,
            changed=self._wake,
            on_sought=self._sought,
            on_failed=self._retries.failed,
            on_reset=self._position_reset,
        )

    def _wake(self) -> None:
        self._begun = True
        self._retries.look()
        self._changed.set()

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
