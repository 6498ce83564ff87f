"""MetadataService: who leads what, pushed as it changes, and what this broker is and allows."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import metadata_pb2
from riverrun.v1.metadata_pb2 import (
    BrokerMetadata,
    ClusterMetadata,
    PartitionMetadata,
    Storage,
    StorageState,
    TopicMetadata,
    WatchMetadataResponse,
)
from riverrun_server.core.admission import DiskGate
from riverrun_server.core.cluster.topic_rules import is_internal
from riverrun_server.core.cluster.values import BrokerRegistration
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from riverrun_server.ports.clock import Clock
from riverrun_server.rpc.caller import CALLER
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.reply_size import check_size
from riverrun_server.rpc.sending import send
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.metadata_watch import MetadataWatcher
from riverrun_server.runtime.served_topics import ServedTopic

SERVICE: Final = "riverrun.v1.MetadataService"

_Context = grpc.aio.ServicerContext[Any, Any]


def advertised(broker: BrokerRegistration, listener: str) -> str:
    """Return where clients of a listener reach a broker; "" where it has no such listener."""
    return broker.endpoints.get(listener, "")


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """What a broker says of itself.

    Attributes:
        version: of the software.
        features: what it can do beyond the first version of the API.
    """

    version: str
    features: Sequence[str] = ()


class MetadataService:
    """Serves riverrun.v1.MetadataService from a catalog.

    Args:
        catalog: what it tells about.
        description: of this broker.
        clock: the broker's.
        draining: set when the broker shuts down; every watch ends then.
        gate: what was seen of the broker's disk; None where nothing watches one.
        endpoint: returns where clients of a listener, by its name, reach a broker.
    """

    def __init__(
        self,
        catalog: Catalog,
        description: ServerDescription,
        clock: Clock,
        draining: asyncio.Event,
        endpoint: Callable[[BrokerRegistration, str], str] = advertised,
        gate: DiskGate | None = None,
    ) -> None:
        self._catalog = catalog
        self._description = description
        self._clock = clock
        self._draining = draining
        self._endpoint = endpoint
        self._gate = gate

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetMetadata": grpc.unary_unary_rpc_method_handler(
                    self.get_metadata,
                    metadata_pb2.GetMetadataRequest.FromString,
                    metadata_pb2.GetMetadataResponse.SerializeToString,
                ),
                "WatchMetadata": grpc.unary_stream_rpc_method_handler(
                    self.watch_metadata,
                    metadata_pb2.WatchMetadataRequest.FromString,
                    WatchMetadataResponse.SerializeToString,
                ),
                "GetServerInfo": grpc.unary_unary_rpc_method_handler(
                    self.get_server_info,
                    metadata_pb2.GetServerInfoRequest.FromString,
                    metadata_pb2.GetServerInfoResponse.SerializeToString,
                ),
            },
        )

    async def get_metadata(
        self, request: metadata_pb2.GetMetadataRequest, _: _Context
    ) -> metadata_pb2.GetMetadataResponse:
        """Tell the brokers and who leads which partition."""
        names = self._named(request.topics) or self._public()
        return metadata_pb2.GetMetadataResponse(cluster=self._cluster(names))

    async def watch_metadata(
        self, request: metadata_pb2.WatchMetadataRequest, context: _Context
    ) -> None:
        """Tell the same at once, and then every change.

        Between two messages a watcher is owed only the names of what changed, so a slow one costs
        nothing and then gets the newest state.
        """
        named = self._named(request.topics)
        self._public()  # refuses while the broker starts
        watcher = self._catalog.watch(named)
        ending = asyncio.create_task(self._end_with_broker(watcher), name="end-metadata-watch")
        try:
            while True:
                news = await watcher.next()
                full = news.topics is None
                names = (named or self._public()) if news.topics is None else news.topics
                await send(
                    context.write,
                    WatchMetadataResponse(full=full, cluster=self._cluster(names)),
                )
        finally:
            watcher.close()
            ending.cancel()

    async def get_server_info(
        self, _: metadata_pb2.GetServerInfoRequest, __: _Context
    ) -> metadata_pb2.GetServerInfoResponse:
        """Tell the broker's version, features and limits."""
        return metadata_pb2.GetServerInfoResponse(
            version=self._description.version,
            broker_id=self._catalog.broker_id,
            cluster_id=self._catalog.cluster_id,
            features=self._description.features,
            limits=_limits(self._catalog.policy.limits),
            now_ms=self._clock.wall_ms(),
            storage=_storage(self._gate) if self._gate else None,
            open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )

    async def _end_with_broker(self, watcher: MetadataWatcher) -> None:
        await self._draining.wait()
        watcher.close()

    def _named(self, topics: Sequence[str]) -> list[str]:
        limit = self._catalog.policy.limits.max_partitions_per_call
        if len(topics) > limit:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"topics has {len(topics)} names, at most {limit} are allowed in one call (setting "
                "limits.max_partitions_per_call); name none to get all",
            )
        return sorted(set(topics))

    def _public(self) -> list[str]:
        return [name for name in self._catalog.topics.after("") if not is_internal(name)]

    def _cluster(self, names: Iterable[str]) -> ClusterMetadata:
        listener = CALLER.get().listener
        cluster = ClusterMetadata(
            cluster_id=self._catalog.cluster_id,
            revision=self._catalog.revision,
            brokers=[
                BrokerMetadata(
                    broker_id=broker.broker_id,
                    endpoint=self._endpoint(broker, listener),
                    rack=broker.rack,
                    host=broker.host,
                )
                for broker in self._catalog.brokers()
            ],
            served_by=self._catalog.broker_id,
            topics=[self._topic(name) for name in names],
        )
        limits = self._catalog.policy.limits
        check_size(cluster, limits, "the metadata asked for", "name fewer topics")
        return cluster

    def _topic(self, name: str) -> TopicMetadata:
        found = self._catalog.topics.get(name)
        if found is None:
            error = to_proto(self._catalog.topics.missing(name))
            return TopicMetadata(topic=name, internal=is_internal(name), error=error)
        return TopicMetadata(
            topic=name,
            topic_id=bytes(found.value.topic_id),
            partitions=_partitions(found),
            internal=found.value.internal,
        )


def _partitions(topic: ServedTopic) -> list[PartitionMetadata]:
    told = []
    for number, (state, leader) in enumerate(zip(topic.states, topic.leaders, strict=True)):
        partition = PartitionMetadata(partition=number, leader=leader)
        if state is not None:
            partition.leader_epoch = state.leader_epoch
            partition.replicas.extend(state.replicas)
            partition.in_sync_replicas.extend(replica.broker for replica in state.isr)
        told.append(partition)
    return told


def _storage(gate: DiskGate) -> Storage:
    state = StorageState.STORAGE_STATE_OPEN if gate.is_open else StorageState.STORAGE_STATE_FULL
    return Storage(
        state=state,
        total_bytes=gate.total_bytes,
        free_bytes=gate.free_bytes,
        low_water_bytes=gate.low_bytes,
        high_water_bytes=gate.high_bytes,
    )


def _limits(limits: Limits) -> metadata_pb2.Limits:
    return metadata_pb2.Limits(
        max_batch_bytes=limits.max_batch_bytes,
        max_batch_records=limits.max_batch_records,
        max_request_bytes=limits.max_request_bytes,
        max_frame_bytes=limits.max_frame_bytes,
        max_partitions_per_call=limits.max_partitions_per_call,
        max_unacknowledged_batches=limits.max_unacknowledged_batches,
        max_in_flight_bytes_per_connection=limits.max_in_flight_bytes_per_connection,
        timestamp_ahead_max=_duration(limits.timestamp_ahead_max_ms),
        default_produce_timeout=_duration(limits.default_produce_timeout_ms),
        max_produce_timeout=_duration(limits.max_produce_timeout_ms),
        max_fetch_wait=_duration(limits.max_fetch_wait_ms),
        min_session_timeout=_duration(limits.min_session_timeout_ms),
        max_session_timeout=_duration(limits.max_session_timeout_ms),
        default_session_timeout=_duration(limits.default_session_timeout_ms),
        default_revocation_timeout=_duration(limits.default_revocation_timeout_ms),
    )


def _duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1_000, nanos=milliseconds % 1_000 * 1_000_000)
