"""Topics over gRPC: made, listed, described, changed, trimmed and deleted, or refused."""

from __future__ import annotations

import asyncio
import base64

import grpc
import pytest

from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import errors_pb2 as e
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.topic_config import KEYS
from riverrun_server.core.cluster.values import Id, Incarnations
from riverrun_server.core.limits import Limits
from riverrun_server.rpc.admin import AdminService
from tests.rpc.catalog_service import failed, served
from tests.runtime.catalog_world import LIVES, CatalogWorld


@pytest.fixture
async def broker():
    async with served() as broker:
        yield broker


async def create(broker, topic, partitions=1, **fields):
    request = a.CreateTopicRequest(topic=topic, partitions=partitions, **fields)
    return await broker.admin.CreateTopic(request)


def test_every_method_of_the_service_is_served():
    handler = AdminService(None).handler()
    for method in a.DESCRIPTOR.services_by_name["AdminService"].methods:
        details = type("Details", (), {"method": f"/riverrun.v1.AdminService/{method.name}"})
        assert handler.service(details) is not None


# --- CreateTopic


async def test_a_topic_is_made_as_it_is_answered(broker):
    made = await create(broker, "t", 3, configs={"retention.ms": "7d"})
    assert made.created
    assert (made.topic.topic, made.topic.partitions, made.topic.replication_factor) == ("t", 3, 1)
    assert dict(made.topic.configs) == {"retention.ms": "604800000"}
    assert len(made.topic.topic_id) == 16
    assert made.topic.create_time_ms == broker.world.clock.wall_ms()
    assert not made.topic.internal
    assert len(broker.catalog.partitions("t", made.topic.topic_id)) == 3


async def test_a_topic_that_exists_is_refused_or_accepted_as_it_is(broker):
    first = await create(broker, "t", 3)
    refused = await failed(create(broker, "t", 5))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert refused.error.reason == e.ERROR_REASON_TOPIC_EXISTS
    assert refused.error.outcome == e.OUTCOME_NOTHING_HAPPENED
    # In the words of the API: what a client calls it, the client says.
    assert refused.error.message.endswith("already; with if_not_exists it is accepted as it is")
    again = await create(broker, "t", 5, if_not_exists=True)
    assert not again.created
    assert again.topic == first.topic


async def test_checking_a_creation_makes_nothing(broker):
    checked = await create(broker, "t", 3, validate_only=True)
    assert (checked.topic.partitions, checked.created) == (3, False)
    assert (await failed(create(broker, "t", -1, validate_only=True))).error.reason == (
        e.ERROR_REASON_INVALID_REQUEST
    )
    assert not (await broker.admin.ListTopics(a.ListTopicsRequest())).topics
    await create(broker, "t", 2)
    existing = await create(broker, "t", 3, validate_only=True, if_not_exists=True)
    assert existing.topic.partitions == 2


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"topic": ""}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "../../etc/passwd"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": ".."}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "/tmp/x"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a\\..\\b"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a\r\nERROR forged"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a\n"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a\x1b[2J"}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a" * 250}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "a" * 1_000_000}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_NAME),
        ({"topic": "__mine"}, "PERMISSION_DENIED", e.ERROR_REASON_TOPIC_RESERVED),
        ({"topic": "t", "partitions": -1}, "INVALID_ARGUMENT", e.ERROR_REASON_INVALID_REQUEST),
        (
            {"topic": "t", "partitions": 2**31 - 1},
            "RESOURCE_EXHAUSTED",
            e.ERROR_REASON_LIMIT_EXCEEDED,
        ),
        (
            {"topic": "t", "replication_factor": 3},
            "FAILED_PRECONDITION",
            e.ERROR_REASON_NOT_ENOUGH_BROKERS,
        ),
        (
            {"topic": "t", "replication_factor": 2**31 - 1},
            "INVALID_ARGUMENT",
            e.ERROR_REASON_INVALID_REQUEST,
        ),
        (
            {"topic": "t", "configs": {"retention.mss": "1"}},
            "INVALID_ARGUMENT",
            e.ERROR_REASON_INVALID_CONFIG,
        ),
        (
            {"topic": "t", "configs": {"fsync": "false"}},
            "INVALID_ARGUMENT",
            e.ERROR_REASON_INVALID_CONFIG,
        ),
        (
            {"topic": "t", "configs": {"fsync\r\n": "x" * 100_000}},
            "INVALID_ARGUMENT",
            e.ERROR_REASON_INVALID_CONFIG,
        ),
        (
            {"topic": "t", "configs": {f"k{number}": "v" for number in range(20_000)}},
            "INVALID_ARGUMENT",
            e.ERROR_REASON_INVALID_CONFIG,
        ),
    ],
)
async def test_what_cannot_be_made_is_refused_definitely_and_harmlessly(
    broker, fields, code, reason
):
    refused = await failed(broker.admin.CreateTopic(a.CreateTopicRequest(**fields)))
    assert refused.code.name == code
    assert refused.error.reason == reason
    assert refused.error.outcome == e.OUTCOME_NOTHING_HAPPENED
    assert refused.error.message.isprintable()
    assert len(refused.error.message) < 700
    assert broker.world.logs.partitions() == []


async def test_a_disk_full_of_topics_is_a_limit_that_is_named():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_partitions=3)))
    async with served(world) as broker:
        await create(broker, "a", 2)
        refused = await failed(create(broker, "b", 2))
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
        assert "limits.max_partitions" in refused.error.message


async def test_a_broker_that_starts_says_that_it_is_not_ready():
    async with served(run=False) as broker:
        for call in (
            broker.admin.ListTopics(a.ListTopicsRequest()),
            broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="t")),
            create(broker, "t"),
            create(broker, "t", validate_only=True),
            broker.admin.AlterTopic(a.AlterTopicRequest(topic="t")),
            broker.admin.AddPartitions(a.AddPartitionsRequest(topic="t", partitions=3)),
            broker.admin.TrimTopic(a.TrimTopicRequest(topic="t")),
            broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="t")),
        ):
            refused = await failed(call)
            assert refused.code is grpc.StatusCode.UNAVAILABLE
            assert refused.error.reason == e.ERROR_REASON_NOT_READY
            assert refused.error.retry_safe


# --- ListTopics


async def pages(broker, **fields):
    token, found = "", []
    while True:
        page = await broker.admin.ListTopics(a.ListTopicsRequest(page_token=token, **fields))
        found.append([topic.topic for topic in page.topics])
        token = page.next_page_token
        if not token:
            return found


async def test_topics_are_listed_by_name_a_page_at_a_time(broker):
    for name in ("b", "a", "c", "B"):
        await create(broker, name)
    await broker.catalog.ensure_internal_topic("__x", 1, {})
    assert await pages(broker) == [["B", "a", "b", "c"]]
    assert await pages(broker, page_size=1) == [["B"], ["a"], ["b"], ["c"]]
    assert await pages(broker, page_size=2) == [["B", "a"], ["b", "c"]]
    assert await pages(broker, page_size=3) == [["B", "a", "b"], ["c"]]
    assert await pages(broker, page_size=2**31 - 1) == [["B", "a", "b", "c"]]
    assert await pages(broker, page_size=3, include_internal=True) == [
        ["B", "__x", "a"],
        ["b", "c"],
    ]


async def test_listing_goes_on_although_the_last_topic_of_the_page_is_gone(broker):
    for name in ("a", "b", "c"):
        await create(broker, name)
    page = await broker.admin.ListTopics(a.ListTopicsRequest(page_size=2))
    await broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="b"))
    rest = await broker.admin.ListTopics(
        a.ListTopicsRequest(page_size=2, page_token=page.next_page_token)
    )
    assert [topic.topic for topic in rest.topics] == ["c"]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "????",
        "ü",
        base64.b64encode(b"0").decode(),
        base64.b64encode(b"0../x").decode(),
        base64.b64encode(b"0\xff").decode(),
        "a" * 100_000,
    ],
)
async def test_a_page_token_that_was_not_given_out_is_refused(broker, token):
    refused = await failed(broker.admin.ListTopics(a.ListTopicsRequest(page_token=token)))
    assert refused.error.reason == e.ERROR_REASON_INVALID_REQUEST
    assert "page_token" in refused.error.message


async def test_a_page_token_belongs_to_its_request(broker):
    for name in ("a", "b"):
        await create(broker, name)
    page = await broker.admin.ListTopics(a.ListTopicsRequest(page_size=1))
    refused = await failed(
        broker.admin.ListTopics(
            a.ListTopicsRequest(page_token=page.next_page_token, include_internal=True)
        )
    )
    assert "include_internal" in refused.error.message
    refused = await failed(broker.admin.ListTopics(a.ListTopicsRequest(page_size=-1)))
    assert "page_size" in refused.error.message


# --- DescribeTopic


async def test_a_description_has_every_partition_and_every_setting_with_its_source(broker):
    await create(broker, "t", 2, configs={"fsync": "true"})
    broker.world.opened["t", 1].append(b"12345")
    broker.world.opened["t", 1].trimmed = 2
    told = await broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="t"))
    assert told.topic.topic == "t"
    assert [each.partition for each in told.partitions] == [0, 1]
    partition = told.partitions[1]
    assert (partition.leader, partition.leader_epoch) == (1, 0)
    assert (list(partition.replicas), list(partition.in_sync_replicas)) == ([1], [1])
    assert (partition.log_start_offset, partition.high_watermark) == (2, 5)
    assert (partition.log_end_offset, partition.size_bytes) == (5, 3)
    assert not partition.HasField("error")
    configs = {each.key: each for each in told.configs}
    assert list(configs) == sorted(KEYS)
    assert configs["fsync"].source == a.CONFIG_SOURCE_TOPIC
    assert configs["retention.ms"].source == a.CONFIG_SOURCE_DEFAULT
    assert configs["retention.ms"].value == "604800000"
    assert all(each.documentation for each in told.configs)


async def test_a_partition_that_is_offline_is_described_with_its_error():
    world = CatalogWorld()
    async with served(world) as broker:
        await create(broker, "loose", 1, configs={"fsync": "relaxed"})
        await create(broker, "strict")
    async with served(world, lives=Incarnations(LIVES.fsync, Id(b"c" * 16))) as broker:
        told = await broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="loose"))
        (partition,) = told.partitions
        assert partition.leader == -1
        assert list(partition.replicas) == [1]
        assert partition.error.reason == e.ERROR_REASON_PARTITION_OFFLINE
        assert "--topic loose --partition 0 --accept-loss" in partition.error.message
        told = await broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="strict"))
        assert told.partitions[0].leader == 1
        listed = await broker.admin.ListTopics(a.ListTopicsRequest())
        assert [topic.topic for topic in listed.topics] == ["loose", "strict"]


async def test_a_description_that_no_client_would_accept_is_refused_with_its_size():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_frame_bytes=2_000)))
    async with served(world) as broker:
        await create(broker, "t", 100)
        refused = await failed(broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="t")))
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
        assert "2000" in refused.error.message


async def test_a_missing_topic_is_told_with_what_was_meant(broker):
    await create(broker, "orders")
    for call in (
        broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="odrers")),
        broker.admin.AlterTopic(a.AlterTopicRequest(topic="odrers")),
        broker.admin.AddPartitions(a.AddPartitionsRequest(topic="odrers", partitions=3)),
        broker.admin.TrimTopic(a.TrimTopicRequest(topic="odrers")),
        broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="odrers")),
    ):
        refused = await failed(call)
        assert refused.code is grpc.StatusCode.NOT_FOUND
        assert refused.error.reason == e.ERROR_REASON_TOPIC_NOT_FOUND
        assert "did you mean 'orders'?" in refused.error.message


# --- AlterTopic, AddPartitions


async def test_a_configuration_is_changed_and_given_back(broker):
    await create(broker, "t", 1, configs={"retention.ms": "1000"})
    request = a.AlterTopicRequest(topic="t", set={"fsync": "relaxed"}, unset=["retention.ms"])
    checked = await broker.admin.AlterTopic(
        a.AlterTopicRequest(topic="t", set={"fsync": "relaxed"}, validate_only=True)
    )
    assert dict(checked.topic.configs) == {"retention.ms": "1000", "fsync": "relaxed"}
    assert broker.world.opened["t", 0].config.fsync
    altered = await broker.admin.AlterTopic(request)
    assert dict(altered.topic.configs) == {"fsync": "relaxed"}
    assert not broker.world.opened["t", 0].config.fsync
    assert await broker.admin.AlterTopic(request) == altered


@pytest.mark.parametrize(
    "fields",
    [
        {"set": {"fsynk": "true"}},
        {"set": {"retention.ms": "soon"}},
        {"unset": ["fsynk"]},
        {"unset": ["fsync"] * 50_000},
        {"set": {"fsync": "true"}, "unset": ["fsync"]},
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(broker, fields):
    await create(broker, "t")
    refused = await failed(broker.admin.AlterTopic(a.AlterTopicRequest(topic="t", **fields)))
    assert refused.error.reason == e.ERROR_REASON_INVALID_CONFIG


async def test_partitions_are_added(broker):
    await create(broker, "t", 2)
    request = a.AddPartitionsRequest(topic="t", partitions=4)
    checked = await broker.admin.AddPartitions(
        a.AddPartitionsRequest(topic="t", partitions=4, validate_only=True)
    )
    assert checked.topic.partitions == 4
    assert len(broker.catalog.partitions("t")) == 2
    assert (await broker.admin.AddPartitions(request)).topic.partitions == 4
    assert len(broker.catalog.partitions("t")) == 4
    # Sent again, as after a lost answer, it is no mistake.
    assert (await broker.admin.AddPartitions(request)).topic.partitions == 4


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (1, e.ERROR_REASON_INVALID_REQUEST),
        (0, e.ERROR_REASON_INVALID_REQUEST),
        (-(2**31), e.ERROR_REASON_INVALID_REQUEST),
        (2**31 - 1, e.ERROR_REASON_LIMIT_EXCEEDED),
    ],
)
async def test_a_number_of_partitions_that_cannot_be_is_refused(broker, count, reason):
    await create(broker, "t", 2)
    refused = await failed(
        broker.admin.AddPartitions(a.AddPartitionsRequest(topic="t", partitions=count))
    )
    assert refused.error.reason == reason


# --- TrimTopic


async def test_each_point_of_a_trim_has_its_own_result(broker):
    await create(broker, "t", 3)
    for number in range(3):
        broker.world.opened["t", number].append(b"0123456789")
    points = [(1, 4), (0, -1), (2, 11), (7, 1), (-1, 0)]
    told = await broker.admin.TrimTopic(
        a.TrimTopicRequest(
            topic="t", points=[a.TrimPoint(partition=p, before_offset=o) for p, o in points]
        )
    )
    assert [result.partition for result in told.results] == [1, 0, 2, 7, -1]
    assert [result.log_start_offset for result in told.results[:2]] == [4, 10]
    assert [result.error.reason for result in told.results] == [
        e.ERROR_REASON_UNSPECIFIED,
        e.ERROR_REASON_UNSPECIFIED,
        e.ERROR_REASON_OFFSET_OUT_OF_RANGE,
        e.ERROR_REASON_PARTITION_NOT_FOUND,
        e.ERROR_REASON_PARTITION_NOT_FOUND,
    ]
    assert told.results[2].error.available.latest == 10
    assert broker.world.opened["t", 2].trimmed == 0


async def test_a_trim_before_a_negative_offset_is_refused(broker):
    await create(broker, "t")
    told = await broker.admin.TrimTopic(
        a.TrimTopicRequest(topic="t", points=[a.TrimPoint(partition=0, before_offset=-2)])
    )
    assert told.results[0].error.reason == e.ERROR_REASON_INVALID_REQUEST


async def test_a_trim_names_each_partition_once_and_not_too_many():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_partitions_per_call=3)))
    async with served(world) as broker:
        await create(broker, "t", 5)
        twice = a.TrimTopicRequest(topic="t", points=[a.TrimPoint(), a.TrimPoint()])
        assert (await failed(broker.admin.TrimTopic(twice))).error.reason == (
            e.ERROR_REASON_INVALID_REQUEST
        )
        many = a.TrimTopicRequest(
            topic="t", points=[a.TrimPoint(partition=number) for number in range(4)]
        )
        assert (await failed(broker.admin.TrimTopic(many))).error.reason == (
            e.ERROR_REASON_LIMIT_EXCEEDED
        )


# --- DeleteTopic, reserved names


async def test_a_topic_is_deleted_only_under_its_own_id(broker):
    made = await create(broker, "t", 2)
    for topic_id, reason in (
        (b"x" * 16, e.ERROR_REASON_TOPIC_ID_MISMATCH),
        (b"x" * 15, e.ERROR_REASON_INVALID_REQUEST),
    ):
        request = a.DeleteTopicRequest(topic="t", topic_id=topic_id)
        assert (await failed(broker.admin.DeleteTopic(request))).error.reason == reason
    await broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="t", topic_id=made.topic.topic_id))
    assert broker.world.logs.partitions() == []
    again = await create(broker, "t")
    assert again.topic.topic_id != made.topic.topic_id


async def test_topics_of_the_brokers_can_be_described_and_nothing_else(broker):
    await broker.catalog.ensure_internal_topic("__x", 2, {})
    told = await broker.admin.DescribeTopic(a.DescribeTopicRequest(topic="__x"))
    assert told.topic.internal
    for call in (
        create(broker, "__x"),
        broker.admin.AlterTopic(a.AlterTopicRequest(topic="__x")),
        broker.admin.AddPartitions(a.AddPartitionsRequest(topic="__x", partitions=3)),
        broker.admin.TrimTopic(a.TrimTopicRequest(topic="__x")),
        broker.admin.DeleteTopic(a.DeleteTopicRequest(topic="__x")),
    ):
        refused = await failed(call)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert refused.error.reason == e.ERROR_REASON_TOPIC_RESERVED


async def test_a_client_that_hangs_up_does_not_leave_a_topic_half_made(broker):
    call = create(broker, "t", 300)
    making = asyncio.ensure_future(call)
    while not broker.catalog._image.tombstones:  # noqa: ASYNC110 - the test's own clock
        await asyncio.sleep(0.001)
    making.cancel()
    await asyncio.wait([making])
    await create(broker, "next")
    assert len(broker.catalog.partitions("t")) == 300
