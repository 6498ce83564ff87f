"""AdminService: makes, lists, describes, changes, trims and deletes topics; cluster_admin has the rest.

Every method raises a Refusal for a call that fails as a whole; the interceptor makes a status of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from riverrun.v1 import admin_pb2
from riverrun.v1.admin_pb2 import ConfigEntry, PartitionDescription, Topic, TrimPoint, TrimResult
from riverrun_server.core.cluster import topic_config, topic_rules
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.naming import quoted
from riverrun_server.core.cluster.values import Id, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.rpc.cluster_admin import ClusterAdmin
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.paging import foreign_token, page_token, read_page_token
from riverrun_server.rpc.reply_size import check_size
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.served_topics import ServedTopic

SERVICE: Final = "riverrun.v1.AdminService"

# 1000 topics with long names and full configuration take less than 1 MiB.
_PAGE_MAX: Final = 1_000
# Trims of one call wait for the disk together, so many at a time.
_AT_ONCE: Final = 64

_Context = grpc.aio.ServicerContext[Any, Any]
# Each method takes and returns messages of its own types.
_Unary = Callable[[Any, _Context], Awaitable[Message]]


class AdminService:
    """Serves riverrun.v1.AdminService from a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._cluster = ClusterAdmin(catalog)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        methods: dict[str, _Unary] = {
            "CreateTopic": self.create_topic,
            "ListTopics": self.list_topics,
            "DescribeTopic": self.describe_topic,
            "AlterTopic": self.alter_topic,
            "AddPartitions": self.add_partitions,
            "TrimTopic": self.trim_topic,
            "DeleteTopic": self.delete_topic,
            "DescribeCluster": self._cluster.describe_cluster,
            "ElectLeaders": self._cluster.elect_leaders,
            "DrainBroker": self._cluster.drain_broker,
        }
        service = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                method.name: grpc.unary_unary_rpc_method_handler(
                    methods[method.name],
                    GetMessageClass(method.input_type).FromString,
                    GetMessageClass(method.output_type).SerializeToString,
                )
                for method in service.methods
            },
        )

    async def create_topic(
        self, request: admin_pb2.CreateTopicRequest, _: _Context
    ) -> admin_pb2.CreateTopicResponse:
        """Make a topic."""
        new = NewTopic(
            request.topic, request.partitions, request.replication_factor, request.configs
        )
        made = await self._catalog.changes.create(
            new, validate_only=request.validate_only, if_not_exists=request.if_not_exists
        )
        return admin_pb2.CreateTopicResponse(topic=_topic(made.topic), created=made.created)

    async def list_topics(
        self, request: admin_pb2.ListTopicsRequest, _: _Context
    ) -> admin_pb2.ListTopicsResponse:
        """List topics by name, a page at a time (AIP-158)."""
        if request.page_size < 0:
            raise Refusal(
                Reason.INVALID_REQUEST, f"page_size is {request.page_size}, expected at least 0"
            )
        size = min(request.page_size or _PAGE_MAX, _PAGE_MAX)
        last = _read_token(request.page_token, request.include_internal)
        names = [
            name
            for name in self._catalog.topics.after(last)
            if request.include_internal or not topic_rules.is_internal(name)
        ]
        page = names[:size]
        more = len(names) > size
        return admin_pb2.ListTopicsResponse(
            topics=[_topic(self._catalog.topics.find(name).value) for name in page],
            next_page_token=_write_token(page[-1], request.include_internal) if more else "",
        )

    async def describe_topic(
        self, request: admin_pb2.DescribeTopicRequest, _: _Context
    ) -> admin_pb2.DescribeTopicResponse:
        """Tell everything about a topic."""
        topic = self._catalog.topics.find(request.topic)
        settings = topic_config.settings(
            topic.value.configs,
            self._catalog.policy.default_configs,
            topic.value.replication_factor,
        )
        response = admin_pb2.DescribeTopicResponse(
            topic=_topic(topic.value),
            partitions=[await _partition(topic, each) for each in range(topic.value.partitions)],
            configs=[
                ConfigEntry(
                    key=setting.key.name,
                    value=setting.value,
                    source=(
                        admin_pb2.CONFIG_SOURCE_TOPIC
                        if setting.is_set
                        else admin_pb2.CONFIG_SOURCE_DEFAULT
                    ),
                    documentation=setting.key.doc,
                )
                for setting in settings
            ],
        )
        check_size(
            response,
            self._catalog.policy.limits,
            f"the description of topic {quoted(request.topic)}",
            "ask for its metadata and for the offsets of partitions by number",
        )
        return response

    async def alter_topic(
        self, request: admin_pb2.AlterTopicRequest, _: _Context
    ) -> admin_pb2.AlterTopicResponse:
        """Change a topic's configuration."""
        topic = await self._catalog.changes.alter(
            request.topic, request.set, request.unset, validate_only=request.validate_only
        )
        return admin_pb2.AlterTopicResponse(topic=_topic(topic))

    async def add_partitions(
        self, request: admin_pb2.AddPartitionsRequest, _: _Context
    ) -> admin_pb2.AddPartitionsResponse:
        """Give a topic more partitions."""
        topic = await self._catalog.changes.add_partitions(
            request.topic, request.partitions, validate_only=request.validate_only
        )
        return admin_pb2.AddPartitionsResponse(topic=_topic(topic))

    async def trim_topic(
        self, request: admin_pb2.TrimTopicRequest, _: _Context
    ) -> admin_pb2.TrimTopicResponse:
        """Delete the records before an offset."""
        topic_rules.check_not_reserved(request.topic)
        topic = self._catalog.topics.find(request.topic)
        points = list(request.points)
        limit = self._catalog.policy.limits.max_partitions_per_call
        if len(points) > limit:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"points has {len(points)} entries, at most {limit} are allowed in one call "
                "(setting limits.max_partitions_per_call)",
            )
        if len({point.partition for point in points}) < len(points):
            raise Refusal(Reason.INVALID_REQUEST, "points names a partition twice")
        results: list[TrimResult] = []
        for at in range(0, len(points), _AT_ONCE):
            some = points[at : at + _AT_ONCE]
            results += await asyncio.gather(*(_trim(topic, point) for point in some))
        return admin_pb2.TrimTopicResponse(results=results)

    async def delete_topic(
        self, request: admin_pb2.DeleteTopicRequest, _: _Context
    ) -> admin_pb2.DeleteTopicResponse:
        """Delete a topic and everything in it."""
        if request.topic_id and len(request.topic_id) != Id.SIZE:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"topic_id has {len(request.topic_id)} bytes, expected {Id.SIZE} or none",
            )
        await self._catalog.changes.delete(request.topic, request.topic_id)
        return admin_pb2.DeleteTopicResponse()


def _topic(value: TopicValue) -> Topic:
    return Topic(
        topic=value.topic,
        topic_id=bytes(value.topic_id),
        partitions=value.partitions,
        replication_factor=value.replication_factor,
        configs=value.configs,
        internal=value.internal,
        create_time_ms=value.create_time_ms,
    )


async def _partition(topic: ServedTopic, number: int) -> PartitionDescription:
    state = topic.states[number]
    described = PartitionDescription(partition=number, leader=topic.leaders[number])
    if state is not None:
        described.leader_epoch = state.leader_epoch
        described.replicas.extend(state.replicas)
        described.in_sync_replicas.extend(each.broker for each in state.isr)
        described.eligible_leader_replicas.extend(each.broker for each in state.elr)
        described.partition_epoch = state.partition_epoch
        described.min_in_sync_replicas = state.min_isr
    try:
        marks = await topic.partitions[number].watermarks()
    except Refusal as refusal:
        described.error.CopyFrom(to_proto(refusal))
        return described
    described.log_start_offset = marks.log_start_offset
    described.high_watermark = marks.high_watermark
    described.log_end_offset = marks.log_end_offset
    described.size_bytes = marks.size_bytes
    return described


async def _trim(topic: ServedTopic, point: TrimPoint) -> TrimResult:
    try:
        log_start = await _trimmed(topic, point.partition, point.before_offset)
    except Refusal as refusal:
        return TrimResult(partition=point.partition, error=to_proto(refusal))
    return TrimResult(partition=point.partition, log_start_offset=log_start)


async def _trimmed(topic: ServedTopic, partition: int, before_offset: int) -> int:
    if not 0 <= partition < len(topic.partitions):
        raise topic_rules.missing_partition(topic.value.topic, partition, len(topic.partitions))
    if before_offset < -1:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"before_offset is {before_offset}, expected an offset, or -1 for everything that is "
            "committed",
        )
    return await topic.partitions[partition].trim(before_offset)


def _write_token(last: str, include_internal: bool) -> str:
    return page_token(f"{include_internal:d}{last}")


def _read_token(token: str, include_internal: bool) -> str:
    """Return the last name of the page before; "" at the beginning."""
    if not token:
        return ""
    text = read_page_token(token)
    if not topic_rules.is_valid_name(text[1:]):
        raise foreign_token(token)
    if text[0] != f"{include_internal:d}":
        raise Refusal(
            Reason.INVALID_REQUEST,
            "page_token belongs to a request with another include_internal; ask for every page "
            "with the same fields",
        )
    return text[1:]
