"""Keeps a subscription to one broker open, through broken connections, from where it stood.

Intuition: streams come and go, the machine stays; each new stream is asked for exactly what the last
one would have delivered next, of the partitions that are read from this broker by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from riverrun._core.backoff import Backoff
from riverrun._core.episodes import Episodes
from riverrun._core.partition_reader import PartitionReader
from riverrun._net.channel import Connection
from riverrun._net.cluster import Cluster
from riverrun._net.contact import Contact
from riverrun._net.subscribe_stream import Machine, SubscribeStream
from riverrun.errors import NoBrokerError, RetriableError, RiverrunError

_OWN_WRITE = "Internal error from Core"
# A stream that breaks sooner is still the same trouble, and no news.
_STEADY_S = 10.0
# A broker that can be reached, and on whose streams nothing ever comes, is let alone for a while.
_FRUITLESS = 3
# Partitions move one by one where a broker has died: a stream that is opened anew takes along all
# that come within that, and not all consumers come in the same moment.
_GATHER_S, _GATHER_SPREAD_S = 0.02, 0.08

_log = logging.getLogger("riverrun")


class SubscribeOutlet:
    """One broker's streams. Transitions: idle -> connecting -> streaming -> connecting or idle...

    Args:
        broker_id: the broker; ANY for whichever answers, which passes on what it does not lead.
        cluster: finds it.
        machine: takes what comes.
        contact: of the consumer.
        uniform: returns a random number in [0, 1), for delays.
        prepare: called before each stream, to find out where partitions begin.
        new_stream: makes a stream to this broker on a connection.
        ended: called where the broker has delivered everything that it was asked for.

    Attributes:
        stream: the one that there is just now.
        reconnects: how many streams there were after the first one that began.
    """

    def __init__(
        self,
        broker_id: int,
        cluster: Cluster,
        machine: Machine,
        contact: Contact,
        uniform: Callable[[], float],
        *,
        prepare: Callable[[int], Awaitable[None]],
        new_stream: Callable[[int, Connection], SubscribeStream],
        ended: Callable[[], None],
    ) -> None:
        self._broker_id = broker_id
        self._cluster = cluster
        self._machine = machine
        self._contact = contact
        self._uniform = uniform
        self._prepare = prepare
        self._make_stream = new_stream
        self._ended = ended
        self._backoff = Backoff(uniform)
        self._breaks: Episodes[str] = Episodes()
        self._opened_s = 0.0
        self._fruitless = 0
        self._at_end = False
        self._begun = False
        self._wake = asyncio.Event()
        self._anew: asyncio.TimerHandle | None = None
        self._hanging_up: asyncio.Task[None] | None = None
        self.stream: SubscribeStream | None = None
        self.reconnects = 0

    def gain(self) -> None:
        """Take along partitions that are read from here by now, or a seek behind the end."""
        self._at_end = False
        self._wake.set()
        self._open_anew()

    def lose(self, reader: PartitionReader) -> None:
        """Read a partition no more: it is read from another broker."""
        if self.stream is not None:
            self.stream.lose(reader)
            if not self._is_wanted() or self._machine.delivered_from(self._broker_id):
                self._open_anew()

    async def close(self) -> None:
        """End the stream, and wait a moment for that."""
        if self._anew is not None:
            self._anew.cancel()
        if self.stream is not None:
            await self.stream.hang_up()
        if self._hanging_up is not None:
            await asyncio.gather(self._hanging_up, return_exceptions=True)

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            RiverrunError: nothing more will come from any broker.
        """
        while True:
            if self._at_end or not self._is_wanted():
                self._wake.clear()
                await self._wake.wait()
            else:
                await self._sleep(await self._one_stream())

    def _is_wanted(self) -> bool:
        """Whether there is to be a stream."""
        return self._machine.wanted_at(self._broker_id)

    def _connect(self) -> Awaitable[Connection]:
        return self._cluster.connect_to(self._broker_id, again=self._contact.begun)

    async def _one_stream(self) -> float:
        """Serve one stream; return how long to wait before the next."""
        connection: Connection | None = None
        stream: SubscribeStream | None = None
        try:
            connection = await self._connect()
            await self._prepare(self._broker_id)
            if not self._is_wanted():
                return 0.0
            stream = self._new_stream(connection)
            await stream.run()
        except RiverrunError as error:
            return self._broken(error, connection, stream)
        finally:
            if self.stream is not None:
                self._begun = self._begun or bool(self.stream.frames)
                self._contact.stream_closed()
            self.stream = self._hanging_up = None
        # A broker that goes away ends streams that it is not through with.
        if not stream.going_away and self._is_through():
            return 0.0
        # Another broker may be there already.
        self._cluster.connections.lost(connection)
        return stream.reconnect_after_s or self._backoff.next_s()

    def _is_through(self) -> bool:
        """Return, and say, whether everything has come that is to be read from here."""
        self._at_end = self._machine.delivered_from(self._broker_id)
        if self._at_end:
            self._ended()
        return self._at_end

    def _new_stream(self, connection: Connection) -> SubscribeStream:
        self._opened_s = asyncio.get_running_loop().time()
        stream = self.stream = self._make_stream(self._broker_id, connection)
        self._contact.stream_opened()
        self.reconnects += self._begun
        return stream

    def _broken(
        self, error: RiverrunError, connection: Connection | None, stream: SubscribeStream | None
    ) -> float:
        """Reckon with a stream that broke, or never was; return how long to wait.

        Raises:
            RiverrunError: this is the end.
        """
        if self._contact.closing:
            raise asyncio.CancelledError from None  # it was hung up
        if self._hanging_up is not None:
            self._is_through()
            return 0.0
        error = self._judged(error)
        if not isinstance(error, RetriableError):
            raise error
        if not self._contact.begun and isinstance(error, NoBrokerError):
            raise error
        self._contact.check(error, stream)
        if connection is not None:
            self._cluster.connections.lost(connection)
        return self._delay_after(error, connection, stream)

    def _judged(self, error: RiverrunError) -> RiverrunError:
        """Return what it means that a broker has none of the topics, given what others say of them."""
        here = {p.topic for p, r in self._machine.readers.items() if r.home == self._broker_id}
        for topic in here:
            error = self._cluster.judged(topic, error)
        return error

    def _delay_after(
        self, error: RetriableError, connection: Connection | None, stream: SubscribeStream | None
    ) -> float:
        now_s, flowed = asyncio.get_running_loop().time(), bool(stream and stream.frames)
        if flowed:
            self._backoff.reset()
            self._fruitless = 0
            if now_s - self._opened_s >= _STEADY_S:
                self._breaks.worked("streams")
                self._cluster.steady(self._broker_id)
        else:
            self._fruitless += 1
        if connection is None or self._fruitless >= _FRUITLESS:
            # From here on others serve in its place, where there are any.
            self._fruitless = 0
            self._cluster.unreachable(self._broker_id, error)
        # A credit written to a stream that has just ended fails in gRPC's core, which then hides
        # that end: nothing was interrupted.
        is_break = not flowed or _OWN_WRITE not in str(error)
        is_news = is_break and self._breaks.failed("streams", error, now_s, at_once=flowed)
        level = logging.WARNING if is_news else logging.INFO
        _log.log(level, "subscription interrupted, trying again: %s", error)
        return self._backoff.next_s(error.retry_after_s)

    def _open_anew(self) -> None:
        """End the stream soon, for another one that reads what is to be read from here by then."""
        if self.stream is not None and self._anew is None and self._hanging_up is None:
            delay_s = _GATHER_S + self._uniform() * _GATHER_SPREAD_S
            self._anew = asyncio.get_running_loop().call_later(delay_s, self._hang_up)

    def _hang_up(self) -> None:
        self._anew = None
        if self.stream is not None and self._hanging_up is None:
            self._hanging_up = asyncio.create_task(
                self.stream.hang_up(), name="riverrun consumer: another stream"
            )

    async def _sleep(self, delay_s: float) -> None:
        """Wait before the next stream, unless there is more to be read from here meanwhile."""
        if delay_s <= 0:
            # Others have their turn also where streams end as soon as they begin.
            await asyncio.sleep(0)
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
