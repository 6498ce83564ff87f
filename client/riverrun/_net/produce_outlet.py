"""Keeps a stream to one broker open as long as there is something to send to it.

Intuition: streams come and go, the machine stays. What a lost stream left unanswered is sent again
on the next one, to this broker or to another, in order and with the same sequences.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from riverrun._core.backoff import Backoff
from riverrun._core.episodes import Episodes
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.cluster import Cluster
from riverrun._net.produce_stream import Machine, ProduceStream, StreamSettings
from riverrun.errors import LeaderHint, RetriableError

_log = logging.getLogger("riverrun")

# A broker that can be reached, and on whose streams nothing is ever answered, is let alone for a while.
_FRUITLESS = 3


class ProduceOutlet:
    """One broker's streams. Transitions: idle -> connecting -> streaming -> connecting or idle...

    Args:
        broker_id: the broker; ANY for whichever answers, which passes on what it does not lead.
        cluster: finds it.
        machine: what to send, and where answers go.
        backoff: delays between streams.
        settings: gets what is asked of a stream on a connection.
        deliver: called after the machine may have resolved something.

    Attributes:
        wake: set when the machine may have something to send.
        stream: the one that there is just now.
        trouble: what the last stream broke of.
    """

    def __init__(
        self,
        broker_id: int,
        cluster: Cluster,
        machine: Machine,
        backoff: Backoff,
        *,
        settings: Callable[[Connection], Awaitable[StreamSettings]],
        deliver: Callable[[], None],
    ) -> None:
        self._broker_id = broker_id
        self._cluster = cluster
        self._machine = machine
        self._backoff = backoff
        self._settings = settings
        self._deliver = deliver
        self._breaks: Episodes[str] = Episodes()
        self._fruitless = 0
        self._closing = False
        self.wake = asyncio.Event()
        self.stream: ProduceStream | None = None
        self.trouble: RetriableError | None = None

    def close(self) -> None:
        """End once what has been sent is answered; call it when the machine is idle."""
        self._closing = True
        self.wake.set()
        self.let_go()

    def let_go(self) -> None:
        """End the stream once what has been sent on it is answered; nothing goes there any more."""
        if self.stream is not None:
            self.stream.drain()

    async def run(self) -> None:
        """Run until closed.

        Raises:
            RiverrunError: the broker refuses what no retry can change.
        """
        while not self._closing:
            if self._machine.idle_at(self._broker_id):
                self.wake.clear()
                await self.wake.wait()
            else:
                await self._sleep(await self._one_stream())

    async def _one_stream(self) -> float:
        """Serve one stream; return how long to wait before the next."""
        connection: Connection | None = None
        stream: ProduceStream | None = None
        try:
            connection = await self._cluster.connect_to(self._broker_id, again=True)
            settings = await self._settings(connection)
            if self._closing or self._machine.idle_at(self._broker_id):
                return 0.0
            stream = self._new_stream(connection, settings)
            self.stream = stream
            await stream.run()
        except RetriableError as error:
            return self._broken(error, connection, stream)
        finally:
            self.stream = None
        if stream.going_away:
            # It ended in order, and another broker may be there already.
            self._cluster.connections.lost(connection)
        return stream.reconnect_after_s

    def _new_stream(self, connection: Connection, settings: StreamSettings) -> ProduceStream:
        return ProduceStream(
            connection,
            self._machine,
            settings,
            self.wake,
            self._deliver,
            broker_id=self._broker_id,
            on_leader=self._on_leader,
            judged=self._cluster.judged,
        )

    def _broken(
        self, error: RetriableError, connection: Connection | None, stream: ProduceStream | None
    ) -> float:
        """Reckon with a stream that broke, or never was; return how long to wait."""
        self.trouble = error
        if connection is not None:
            self._cluster.connections.lost(connection)
        if stream is not None and stream.answers:
            self._backoff.reset()
            self._breaks.worked("streams")
            self._fruitless = 0
            self._cluster.steady(self._broker_id)
        else:
            self._fruitless += 1
        if connection is None or self._fruitless >= _FRUITLESS:
            # From here on others serve in its place, where there are any.
            self._fruitless = 0
            self._cluster.unreachable(self._broker_id, error)
        if self._breaks.failed("streams", error, asyncio.get_running_loop().time()):
            _log.warning("nothing can be written, trying again: %s", error)
        return self._backoff.next_s(error.retry_after_s)

    def _on_leader(self, partition: TopicPartition, hint: LeaderHint | None) -> None:
        """Follow a hint; where it is none, or old news, reckon with a broker that does not lead."""
        if hint is not None and self._cluster.hinted(partition, hint):
            return
        self._cluster.denied(partition, self._broker_id)

    async def _sleep(self, delay_s: float) -> None:
        """Wait before the next stream, unless the producer is closed meanwhile, or all has gone elsewhere."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + delay_s
        while not self._closing and (left_s := until_s - loop.time()) > 0:
            self.wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self.wake.wait()
            except TimeoutError:
                return
