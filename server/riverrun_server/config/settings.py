"""A broker's settings: the ones at the top of the file, and the tables below them."""
# ruff: noqa: RUF009 - setting() declares a field, it is no shared default

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from riverrun_server.config.etcd import EtcdSettings
from riverrun_server.config.kinds import Folder, Integer, Seconds, Switch, Text
from riverrun_server.config.metadata_address import EtcdAddress, MetadataAddress
from riverrun_server.config.parts import (
    FetchSettings,
    GroupSettings,
    GrpcSettings,
    HttpSettings,
    LimitSettings,
    LogSettings,
    OffsetSettings,
    PeerSettings,
    ProducerSettings,
    ProduceSettings,
    RetentionSettings,
    StorageSettings,
    TopicDefaults,
)
from riverrun_server.config.setting import setting
from riverrun_server.core.limits import Limits
from riverrun_server.rpc.listener import Address, Listener

DEFAULT_BIND: Final = Address("127.0.0.1", 7171)
REPLICATION_FACTOR: Final = 3
"""In a cluster: one broker may be away while another one fails."""
LABEL: Final = Text(r"[A-Za-z0-9._-]{0,63}", "up to 63 letters, digits, '.', '_' or '-'")


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
    metadata: EtcdAddress | None = setting(
        MetadataAddress(),
        None,
        flag=True,
        doc="Where topics and their settings are kept: `embedded` is the broker's own store, "
        "`etcd://HOST:PORT,HOST:PORT/CLUSTER` an etcd, `etcds://` one behind TLS. The keys stand there "
        "under `/riverrun/CLUSTER/`. A data directory stays with what it began with.",
    )
    insecure: bool = setting(
        Switch(),
        default=False,
        flag=True,
        doc="Allow plaintext listeners that other machines can reach, and an etcd on other machines "
        "without TLS or without a log-in. Whoever reaches one can read, write and delete everything.",
    )
    confirm_clock: bool = setting(
        Switch(),
        default=False,
        flag=True,
        doc="Confirm that the machine's clock is right although the broker was away for more than a "
        "day, and for longer than a topic keeps its records. Without it retention waits, for a clock that jumped ahead "
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
    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    topic_defaults: TopicDefaults = field(default_factory=TopicDefaults)
    produce: ProduceSettings = field(default_factory=ProduceSettings)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    producers: ProducerSettings = field(default_factory=ProducerSettings)
    offsets: OffsetSettings = field(default_factory=OffsetSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    log: LogSettings = field(default_factory=LogSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)

    @property
    def http_address(self) -> Address:
        """Where probes and scrapes are answered."""
        return self.http.listen or self._beside_clients(2)

    @property
    def peer_address(self) -> Address:
        """Where this broker listens for others."""
        return self.peer.listen or self._beside_clients(1)

    @property
    def peer_advertised(self) -> Address:
        """Where other brokers are told to connect; port 0 is the one that the system chooses."""
        return self.peer.advertise or self.peer_address

    @property
    def replication_factor(self) -> int:
        """Replicas of each partition of a topic whose creator does not say."""
        alone = 1 if self.metadata is None else REPLICATION_FACTOR
        return self.topic_defaults.replication_factor or alone

    def _beside_clients(self, ports: int) -> Address:
        return self.listeners[0].bind.shifted(ports)._replace(host="127.0.0.1")

    def core_limits(self) -> Limits:
        """Return the bounds that the machines and services enforce and tell."""
        limits = self.limits
        return Limits(
            max_batch_bytes=limits.max_batch_bytes,
            max_partitions_per_call=limits.max_partitions_per_call,
            max_in_flight_bytes_per_connection=limits.max_in_flight_bytes_per_connection,
            timestamp_ahead_max_ms=limits.timestamp_ahead_max_ms,
            default_produce_timeout_ms=self.produce.default_timeout_ms,
            max_produce_timeout_ms=self.produce.max_timeout_ms,
            max_fetch_wait_ms=self.fetch.max_wait_ms,
            min_session_timeout_ms=self.groups.min_session_timeout_ms,
            max_session_timeout_ms=self.groups.max_session_timeout_ms,
            default_session_timeout_ms=self.groups.default_session_timeout_ms,
            default_revocation_timeout_ms=self.groups.default_revocation_timeout_ms,
            max_partitions_per_topic=limits.max_partitions_per_topic,
            max_partitions=limits.max_partitions,
        )

    def topic_configs(self) -> dict[str, str]:
        """Return what a topic's configuration falls back to, by key and in canonical form."""
        topic = self.topic_defaults
        return {
            "retention.ms": str(topic.retention_ms),
            "retention.bytes": str(topic.retention_bytes),
            "max.batch.bytes": str(topic.max_batch_bytes),
        }

    def reflects(self, listener: Listener) -> bool:
        """Return whether a listener describes its services."""
        policy = self.grpc.reflection
        return listener.bind.is_loopback if policy == "auto" else policy == "on"
