"""Metadata over gRPC: what is told at once, what is pushed, and what a broker says of itself."""

from __future__ import annotations

import asyncio
import resource

import grpc
import pytest

from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import errors_pb2 as e
from riverrun.v1 import metadata_pb2 as m
from riverrun_server.core.admission import DiskGate
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.limits import Limits
from riverrun_server.rpc.metadata import MetadataService, ServerDescription, advertised
from tests.rpc.catalog_service import failed, served
from tests.runtime.catalog_world import CatalogWorld, registration


@pytest.fixture
async def broker():
    async with served() as broker:
        yield broker


async def create(broker, topic, partitions=1):
    request = a.CreateTopicRequest(topic=topic, partitions=partitions)
    return (await broker.admin.CreateTopic(request)).topic


async def get(broker, *topics):
    return (await broker.metadata.GetMetadata(m.GetMetadataRequest(topics=topics))).cluster


class Watching:
    def __init__(self, broker, *topics):
        self.call = broker.metadata.WatchMetadata(m.WatchMetadataRequest(topics=topics))

    async def next(self):
        async with asyncio.timeout(10):
            return await self.call.read()

    async def until(self, revision):
        """Return all messages up to the one that shows a revision."""
        told = []
        while not told or told[-1].cluster.revision < revision:
            told.append(await self.next())
        return told


def test_every_method_of_the_service_is_served():
    service = MetadataService(None, ServerDescription(""), None, None)
    for method in m.DESCRIPTOR.services_by_name["MetadataService"].methods:
        details = type("Details", (), {"method": f"/riverrun.v1.MetadataService/{method.name}"})
        assert service.handler().service(details) is not None


# --- GetMetadata


async def test_metadata_tells_brokers_topics_and_leaders_at_a_revision(broker):
    made = await create(broker, "t", 2)
    cluster = await get(broker)
    assert cluster.cluster_id == broker.catalog.cluster_id
    assert cluster.revision == broker.catalog.revision > 0
    assert cluster.served_by == 1
    (member,) = cluster.brokers
    assert (member.broker_id, member.rack, member.host) == (1, "r1", "m1")
    (topic,) = cluster.topics
    assert (topic.topic, topic.topic_id, topic.internal) == ("t", made.topic_id, False)
    assert [each.partition for each in topic.partitions] == [0, 1]
    partition = topic.partitions[1]
    assert (partition.leader, partition.leader_epoch) == (1, 0)
    assert (list(partition.replicas), list(partition.in_sync_replicas)) == ([1], [1])


async def test_every_listener_tells_its_own_address():
    for listener, expected in (("clients", "here:7171"), ("other", "")):
        async with served(listener=listener) as broker:
            assert (await get(broker)).brokers[0].endpoint == expected
    assert advertised(registration(), "clients") == "here:7171"


async def test_named_topics_are_told_those_of_the_brokers_too_and_what_is_missing(broker):
    await create(broker, "orders")
    await create(broker, "other")
    await broker.catalog.ensure_internal_topic("__x", 1, {})
    assert [topic.topic for topic in (await get(broker)).topics] == ["orders", "other"]
    cluster = await get(broker, "odrers", "__x", "orders", "orders", "__y", "a\r\nb")
    told = {topic.topic: topic for topic in cluster.topics}
    assert list(told) == ["__x", "__y", "a\r\nb", "odrers", "orders"]
    assert told["__x"].internal
    assert told["orders"].partitions
    assert told["odrers"].error.reason == e.ERROR_REASON_TOPIC_NOT_FOUND
    assert "did you mean 'orders'?" in told["odrers"].error.message
    assert told["__y"].error.reason == e.ERROR_REASON_TOPIC_NOT_FOUND
    assert told["a\r\nb"].error.message.isprintable()


async def test_no_more_topics_are_named_than_a_call_may():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_partitions_per_call=3)))
    async with served(world) as broker:
        refused = await failed(
            broker.metadata.GetMetadata(m.GetMetadataRequest(topics=["a", "b", "c", "d"]))
        )
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
        refused = await failed(Watching(broker, "a", "b", "c", "d").next())
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED


async def test_metadata_that_no_client_would_accept_is_refused_with_what_to_do():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_frame_bytes=1_000)))
    async with served(world) as broker:
        await create(broker, "t", 100)
        await create(broker, "u", 1)
        refused = await failed(broker.metadata.GetMetadata(m.GetMetadataRequest()))
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
        assert "name fewer topics" in refused.error.message
        assert len((await get(broker, "u")).topics) == 1


async def test_a_broker_that_starts_says_that_it_is_not_ready():
    async with served(run=False) as broker:
        refused = await failed(broker.metadata.GetMetadata(m.GetMetadataRequest()))
        assert refused.error.reason == e.ERROR_REASON_NOT_READY
        refused = await failed(Watching(broker).next())
        assert refused.error.reason == e.ERROR_REASON_NOT_READY


# --- WatchMetadata


async def test_a_watch_tells_everything_and_then_every_change(broker):
    await create(broker, "a")
    watching = Watching(broker)
    first = await watching.next()
    assert first.full
    assert [topic.topic for topic in first.cluster.topics] == ["a"]
    made = await create(broker, "b", 3)
    told = await watching.until(broker.catalog.revision)
    assert not any(each.full for each in told)
    (topic,) = told[-1].cluster.topics
    assert (topic.topic, topic.topic_id, len(topic.partitions)) == ("b", made.topic_id, 3)
    await broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="a"))
    topic = (await watching.next()).cluster.topics[0]
    assert topic.topic == "a"
    assert topic.error.reason == e.ERROR_REASON_TOPIC_NOT_FOUND
    assert not topic.partitions


async def test_what_was_told_is_all_there_is(broker):
    """Folding what a watch told gives what GetMetadata tells."""
    watching = Watching(broker)
    known = {}

    async def fold():
        while True:
            told = await watching.next()
            if told.full:
                known.clear()
            for topic in told.cluster.topics:
                known[topic.topic] = topic
                if topic.HasField("error"):
                    del known[topic.topic]
            if "last" in known:
                return

    folding = asyncio.create_task(fold())
    for number in range(8):
        await create(broker, f"t{number}", 2)
    await broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="t3"))
    await broker.admin.AddPartitions(a.AddPartitionsRequest(topic="t5", partitions=4))
    await broker.catalog.ensure_internal_topic("__x", 1, {})
    await create(broker, "last")
    await folding
    assert [known[name] for name in sorted(known)] == list((await get(broker)).topics)


async def test_a_watch_of_named_topics_hears_of_no_others(broker):
    watching = Watching(broker, "b", "a")
    first = await watching.next()
    assert [(topic.topic, topic.error.reason) for topic in first.cluster.topics] == [
        ("a", e.ERROR_REASON_TOPIC_NOT_FOUND),
        ("b", e.ERROR_REASON_TOPIC_NOT_FOUND),
    ]
    await create(broker, "c")
    await create(broker, "b")
    told = await watching.next()
    assert [topic.topic for topic in told.cluster.topics] == ["b"]
    assert told.cluster.revision == broker.catalog.revision


async def test_revisions_of_a_watch_only_grow(broker):
    watching = Watching(broker)
    revisions = [(await watching.next()).cluster.revision]
    for number in range(5):
        await create(broker, f"t{number}")
        revisions += [
            told.cluster.revision for told in await watching.until(broker.catalog.revision)
        ]
    assert revisions == sorted(set(revisions))


async def test_a_watcher_that_does_not_read_holds_names_and_no_messages(broker):
    watcher = broker.catalog.watch([])
    await watcher.next()
    for number in range(20):
        await create(broker, f"t{number}", 1)
        await broker.admin.DeleteTopic(a.DeleteTopicRequest(topic=f"t{number}"))
    assert watcher._dirty == {f"t{number}" for number in range(20)}


async def test_watches_are_counted_and_given_back():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_metadata_watchers=1)))
    async with served(world) as broker:
        first = Watching(broker)
        await first.next()
        refused = await failed(Watching(broker).next())
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.error.reason == e.ERROR_REASON_OVERLOADED
        first.call.cancel()
        while broker.catalog._watchers._watchers:  # noqa: ASYNC110 - the server's turn
            await asyncio.sleep(0.001)
        assert (await Watching(broker).next()).full


async def test_a_watch_ends_when_the_broker_drains(broker):
    watching = Watching(broker)
    await watching.next()
    broker.draining.set()
    refused = await failed(watching.next())
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.error.reason == e.ERROR_REASON_SHUTTING_DOWN
    assert refused.error.retry_safe


# --- GetServerInfo


async def test_a_broker_tells_its_version_its_limits_and_its_clock():
    limits = Limits(timestamp_ahead_max_ms=1_500)
    async with served(CatalogWorld(policy=TopicPolicy(limits=limits))) as broker:
        info = await broker.metadata.GetServerInfo(m.GetServerInfoRequest())
        assert (info.version, info.broker_id, list(info.features)) == ("1.2.3", 1, ["x"])
        assert info.cluster_id == broker.catalog.cluster_id
        assert info.now_ms == broker.world.clock.wall_ms()
        assert info.limits.max_batch_bytes == 3 << 20
        assert info.limits.timestamp_ahead_max.ToMilliseconds() == 1_500
        assert info.limits.max_fetch_wait.ToMilliseconds() == limits.max_fetch_wait_ms


async def test_a_broker_tells_how_full_its_disk_is_and_whether_it_takes_records():
    gate = DiskGate(100, 200)
    gate.observe(150, 1_000)
    async with served(gate=gate) as broker:
        info = await broker.metadata.GetServerInfo(m.GetServerInfoRequest())
        assert info.storage == m.Storage(
            state=m.STORAGE_STATE_OPEN,
            total_bytes=1_000,
            free_bytes=150,
            low_water_bytes=100,
            high_water_bytes=200,
        )
        gate.observe(99, 1_000)
        info = await broker.metadata.GetServerInfo(m.GetServerInfoRequest())
        assert (info.storage.state, info.storage.free_bytes) == (m.STORAGE_STATE_FULL, 99)
        assert info.open_files_limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def test_a_broker_without_a_disk_tells_of_none(broker):
    info = await broker.metadata.GetServerInfo(m.GetServerInfoRequest())
    assert not info.HasField("storage")


def test_every_limit_that_the_api_tells_is_one_that_the_broker_has():
    told = {field.name for field in m.Limits.DESCRIPTOR.fields}
    own = {name.removesuffix("_ms") for name in Limits.__slots__}
    assert told <= own
