"""The streams of a gateway to all brokers that coordinate groups, apart from those of replication."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.coordination_messages import (
    call_to_wire,
    records_to_wire,
    told_from_wire,
)
from riverrun_server.peer.coordinator_stream import CoordinatorStream, Parts
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1.coordination_pb2 import StoreOffsets, TellOffsets
from riverrun_server.ports.coordination import Home
from riverrun_server.ports.gateways import Origin


class CoordinatorLinks:
    """Implements ports.coordination.Coordinators.

    Nothing is connected before something is asked.

    Args:
        myself: introduces this broker.
    """

    def __init__(self, myself: Myself) -> None:
        self._myself = myself
        self._streams: dict[int, CoordinatorStream] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def reach(self, brokers: Mapping[int, str]) -> None:
        """Learn where the other brokers listen for each other, by id; streams to others end."""
        for broker, stream in [*self._streams.items()]:
            if brokers.get(broker) != stream.address:
                del self._streams[broker]
                closing = asyncio.create_task(stream.close(), name=f"leave coordinator {broker}")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        for broker, address in brokers.items():
            if address and broker not in self._streams and broker != self._myself.broker_id:
                self._streams[broker] = CoordinatorStream(broker, address, self._myself)

    async def close(self) -> None:
        """End all streams."""
        streams = list(self._streams.values())
        self._streams.clear()
        closing = [stream.close() for stream in streams]
        await asyncio.gather(*closing, *self._closing, return_exceptions=True)

    def commit(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Store offsets of a group; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.store.CopyFrom(StoreOffsets(offsets=records_to_wire(records)))
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(asked: asyncio.Future[Parts]) -> None:
            if stored.done():
                return
            error = None if asked.cancelled() else asked.exception()
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        asked = self._stream(home.leader).ask(call, within_s)
        asked.add_done_callback(answered)
        # Whose caller is gone is not sent any more, if it has not been.
        stored.add_done_callback(lambda _: asked.cancel())
        return stored

    async def committed(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.tell.CopyFrom(TellOffsets())
        parts = await self._stream(home.leader).ask(call, within_s)
        try:
            return told_from_wire(parts)
        except InvalidMessage as invalid:
            raise Refusal(
                Reason.INTERNAL,
                f"broker {home.leader} told offsets of group {group_id!r} that cannot be: {invalid}",
            ) from invalid

    def _stream(self, broker: int) -> CoordinatorStream:
        stream = self._streams.get(broker)
        if stream is None:
            raise Refusal(
                Reason.NOT_READY,
                f"broker {broker}, which coordinates the group, has not said where it listens for other "
                "brokers; ask again",
            )
        return stream
