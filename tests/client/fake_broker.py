"""A broker in this process: real gRPC, real protos, logs in memory, and faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

import riverrun
from riverrun.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    consumer_pb2_grpc,
    metadata_pb2,
    metadata_pb2_grpc,
    producer_pb2,
    producer_pb2_grpc,
)
from tests.client.fake_log import NOW_MS, FakePartition, FakeRefusal
from tests.client.fake_produce import serve_produce_stream
from tests.client.fake_subscribe import FakeConsumerService
from tests.client.faults import Plan

if TYPE_CHECKING:
    from tests.client.fake_cluster import FakeCluster

OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.max_receive_message_length", 4 << 20),
]


@dataclass
class FakeTopic:
    name: str
    topic_id: bytes
    partitions: list[FakePartition]
    configs: dict[str, str] = field(default_factory=dict)


class FakeBroker:
    """Holds topics and a plan of faults; `serving` gives it a port.

    Attributes:
        plan: which appends and deliveries go wrong.
        commits: by group and partition.
        calls: the unary calls that came, by name.
        refuse: by name of a unary call, what to answer instead, once each.
        max_unacknowledged: told to producers.
        max_in_flight_bytes: told to producers.
        refusals: how often a subscription was told that it cannot have a partition.
        refuse_streams: what to answer to subscriptions instead, once each.
        streams_to_leave: so many subscriptions end with a GoingAway just after they have begun.
        clusters: answers to DescribeCluster, in order; the last one stays.
        elections: answers to ElectLeaders, in order; the last one stays.
        drains: answers to DrainBroker, in order; the last one stays.
        asked: the requests of those three.
        errors_may_come: until set, a subscription hears of no partition that it cannot begin.
        cluster: of which it is one of several; None where it is alone.
        streams_may_begin: until set, a subscription hears nothing at all.
        hangs: appends are taken and never looked at.
        swallowed: how many.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.broker_id = 1
        self.cluster: FakeCluster | None = None
        self.hangs = False
        self.streams_may_begin = asyncio.Event()
        self.streams_may_begin.set()
        self.swallowed = 0
        self.topics: dict[str, FakeTopic] = {}
        self.commits: dict[tuple[str, str, int], tuple[int, str]] = {}
        self.members: dict[str, object] = {}
        self.subscribe_resumes: list[object] = []
        self.calls: list[str] = []
        self.refuse: dict[str, list[FakeRefusal]] = {}
        self.max_unacknowledged = 64
        self.max_in_flight_bytes = 8 << 20
        self.heartbeat_s = 1.0
        self.silent = False
        self.refusals = 0
        self.refuse_streams: list[FakeRefusal] = []
        self.streams_to_leave = 0
        self.clusters: list[admin_pb2.DescribeClusterResponse] = []
        self.elections: list[admin_pb2.ElectLeadersResponse] = []
        self.drains: list[admin_pb2.DrainBrokerResponse] = []
        self.asked: list[Any] = []
        self.errors_may_come = asyncio.Event()
        self.errors_may_come.set()
        self.fail_to_begin: list[FakeRefusal] = []
        self.changed = asyncio.Condition()
        self.produce_streams = 0
        self.subscribe_streams = 0
        self.subscribe_starts: list[object] = []
        self._next_id = 1
        self.next_producer_id = 1

    def add_topic(self, name: str, partitions: int = 1, **settings: int) -> FakeTopic:
        topic_id = self._next_id.to_bytes(16, "big")
        self._next_id += 1
        parts = [FakePartition(topic_id, number, **settings) for number in range(partitions)]
        topic = self.topics[name] = FakeTopic(name, topic_id, parts)
        return topic

    def partition(self, topic: str, partition: int = 0) -> FakePartition:
        return self.topics[topic].partitions[partition]

    def find(self, topic: str, topic_id: bytes, partition: int) -> FakePartition:
        found = self.topics.get(topic)
        if found is None:
            raise FakeRefusal("TOPIC_NOT_FOUND", f"no topic {topic}")
        if topic_id and topic_id != found.topic_id:
            raise FakeRefusal("TOPIC_ID_MISMATCH", f"{topic} was made anew")
        if partition >= len(found.partitions):
            raise FakeRefusal("PARTITION_NOT_FOUND", f"{topic} has {len(found.partitions)}")
        return found.partitions[partition]

    def check_leader(
        self, topic: str, partition: int, do_not_proxy: bool, *, quietly: bool = False
    ) -> None:
        """Refuse what is led elsewhere, unless it may be passed on."""
        if self.cluster is not None:
            self.cluster.check(self, topic, partition, do_not_proxy, quietly=quietly)

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something is so that appends and new streams change."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(predicate)

    async def note(self, name: str, context: grpc.aio.ServicerContext) -> None:
        self.calls.append(name)
        if self.refuse.get(name):
            await abort(context, self.refuse[name].pop(0))

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        server = grpc.aio.server(options=OPTIONS)
        producer_pb2_grpc.add_ProducerServiceServicer_to_server(FakeProducerService(self), server)
        consumer_pb2_grpc.add_ConsumerServiceServicer_to_server(FakeConsumerService(self), server)
        metadata_pb2_grpc.add_MetadataServiceServicer_to_server(FakeMetadataService(self), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(FakeAdminService(self), server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield f"127.0.0.1:{bound}"
        finally:
            await server.stop(grace=None)


def impatient(address: str, **settings: Any) -> riverrun.Client:
    """Return a client whose delays all come out as nothing."""
    client = riverrun.Client(address, **settings)
    client._uniform = lambda: 0.0
    return client


async def abort(context: grpc.aio.ServicerContext, refusal: FakeRefusal) -> None:
    """Fail a call as a broker does: our Error among the status's details."""
    packed = AnyMessage()
    packed.Pack(refusal.proto)
    detail = packed.SerializeToString()
    status = b"\x1a" + _varint(len(detail)) + detail
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        refusal.proto.message,
        (("grpc-status-details-bin", status),),
    )


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


class FakeProducerService(producer_pb2_grpc.ProducerServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    async def InitProducer(self, request, context):  # noqa: N802
        await self._broker.note("InitProducer", context)
        producer_id = self._broker.next_producer_id
        self._broker.next_producer_id += 1
        return producer_pb2.InitProducerResponse(producer_id=producer_id)

    async def ProduceStream(self, request_iterator, context):  # noqa: N802
        self._broker.produce_streams += 1
        await serve_produce_stream(self._broker, context)


class FakeMetadataService(metadata_pb2_grpc.MetadataServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    async def GetServerInfo(self, request, context):  # noqa: N802
        await self._broker.note("GetServerInfo", context)
        limits = metadata_pb2.Limits(
            max_batch_bytes=3 << 20,
            max_unacknowledged_batches=self._broker.max_unacknowledged,
            max_produce_timeout=Duration(seconds=60),
        )
        return metadata_pb2.GetServerInfoResponse(
            version="fake",
            broker_id=self._broker.broker_id,
            cluster_id="c",
            limits=limits,
            now_ms=NOW_MS,
        )

    async def GetMetadata(self, request, context):  # noqa: N802
        await self._broker.note("GetMetadata", context)
        if self._broker.cluster is not None:
            told = self._broker.cluster.told(self._broker, request.topics)
            return metadata_pb2.GetMetadataResponse(cluster=told)
        cluster = metadata_pb2.ClusterMetadata(cluster_id="c", revision=1, served_by=1)
        cluster.brokers.add(broker_id=1, endpoint="127.0.0.1:1")
        for name in request.topics or self._broker.topics:
            topic = self._broker.topics.get(name)
            told = cluster.topics.add(topic=name)
            if topic is None:
                told.error.CopyFrom(FakeRefusal("TOPIC_NOT_FOUND", f"no topic {name}").proto)
                continue
            told.topic_id = topic.topic_id
            for partition in topic.partitions:
                told.partitions.add(partition=partition.partition, leader=1, replicas=[1])
        return metadata_pb2.GetMetadataResponse(cluster=cluster)

    async def WatchMetadata(self, request, context):  # noqa: N802
        await self._broker.note("WatchMetadata", context)
        broker, full, last = self._broker, True, None
        while True:
            told = broker.cluster.told(broker, request.topics)
            if told != last:
                await context.write(metadata_pb2.WatchMetadataResponse(full=full, cluster=told))
            full, last = False, told
            async with broker.changed:
                await broker.changed.wait()


class FakeAdminService(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    async def CreateTopic(self, request, context):  # noqa: N802
        await self._broker.note("CreateTopic", context)
        existing = self._broker.topics.get(request.topic)
        if existing is not None and not request.if_not_exists:
            await abort(context, FakeRefusal("TOPIC_EXISTS", f"{request.topic} is there"))
        if existing is None and not request.validate_only:
            existing = self._broker.add_topic(request.topic, request.partitions or 1)
            existing.configs.update(request.configs)
            return admin_pb2.CreateTopicResponse(topic=self._told(existing), created=True)
        return admin_pb2.CreateTopicResponse(
            topic=self._told(existing)
            if existing
            else admin_pb2.Topic(topic=request.topic, partitions=request.partitions or 1)
        )

    async def ListTopics(self, request, context):  # noqa: N802
        await self._broker.note("ListTopics", context)
        names = sorted(name for name in self._broker.topics if name > request.page_token)
        page, rest = names[:2], names[2:]
        return admin_pb2.ListTopicsResponse(
            topics=[self._told(self._broker.topics[name]) for name in page],
            next_page_token=page[-1] if rest else "",
        )

    async def DescribeTopic(self, request, context):  # noqa: N802
        await self._broker.note("DescribeTopic", context)
        topic = await self._found(request.topic, context)
        answer = admin_pb2.DescribeTopicResponse(topic=self._told(topic))
        for partition in topic.partitions:
            answer.partitions.add(
                partition=partition.partition,
                leader=1,
                replicas=[1],
                in_sync_replicas=[1],
                log_start_offset=partition.log_start,
                high_watermark=partition.end,
                log_end_offset=partition.end,
            )
        answer.configs.add(
            key="retention.ms", value="5", source=admin_pb2.CONFIG_SOURCE_DEFAULT, documentation="d"
        )
        return answer

    async def AlterTopic(self, request, context):  # noqa: N802
        topic = await self._found(request.topic, context)
        topic.configs.update(request.set)
        for key in request.unset:
            topic.configs.pop(key, None)
        return admin_pb2.AlterTopicResponse(topic=self._told(topic))

    async def AddPartitions(self, request, context):  # noqa: N802
        topic = await self._found(request.topic, context)
        for number in range(len(topic.partitions), request.partitions):
            topic.partitions.append(FakePartition(topic.topic_id, number))
        return admin_pb2.AddPartitionsResponse(topic=self._told(topic))

    async def TrimTopic(self, request, context):  # noqa: N802
        await self._broker.note("TrimTopic", context)
        topic = await self._found(request.topic, context)
        answer = admin_pb2.TrimTopicResponse()
        for point in request.points:
            if point.partition >= len(topic.partitions):
                refusal = FakeRefusal("PARTITION_NOT_FOUND", "no such partition")
                answer.results.add(partition=point.partition, error=refusal.proto)
                continue
            partition = topic.partitions[point.partition]
            at = partition.end if point.before_offset == -1 else point.before_offset
            partition.log_start = max(partition.log_start, at)
            answer.results.add(partition=point.partition, log_start_offset=partition.log_start)
        return answer

    async def DeleteTopic(self, request, context):  # noqa: N802
        await self._broker.note("DeleteTopic", context)
        topic = await self._found(request.topic, context)
        if request.topic_id and request.topic_id != topic.topic_id:
            await abort(context, FakeRefusal("TOPIC_ID_MISMATCH", "made anew"))
        del self._broker.topics[request.topic]
        return admin_pb2.DeleteTopicResponse()

    async def DescribeCluster(self, request, context):  # noqa: N802
        return await self._next(self._broker.clusters, "DescribeCluster", request, context)

    async def ElectLeaders(self, request, context):  # noqa: N802
        return await self._next(self._broker.elections, "ElectLeaders", request, context)

    async def DrainBroker(self, request, context):  # noqa: N802
        return await self._next(self._broker.drains, "DrainBroker", request, context)

    async def _next(self, answers, name, request, context):
        self._broker.asked.append(request)
        await self._broker.note(name, context)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _found(self, name: str, context: grpc.aio.ServicerContext) -> FakeTopic:
        topic = self._broker.topics.get(name)
        if topic is None:
            await abort(context, FakeRefusal("TOPIC_NOT_FOUND", f"no topic {name}"))
        return topic

    @staticmethod
    def _told(topic: FakeTopic) -> admin_pb2.Topic:
        return admin_pb2.Topic(
            topic=topic.name,
            topic_id=topic.topic_id,
            partitions=len(topic.partitions),
            replication_factor=1,
            configs=topic.configs,
            create_time_ms=NOW_MS,
        )
