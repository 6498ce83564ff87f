"""Every setting of a broker, with its default, its range and what it does."""
# ruff: noqa: RUF009 - setting() declares a field, it is no shared default

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from riverrun_server.config.kinds import (
    Choice,
    Endpoint,
    Folder,
    Integer,
    Maybe,
    Millis,
    Seconds,
    Size,
    Switch,
    Text,
)
from riverrun_server.config.setting import setting
from riverrun_server.rpc.listener import Address, Listener

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
YEAR_MS: Final = 366 * DAY_MS

DEFAULT_BIND: Final = Address("127.0.0.1", 7171)
# A batch of this size and its frame fit the 4 MiB that a stub accepts untuned.
MAX_BATCH_BYTES: Final = 3 * MIB
LABEL: Final = Text(r"[A-Za-z0-9._-]{0,63}", "up to 63 letters, digits, '.', '_' or '-'")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How other brokers reach this one."""

    listen: Address | None = setting(
        Maybe(Endpoint(), "the first listener's port + 1, on 127.0.0.1"),
        flag=True,
        doc="Where other brokers will connect. A single broker has no peers and does not open it.",
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
        "about 0.2 MB of memory. Fixed once the data directory exists.",
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
        Size(KIB, MAX_BATCH_BYTES),
        MAX_BATCH_BYTES,
        doc="The largest batch that any topic may allow, compressed or expanded.",
    )
    connection_in_flight_bytes: int = setting(
        Size(MIB, 16 * GIB),
        32 * MIB,
        doc="Produced bytes of one connection that may wait for their answer. A stream that has "
        "more is not read until some have been answered; a unary call is refused with OVERLOADED.",
    )
    broker_in_flight_bytes: int = setting(
        Size(MIB, 256 * GIB),
        128 * MIB,
        doc="The same for all connections together.",
    )
    connection_streams: int = setting(
        Integer(1, 100_000),
        256,
        doc="Streams that one connection may hold open.",
    )
    principal_streams: int = setting(
        Integer(1, 1_000_000),
        4096,
        doc="Streams that one principal may hold open on this broker. Without authentication "
        "everybody is the same principal.",
    )
    calls: int = setting(
        Integer(1, 1_000_000),
        4096,
        doc="Unary calls that may be under way on this broker; more are refused with OVERLOADED.",
    )
    max_partitions_per_call: int = setting(
        Integer(1, 100_000),
        1024,
        doc="Partitions that one request may name.",
    )
    timestamp_ahead_max_ms: int = setting(
        Millis(0, YEAR_MS),
        HOUR_MS,
        doc="How far ahead of the broker's clock a record's timestamp may lie. One batch stamped "
        "in microseconds would spoil every later lookup by time.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDefaults:
    """What a topic gets where its creator does not say."""

    partitions: int = setting(Integer(1, 10_000), 1, doc="Partitions of a new topic.")
    retention_ms: int = setting(
        Millis(0, 1000 * YEAR_MS, unlimited=True),
        7 * DAY_MS,
        doc="How long records are kept, counted from their arrival.",
    )
    retention_bytes: int = setting(
        Size(0, 1024 * TIB, unlimited=True),
        -1,
        doc="How many bytes a partition keeps, oldest records deleted first.",
    )
    max_batch_bytes: int = setting(
        Size(KIB, MAX_BATCH_BYTES),
        MIB,
        doc="The largest batch that a topic accepts, compressed or expanded.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceSettings:
    """How long produce requests wait."""

    default_timeout_ms: int = setting(
        Millis(1, HOUR_MS),
        30_000,
        doc="How long a produce request waits for its ack condition where it does not say.",
    )
    max_timeout_ms: int = setting(
        Millis(1, HOUR_MS),
        2 * MINUTE_MS,
        doc="The longest wait that a produce request may ask for.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """How long Fetch waits."""

    max_wait_ms: int = setting(
        Millis(0, HOUR_MS),
        30_000,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A broker's settings, composed of parts."""

    data_dir: Path = setting(
        Folder(),
        Path("data"),
        flag=True,
        doc="Where the broker keeps everything. One broker at a time.",
    )
    broker_id: int = setting(
        Integer(1, 2**31 - 1),
        1,
        flag=True,
        doc="This broker's number in its cluster, the same after every restart.",
    )
    rack: str = setting(
        LABEL,
        "",
        flag=True,
        doc="The rack or zone that the broker stands in.",
    )
    host: str = setting(
        Text(r"[!-~]{1,255}", "up to 255 printable characters without spaces"),
        factory=socket.gethostname,
        flag=True,
        doc="The machine that the broker runs on, by default its own name. Brokers that share one "
        "never hold replicas of one partition while another machine is there.",
    )
    metadata: str = setting(
        Text(r"embedded", "embedded, the only metadata store of this version"),
        "embedded",
        flag=True,
        doc="Where topics and their settings are kept: `embedded` is the broker's own store.",
    )
    insecure: bool = setting(
        Switch(),
        default=False,
        flag=True,
        doc="Allow plaintext listeners that other machines can reach. Whoever reaches one can "
        "read, write and delete everything.",
    )
    confirm_clock: bool = setting(
        Switch(),
        default=False,
        flag=True,
        doc="Confirm that the machine's clock is right although the newest stored record is older "
        "than its retention period. Without it retention waits, for a clock that jumped ahead "
        "would have it delete everything. Set it for one start.",
    )
    drain_timeout_s: float = setting(
        Seconds(1, 600),
        10.0,
        doc="How long a shutdown may take, from the first signal to the end of the process. "
        "Streams are told at once and ended when this runs short.",
    )
    listeners: tuple[Listener, ...] = (Listener(bind=DEFAULT_BIND, advertised=DEFAULT_BIND),)
    peer: PeerSettings = field(default_factory=PeerSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    topic_defaults: TopicDefaults = field(default_factory=TopicDefaults)
    produce: ProduceSettings = field(default_factory=ProduceSettings)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    producers: ProducerSettings = field(default_factory=ProducerSettings)
    offsets: OffsetSettings = field(default_factory=OffsetSettings)
    log: LogSettings = field(default_factory=LogSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)

    @property
    def http_address(self) -> Address:
        """Where probes and scrapes are answered."""
        return self.http.listen or self._beside_clients(2)

    @property
    def peer_address(self) -> Address:
        """Where other brokers will connect."""
        return self.peer.listen or self._beside_clients(1)

    def _beside_clients(self, ports: int) -> Address:
        return self.listeners[0].bind.shifted(ports)._replace(host="127.0.0.1")

    def reflects(self, listener: Listener) -> bool:
        """Return whether a listener describes its services."""
        policy = self.grpc.reflection
        return listener.bind.is_loopback if policy == "auto" else policy == "on"
