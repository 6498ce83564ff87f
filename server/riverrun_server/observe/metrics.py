"""Every metric of a broker, its meaning and its labels, in one object that drivers are given.

Names follow Prometheus' conventions: base units last, counters end in `_total`. No label takes
its values from requests without a cap: what could grow with the number of clients or groups has
none, and topics are capped where they are collected.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from riverrun_server.observe.replication import ReplicationCollector
from riverrun_server.observe.store import StoreCollector
from riverrun_server.observe.topics import TopicCollector

_CALL_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_SYNC_BUCKETS: Final = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip

MAX_TOPIC_LABELS: Final = 500


class Metrics:
    """The metrics of one broker; `registry` is what a scrape shows."""

    def __init__(self, *, process: bool = True) -> None:
        """`process` adds those of the process: memory, CPU, file descriptors, collections."""
        # A second series for each counter, with the time of its first value, is of use to nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)
        self.info = Info("riverrun", "The broker's version and id.", registry=registry)

        # Calls.
        self.calls = Counter(
            "riverrun_rpc_calls_total",
            "Calls that have ended, by gRPC code; streams count when they end.",
            ["listener", "method", "code"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "riverrun_rpc_seconds",
            "How long unary calls took, from the first byte of the handler to its answer. Waiting "
            "for the ack condition, or for data in a long poll, is part of it.",
            ["method"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self.streams = Gauge(
            "riverrun_rpc_streams",
            "Streams that are open.",
            ["listener", "method"],
            registry=registry,
        )
        self.stream_connections = Gauge(
            "riverrun_rpc_stream_connections",
            "Connections that hold streams open; gRPC does not tell of those that hold none.",
            registry=registry,
        )
        self.refusals = Counter(
            "riverrun_refusals_total",
            "Errors that callers were told, for whole calls, parts of replies and in streams.",
            ["method", "reason"],
            registry=registry,
        )
        self.limit_reached = Counter(
            "riverrun_limit_reached_total",
            "Requests that were refused, or made to wait, because a limit was reached.",
            ["limit"],
            registry=registry,
        )
        self.in_flight_bytes = Gauge(
            "riverrun_in_flight_bytes",
            "Produced bytes that wait for their answer.",
            registry=registry,
        )

        self.hot_tail_bytes = Gauge(
            "riverrun_hot_tail_bytes",
            "Newest batches that are held in memory.",
            registry=registry,
        )
        self.topics = TopicCollector(MAX_TOPIC_LABELS)
        registry.register(self.topics)

        # Storage.
        self.sync_wait_seconds = Histogram(
            "riverrun_sync_wait_seconds",
            "How long the oldest append of a group waited until its sync began, behind the sync "
            "before it or for the event loop.",
            buckets=_SYNC_BUCKETS,
            registry=registry,
        )
        self.sync_seconds = Histogram(
            "riverrun_sync_seconds",
            "How long the disk took to make a group of appends durable.",
            buckets=_SYNC_BUCKETS,
            registry=registry,
        )
        self.disk_free_bytes = Gauge(
            "riverrun_disk_free_bytes",
            "Free space of the file system that the data directory is on.",
            registry=registry,
        )
        self.disk_full = Gauge(
            "riverrun_disk_full",
            "1 while appends are refused because the disk is nearly full, else 0.",
            registry=registry,
        )
        self.coordinated_groups = Gauge(
            "riverrun_coordinated_groups",
            "Groups with members, or that have had some, that this broker coordinates.",
            registry=registry,
        )
        self.coordinated_members = Gauge(
            "riverrun_coordinated_members",
            "Members of groups that this broker coordinates.",
            registry=registry,
        )
        self.member_streams = Gauge(
            "riverrun_member_streams",
            "Members of groups whose streams this broker holds.",
            registry=registry,
        )
        self.store = StoreCollector()
        registry.register(self.store)
        self.unclean_recoveries = Gauge(
            "riverrun_unclean_recoveries",
            "Partitions that this start of the broker served although acknowledged data may be lost.",
            registry=registry,
        )
        self.orphan_partitions = Gauge(
            "riverrun_orphan_partitions",
            "Stored partitions of no topic that the broker knows; they are kept and not served.",
            registry=registry,
        )
        self.metadata_followed = Gauge(
            "riverrun_metadata_followed",
            "1 while changes of the metadata are seen, 0 while its store does not answer.",
            registry=registry,
        )

        # Replication, where the broker is one of several.
        self.replication = ReplicationCollector()
        registry.register(self.replication)

        # Retention and time.
        self.retention_trims = Counter(
            "riverrun_retention_trims_total",
            "How often retention has deleted the oldest records of a partition.",
            registry=registry,
        )
        self.retention_failures = Counter(
            "riverrun_retention_failures_total",
            "How often retention could not look at a partition or delete from it.",
            registry=registry,
        )
        self.retention_paused_partitions = Gauge(
            "riverrun_retention_paused_partitions",
            "Partitions from which nothing is deleted by age until the clock is confirmed.",
            registry=registry,
        )
        self.retention_looked_timestamp = Gauge(
            "riverrun_retention_looked_timestamp_seconds",
            "When retention last looked at all partitions, in seconds since 1970; 0 before.",
            registry=registry,
        )
        self.clock_behind_wall_seconds = Gauge(
            "riverrun_clock_behind_wall_seconds",
            "How far the broker's clock is behind the machine's wall clock because that was set "
            "and is not followed until a restart; negative is ahead.",
            registry=registry,
        )

        # The process.
        self.loop_lag_seconds = Gauge(
            "riverrun_loop_lag_seconds",
            "The longest that the event loop was late in the last ten to twenty seconds.",
            registry=registry,
        )
        self.task_crashes = Counter(
            "riverrun_task_crashes_total",
            "Background tasks that ended by an unexpected exception.",
            registry=registry,
        )
