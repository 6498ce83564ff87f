"""Brokers that pass on what they do not lead: real machines, streams and sockets, records in memory."""

from __future__ import annotations

import asyncio
import dataclasses

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.peer.gateway_links import GatewayLinks
from riverrun_server.peer.gateway_service import GatewayService
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.gateway.routing import Routing
from riverrun_server.wire.ingress import IngressLimits, accept
from riverrun_server.wire.stored import received_records
from tests.metadata.fakes import SeededDice
from tests.peer.cluster_of_replicas import NOW_MS, PARTITION, TOPIC_ID, Broker

ORIGIN = Origin("somebody", "clients")


def incoming(*values, producer_id=0, sequence=0):
    """Return a validated batch."""
    records = RecordSet(records=[Record(value=value) for value in values])
    batch = RecordBatch(
        records=records.SerializeToString(), producer_id=producer_id, base_sequence=sequence
    )
    return accept(batch, IngressLimits(3 << 20), NOW_MS)


def endpoint(broker):
    return f"client-port-of-{broker}:1"


class Gateway(Broker):
    """A broker that also serves what others lead."""

    wait_s = 2.0

    def __init__(self, broker, metadata, store):
        super().__init__(broker, metadata, store)
        self.held = None
        self.addresses = {}
        self.routed = None

    def handlers(self, myself):
        self.outgoing = GatewayLinks(myself, SeededDice(self.id))
        self.routing = Routing(self.id, self.outgoing, lambda: ORIGIN, self.wait_s)
        self.service = GatewayService(myself, self.routing)
        return [*super().handlers(myself), self.service.handler()]

    def update(self):
        super().update()
        self.route()

    def reach(self, addresses):
        super().reach(addresses)
        self.addresses = addresses
        self.route()

    def route(self):
        if not self.image.partitions.get(TOPIC_ID):
            return
        if self.held is None and self.replicas.find(PARTITION) is not None:
            self.held = self.partition()
        self.routed = self.routing.serve("t", PARTITION, 3 << 20, self.held)
        self.routing.show(self.reachable_image())

    def reachable_image(self):
        """The metadata, with the addresses that these brokers have told each other."""
        image = ClusterImage()
        vars(image).update(vars(self.image))
        image.brokers = {
            broker: dataclasses.replace(
                found,
                value=dataclasses.replace(
                    found.value,
                    endpoints={"clients": endpoint(broker)},
                    peer_endpoint=self.addresses.get(broker, ""),
                ),
            )
            for broker, found in self.image.brokers.items()
        }
        return image

    async def stop(self):
        self.routing.close()
        self.service.close()
        await self.outgoing.close()
        await super().stop()

    def submit(self, *values, acks=Acks.ALL, **fields):
        """Append records as one batch, wherever they are led; return a future of the answer."""
        answer = asyncio.get_running_loop().create_future()

        def done(appended):
            assert not answer.done(), "answered twice"
            answer.set_result(appended)

        self.routed.submit(Append(incoming(*values, **fields), acks, done))
        return answer

    async def insist(self, value, sequence):
        """Append a record of an idempotent producer, as often as it takes."""
        async with asyncio.timeout(10):
            while True:
                answer = await self.submit(value, producer_id=7, sequence=sequence)
                if answer.error is None:
                    return answer
                error = answer.error
                assert error.meaning.retry_safe or not error.meaning.definite, error

    def reader(self, offset=0):
        return GatewayReader(self.routed, offset)


class GatewayReader:
    """Reads a partition through a broker, as a stream would."""

    def __init__(self, access, offset=0):
        self.woken = asyncio.Event()
        self.cursor = access.cursor(offset, self.woken.set)
        self.chunks = []

    async def next(self, max_bytes=1 << 20, *, read_ahead=True):
        """Wait for the next chunk."""
        async with asyncio.timeout(10):
            while True:
                self.woken.clear()
                chunk = self.cursor.take(max_bytes, read_ahead=read_ahead)
                if chunk is not None:
                    self.chunks.append(chunk)
                    return chunk
                await self.woken.wait()

    async def at_end(self):
        """Wait until there is nothing to be read."""
        async with asyncio.timeout(10):
            while True:
                self.woken.clear()
                assert self.cursor.take(1 << 20) is None
                if not self.cursor.reads_ahead:
                    return
                await self.woken.wait()

    async def values(self, count):
        """Read so many records, from where it stands."""
        found = []
        while len(found) < count:
            chunk = await self.next()
            found += values_of(chunk)
        return found


def values_of(chunk):
    return [
        record.value
        for batch in chunk.batches
        for record in received_records(batch.data, chunk.first_offset, chunk.next_offset, 1 << 30)
    ]
