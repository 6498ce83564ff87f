"""A gateway's streams and calls to the brokers that lead, apart from those of replication."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.forward_stream import ForwardStream
from riverrun_server.peer.gateway_calls import LeaderCalls
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.read_stream import ReadStream, StreamReader
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.partitions import Append, Appended, Chunk, Watermarks

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Link:
    """Everything that leads to one broker."""

    address: str
    forward: ForwardStream
    read: ReadStream
    calls: LeaderCalls
    tasks: tuple[asyncio.Task[None], ...]


class GatewayLinks:
    """Implements ports.gateways.Leaders.

    Nothing is connected before something is asked of a broker. Appends, reads and single calls have a
    connection each.

    Args:
        myself: introduces this broker.
        dice: spreads pauses.
    """

    def __init__(self, myself: Myself, dice: Dice) -> None:
        self._myself = myself
        self._dice = dice
        self._links: dict[int, _Link] = {}
        self._changed: Callable[[int], None] = _nobody
        self._closing: set[asyncio.Task[None]] = set()

    def watch(self, changed: Callable[[int], None]) -> None:
        """Have `changed` called with a broker's id whenever it can be sent appends, or no more."""
        self._changed = changed

    def reach(self, brokers: Mapping[int, str]) -> None:
        """Learn where the other brokers listen for each other, by id; all streams to others end."""
        gone = {
            broker: link
            for broker, link in self._links.items()
            if brokers.get(broker) != link.address
        }
        for broker, link in gone.items():
            del self._links[broker]
            closing = asyncio.create_task(_close(link), name=f"leave broker {broker}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for broker, address in brokers.items():
            if broker not in self._links and address:
                self._links[broker] = self._link(broker, address)
                self._changed(broker)

    async def close(self) -> None:
        """End everything: what was sent and not answered is answered as unknown."""
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*map(_close, links), *self._closing, return_exceptions=True)

    def takes_appends(self, broker: int) -> bool:
        """Return whether appends can be sent now."""
        link = self._links.get(broker)
        return link is not None and link.forward.is_open

    def connect(self, broker: int) -> None:
        """Have it tried to open the stream of appends, if it is not open."""
        link = self._links.get(broker)
        if link is not None and not link.forward.is_open:
            link.forward.need()

    def append(
        self,
        broker: int,
        led: Led,
        append: Append,
        origin: Origin,
        done: Callable[[Appended], None],
    ) -> None:
        """Send an append, once."""
        link = self._links.get(broker)
        if link is None:
            done(Appended(None, append.batch.header.record_count, error=_not_registered(broker)))
        else:
            link.forward.append(led, append, origin, done)

    def read(
        self,
        broker: int,
        led: Led,
        offset: int,
        last_epoch: int | None,
        origin: Origin,
        told: Callable[[Chunk | Refusal], None],
    ) -> StreamReader:
        """Begin to read.

        Raises:
            Refusal: LEADER_NOT_AVAILABLE, nobody knows where the broker listens.
        """
        return self._find(broker).read.read(led, offset, last_epoch, origin, told)

    async def watermarks(self, broker: int, led: Led, origin: Origin) -> Watermarks:
        """Ask for a partition's offsets."""
        return await self._find(broker).calls.watermarks(led, origin)

    async def offset_at_time(
        self, broker: int, led: Led, time_ms: int, origin: Origin
    ) -> tuple[int, int] | None:
        """Ask for the first record at or after a time."""
        return await self._find(broker).calls.offset_at_time(led, time_ms, origin)

    async def trim(self, broker: int, led: Led, before_offset: int, origin: Origin) -> int:
        """Have the records before an offset deleted."""
        return await self._find(broker).calls.trim(led, before_offset, origin)

    def _link(self, broker: int, address: str) -> _Link:
        forward = ForwardStream(broker, address, self._myself, self._dice, self._stream_changed)
        read = ReadStream(broker, address, self._myself, self._dice)
        tasks = (
            asyncio.create_task(forward.run(), name=f"forward to broker {broker}"),
            asyncio.create_task(read.run(), name=f"read from broker {broker}"),
        )
        for task in tasks:
            task.add_done_callback(_tell_of_crash)
        return _Link(address, forward, read, LeaderCalls(broker, address, self._myself), tasks)

    def _stream_changed(self, broker: int) -> None:
        self._changed(broker)

    def _find(self, broker: int) -> _Link:
        link = self._links.get(broker)
        if link is None:
            raise _not_registered(broker)
        return link


async def _close(link: _Link) -> None:
    for task in link.tasks:
        task.cancel()
    await asyncio.gather(*link.tasks, link.calls.close(), return_exceptions=True)


def _tell_of_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a stream to a leader crashed", stream=task.get_name(), exc_info=error)


def _not_registered(broker: int) -> Refusal:
    return Refusal(
        Reason.LEADER_NOT_AVAILABLE,
        f"broker {broker}, which leads the partition, is not registered with a port for other brokers; "
        "ask again",
    )


def _nobody(_: int) -> None:
    """Tell nobody."""
