"""Keeps a produce stream open as long as there is something to send, through broken connections.

Intuition: streams come and go, the machine stays. What a lost stream left unanswered is sent again
on the next one, in order and with the same sequences, until its deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from riverrun._core.attempts import Attempts
from riverrun._core.backoff import Backoff
from riverrun._core.episodes import Episodes
from riverrun._net.channel import Connection, Connections
from riverrun._net.produce_stream import Machine, ProduceStream, StreamSettings
from riverrun.errors import FatalError, NoBrokerError, Reason, RetriableError, RiverrunError
from riverrun.v1 import producer_pb2 as pb

_log = logging.getLogger("riverrun")


class ProduceLoop:
    """Drives one producer's machine. Transitions: idle -> connecting -> streaming -> connecting...

    Args:
        connections: finds brokers.
        machine: what to send, and where answers go.
        backoff: delays between streams.
        acks: when an append is answered.
        codec: how batches are compressed.
        idempotent: whether to ask for a producer id.
        delivery_timeout_s: how long a batch may take in all.
        deliver: called after the machine may have resolved something.
    """

    def __init__(
        self,
        connections: Connections,
        machine: Machine,
        backoff: Backoff,
        *,
        acks: str,
        codec: int,
        idempotent: bool,
        delivery_timeout_s: float,
        deliver: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._machine = machine
        self._backoff = backoff
        self._acks = acks
        self._codec = codec
        self._idempotent = idempotent
        self._delivery_timeout_s = delivery_timeout_s
        self._deliver = deliver
        self._wake = asyncio.Event()
        self._stream: ProduceStream | None = None
        self._producer_id: int | None = None
        self._closing = False
        self._last_trouble: RiverrunError | None = None
        self._breaks: Episodes[str] = Episodes()
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a stream just now."""
        return self._stream is not None

    def wake(self) -> None:
        """Say that the machine may have something to send, or something new to give up."""
        self._wake.set()
        if self._expiry is None and not self._closing:
            self._arm()

    def rearm(self) -> None:
        """Say that the machine was given something that gives up earlier than what it had."""
        if self._expiry is not None and not self._closing:
            self._expiry.cancel()
            self._arm()

    def close(self) -> None:
        """End once what has been sent is answered; call it when the machine is idle."""
        self._closing = True
        if self._expiry is not None:
            self._expiry.cancel()
        self._wake.set()
        if self._stream is not None:
            self._stream.drain()

    async def run(self) -> None:
        """Run until closed.

        Raises:
            RiverrunError: the broker refuses what no retry can change.
        """
        while not self._closing:
            if self._machine.idle:
                self._wake.clear()
                await self._wake.wait()
            else:
                await self._sleep(await self._one_stream())

    async def _one_stream(self) -> float:
        """Serve one stream; return how long to wait before the next."""
        connection: Connection | None = None
        stream: ProduceStream | None = None
        try:
            connection = await self._connections.connect(again=True)
            settings = await self._settings(connection)
            stream = ProduceStream(connection, self._machine, settings, self._wake, self._deliver)
            if self._closing:
                return 0.0
            self._stream = stream
            await stream.run()
        except RetriableError as error:
            self._last_trouble = error
            if connection is not None:
                self._connections.lost(connection)
            if stream is not None and stream.answers:
                self._backoff.reset()
                self._breaks.worked("streams")
            if self._breaks.failed("streams", error, asyncio.get_running_loop().time()):
                _log.warning("nothing can be written, trying again: %s", error)
            return self._backoff.next_s(error.retry_after_s)
        finally:
            self._stream = None
        # It ended in order: the broker goes away, and another one may be there already.
        if not self._closing:
            self._connections.lost(connection)
        return stream.reconnect_after_s

    async def _settings(self, connection: Connection) -> StreamSettings:
        """Get a producer id once, and stay within what the broker allows."""
        if self._producer_id is None:
            self._producer_id = await self._init_producer() if self._idempotent else 0
        limit = connection.info.limits.max_produce_timeout
        limit_s = limit.seconds + limit.nanos / 1e9 or self._delivery_timeout_s
        timeout_s = min(self._delivery_timeout_s, limit_s)
        return StreamSettings(self._acks, timeout_s, self._codec, self._producer_id)

    async def _init_producer(self) -> int:
        request = pb.InitProducerRequest()
        response = await self._connections.call(
            lambda connection, timeout_s: connection.producer.InitProducer(
                request, timeout=timeout_s
            ),
            "get a producer id",
            # An id that nobody hears of is one fewer of many, and nothing else.
            attempts=Attempts(changes=False),
        )
        if response.producer_id <= 0:
            raise FatalError(
                f"the broker handed out producer id {response.producer_id}; ids start at 1",
                reason=Reason.PROTOCOL_BROKEN,
            )
        return response.producer_id

    async def _sleep(self, delay_s: float) -> None:
        """Wait before the next stream, unless the producer is closed meanwhile."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + delay_s
        while not self._closing and (left_s := until_s - loop.time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _arm(self) -> None:
        """Set the timer that gives up what is late."""
        deadline_s = self._machine.next_deadline_s()
        self._expiry = None
        if deadline_s is not None:
            self._expiry = asyncio.get_running_loop().call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        why = f"{self._delivery_timeout_s:g} s have passed (delivery_timeout_s)"
        # Once a stream has answered, what was wrong with the ones before it explains nothing.
        answered = self._stream is not None and self._stream.answers
        last, nobody = self._last_trouble, self._connections.trouble
        # That nobody answers is told as it is now.
        if last is not None and not answered and not (nobody and isinstance(last, NoBrokerError)):
            why += f"; the last trouble was: {last.message}"
        if nobody:
            why += f"; {nobody}"
        self._machine.expire(asyncio.get_running_loop().time(), why)
        self._deliver()
        self._wake.set()
        self._arm()
