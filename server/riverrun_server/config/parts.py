"""The tables of settings, each for one part of the broker, with defaults and ranges."""
# ruff: noqa: RUF009 - setting() declares a field, it is no shared default

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from riverrun_server.config.kinds import (
    Choice,
    Endpoint,
    Integer,
    Maybe,
    Millis,
    Seconds,
    Size,
    Switch,
)
from riverrun_server.config.setting import setting
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.limits import Limits
from riverrun_server.rpc.listener import Address

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
YEAR_MS: Final = 366 * DAY_MS

# Where the machines have a default of their own, it is the setting's too.
_LIMITS: Final = Limits()
_TOPIC: Final = TopicConfig()


def _or_unlimited(value: int | None) -> int:
    return -1 if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How other brokers reach this one."""

    listen: Address | None = setting(
        Maybe(Endpoint(), "the first listener's port + 1, on 127.0.0.1"),
        flag=True,
        doc="Where other brokers connect. A broker with the embedded metadata has no peers and does not "
        "open it.",
    )
    advertise: Address | None = setting(
        Maybe(Endpoint(), "peer.listen"),
        flag=True,
        doc="Where other brokers are told to connect, as they reach this one.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """The port for probes and scrapes."""

    listen: Address | None = setting(
        Maybe(Endpoint(), "the first listener's port + 2, on 127.0.0.1"),
        flag=True,
        doc="Where `/metrics`, `/livez` and `/readyz` are served, in plaintext and to anybody who "
        "reaches the port. They show names of topics, never records.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """What the store may use."""

    slots: int = setting(
        Integer(1, 4096),
        256,
        doc="Column families that are made when the data directory is, one for each partition; "
        "more partitions than slots share them and cost more disk writes. An empty slot costs "
        "about 0.2 MB of memory. A data directory that has more keeps them.",
    )
    hot_tail_bytes: int = setting(
        Size(MIB, 64 * GIB),
        64 * MIB,
        doc="Memory for the newest batches of all partitions together. A reader that keeps up is "
        "served from it without touching the disk.",
    )
    disk_low_water_bytes: int = setting(
        Size(0, 64 * TIB),
        512 * MIB,
        doc="Free space below which produce requests are refused with STORAGE_FULL. Reads, trims "
        "and retention go on.",
    )
    disk_high_water_bytes: int = setting(
        Size(0, 64 * TIB),
        GIB,
        doc="Free space from which on produce requests are accepted again.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What one client, or all of them, may hold."""

    max_batch_bytes: int = setting(
        Size(KIB, _LIMITS.max_batch_bytes),
        _LIMITS.max_batch_bytes,
        doc="The largest batch that any topic may allow, compressed or expanded. With its "
        "envelope it has to fit the 4 MiB that a gRPC stub accepts untuned.",
    )
    max_in_flight_bytes_per_connection: int = setting(
        Size(MIB, 16 * GIB),
        _LIMITS.max_in_flight_bytes_per_connection,
        doc="Produced bytes of one connection that may wait for their answer. A stream that has "
        "more is not read until some have been answered; a unary call is refused with OVERLOADED.",
    )
    max_in_flight_bytes: int = setting(
        Size(MIB, 256 * GIB),
        256 * MIB,
        doc="The same for all connections together.",
    )
    max_delivery_bytes: int = setting(
        Size(8 * MIB, 256 * GIB),
        512 * MIB,
        doc="Records that may be on their way to readers, with the messages made of them; nothing is "
        "read before there is room. Half is kept for first batches of connections that hold nothing; of "
        "the rest one may hold as much as it leaves over. Where there is none, a Fetch is refused with "
        "OVERLOADED, a stream waits. A consumer that is behind and paused holds twice the largest batch "
        "for each partition.",
    )
    max_connections: int = setting(
        Integer(1, 1_000_000),
        10_000,
        doc="Connections to all listeners together, an equal share for each; more are closed at once. "
        "An idle one takes some 15 KB. The broker takes no more than the limit of open files leaves "
        "beside its store.",
    )
    max_streams_per_connection: int = setting(
        Integer(1, 100_000),
        256,
        doc="Streams that one connection may hold open.",
    )
    max_streams_per_principal: int = setting(
        Integer(1, 1_000_000),
        4096,
        doc="Streams that one principal may hold open on this broker. Without authentication "
        "everybody is the same principal.",
    )
    max_calls: int = setting(
        Integer(1, 1_000_000),
        4096,
        doc="Unary calls that may be under way on this broker, until their answer has been sent; "
        "more are refused with OVERLOADED. Half of them may be a Fetch that waits.",
    )
    max_partitions_per_call: int = setting(
        Integer(1, 100_000),
        _LIMITS.max_partitions_per_call,
        doc="Partitions, or topics, that one request may name.",
    )
    max_partitions_per_topic: int = setting(
        Integer(1, 100_000),
        _LIMITS.max_partitions_per_topic,
        doc="Partitions that one topic may have.",
    )
    max_partitions: int = setting(
        Integer(1, 100_000),
        _LIMITS.max_partitions,
        doc="Partitions that this broker holds, all topics together. Each takes some 10 KB of "
        "memory.",
    )
    timestamp_ahead_max_ms: int = setting(
        Millis(0, YEAR_MS),
        _LIMITS.timestamp_ahead_max_ms,
        doc="How far ahead of the broker's clock a record's timestamp may lie. One batch stamped "
        "in microseconds would spoil every later lookup by time.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDefaults:
    """What a topic gets where its creator does not say."""

    partitions: int = setting(Integer(1, 100_000), 1, doc="Partitions of a new topic.")
    replication_factor: int | None = setting(
        Maybe(Integer(1, 1_000), "1 with embedded metadata, 3 in a cluster"),
        doc="Replicas of each partition of a new topic; a topic is refused while fewer brokers are "
        "there to take them. The brokers' own topics wait until there are as many.",
    )
    retention_ms: int = setting(
        Millis(1, 1000 * YEAR_MS, unlimited=True),
        _or_unlimited(_TOPIC.retention_ms),
        doc="How long records are kept, counted from their arrival.",
    )
    retention_bytes: int = setting(
        Size(1, 1024 * TIB, unlimited=True),
        _or_unlimited(_TOPIC.retention_bytes),
        doc="How many bytes a partition keeps, oldest records deleted first. The newest batch "
        "always stays.",
    )
    max_batch_bytes: int = setting(
        Size(KIB, _LIMITS.max_batch_bytes),
        _TOPIC.max_batch_bytes,
        doc="The largest batch that a topic accepts, compressed or expanded.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceSettings:
    """How long produce requests wait."""

    default_timeout_ms: int = setting(
        Millis(1, HOUR_MS),
        _LIMITS.default_produce_timeout_ms,
        doc="How long a produce request waits for its ack condition where it does not say.",
    )
    max_timeout_ms: int = setting(
        Millis(1, HOUR_MS),
        _LIMITS.max_produce_timeout_ms,
        doc="The longest wait that a produce request may ask for.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """How long Fetch waits."""

    max_wait_ms: int = setting(
        Millis(0, HOUR_MS),
        _LIMITS.max_fetch_wait_ms,
        doc="The longest wait that a Fetch may ask for.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """When old records go."""

    check_interval_s: float = setting(
        Seconds(0.1, 86_400),
        30.0,
        doc="How often partitions are looked at for records past their retention.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """What is remembered of idempotent producers."""

    expiry_ms: int = setting(
        Millis(MINUTE_MS, YEAR_MS),
        7 * DAY_MS,
        doc="How long a partition remembers a producer that no longer writes. A retry that comes "
        "later than this is refused, never written twice.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetSettings:
    """Where committed offsets are kept."""

    partitions: int = setting(
        Integer(1, 256),
        16,
        doc="Partitions of the internal topic of committed offsets. Fixed once it exists, which "
        "is from the first commit on.",
    )
    retention_ms: int = setting(
        Millis(MINUTE_MS, 1000 * YEAR_MS, unlimited=True),
        7 * DAY_MS,
        doc="How long what a group has committed is kept once it has no members any more, or, of a "
        "group that never had one, counted from the commit. Nothing of a group with members expires.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """Members of groups: how long they may be silent, and how many there may be."""

    default_session_timeout_ms: int = setting(
        Millis(1_000, HOUR_MS),
        _LIMITS.default_session_timeout_ms,
        doc="How long a member may be silent before others get its partitions, where it does not say.",
    )
    min_session_timeout_ms: int = setting(
        Millis(1_000, HOUR_MS),
        _LIMITS.min_session_timeout_ms,
        doc="The shortest session timeout that a member may ask for.",
    )
    max_session_timeout_ms: int = setting(
        Millis(1_000, DAY_MS),
        _LIMITS.max_session_timeout_ms,
        doc="The longest session timeout that a member may ask for.",
    )
    default_revocation_timeout_ms: int = setting(
        Millis(1_000, DAY_MS),
        _LIMITS.default_revocation_timeout_ms,
        doc="How long a member may take to finish with a partition that another one is to get, where it "
        "does not say. It is never less than the member's session timeout.",
    )
    max_members: int = setting(
        Integer(1, 10_000),
        10_000,
        doc="The most members that a group may have.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The broker's own log, on standard error."""

    format: str = setting(
        Choice(("auto", "console", "json")),
        "auto",
        flag=True,
        doc="How lines look; `auto` is `console` on a terminal and `json` elsewhere.",
    )
    level: str = setting(
        Choice(("debug", "info", "warning", "error")),
        "info",
        flag=True,
        doc="The least severe lines that are written.",
    )
    calls: bool = setting(
        Switch(),
        default=True,
        doc="Whether each call leaves a line when it ends, of level info: method, who, code, "
        "reason, duration, sizes, topics, group. Calls that fail, are slow, administer something "
        "or are streams have their line up to 100 a second for each method.",
    )
    hot_calls_per_s: int = setting(
        Integer(0, 1000),
        1,
        doc="Lines a second for each method of the hot path (Produce, Fetch, CommitOffset and "
        "the like) about calls that went well. A line says under `sampled_out` how many calls had "
        "none before it. 0 writes none of them.",
    )
    slow_call_ms: int = setting(
        Millis(1, HOUR_MS, unlimited=True),
        1000,
        doc="From this duration on a call has its line and is marked `slow`, however well it "
        "went. The wait that a Fetch asks for does not count.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """What gRPC itself is told."""

    reflection: str = setting(
        Choice(("auto", "on", "off")),
        "auto",
        doc="Whether a listener describes its services to tools such as grpcurl; `auto` is `on` "
        "for a listener on loopback and `off` elsewhere.",
    )
    keepalive_time_s: float = setting(
        Seconds(1, 7200),
        30.0,
        doc="How often the broker pings a client that has calls under way.",
    )
    keepalive_timeout_s: float = setting(
        Seconds(1, 600),
        10.0,
        doc="How long it waits for the answer before it closes the connection.",
    )
    min_client_ping_interval_s: float = setting(
        Seconds(0.1, 600),
        5.0,
        doc="How often a client may ping without being told to go away for too many pings. "
        "Riverrun's own clients ping every 10 s while they have calls under way.",
    )
