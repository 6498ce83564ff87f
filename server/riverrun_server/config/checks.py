"""What settings must hold together, each sentence with the values at fault and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from riverrun_server.config.settings import Settings
from riverrun_server.rpc.listener import Protocol


def problems(settings: Settings) -> list[str]:
    """Return one sentence for each thing that does not fit, or nothing."""
    return [
        *_listeners(settings),
        *_etcd(settings),
        *_peers(settings),
        *_ports(settings),
        *_pairs(settings),
    ]


def _listeners(settings: Settings) -> Iterator[str]:
    names = [listener.name for listener in settings.listeners]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"listeners: {name!r} names several listeners; give each a name of its own"
    for listener in settings.listeners:
        bind = listener.bind
        plain = listener.protocol is Protocol.PLAINTEXT
        if plain and not bind.is_loopback and not settings.insecure:
            yield (
                f"listener {listener.name!r}: plaintext on {bind} lets every machine that reaches "
                "it read, write and delete everything; listen on 127.0.0.1, or allow it with "
                "--insecure (RIVERRUN_INSECURE=true, insecure = true)"
            )
        if listener.advertised.is_wildcard:
            yield (
                f"listener {listener.name!r}: clients cannot connect to {listener.advertised}; "
                "say under which address they reach this broker with --advertise HOST:PORT "
                "(RIVERRUN_ADVERTISE, advertised in [[listeners]])"
            )
    if settings.limits.max_connections < len(names):
        yield (
            f"limits.max_connections is {settings.limits.max_connections} and there are {len(names)} "
            "listeners; allow at least one connection to each"
        )


def _etcd(settings: Settings) -> Iterator[str]:
    etcd, address = settings.etcd, settings.metadata
    for one, other in (("cert_file", "key_file"), ("user", "password_file")):
        given = [name for name in (one, other) if getattr(etcd, name)]
        if len(given) == 1:
            lacking = other if given == [one] else one
            yield f"etcd.{given[0]} is set, and etcd.{lacking} is not; they go together"
    if address is None:
        return
    files = [name for name in ("ca_file", "cert_file") if getattr(etcd, name) is not None]
    if files and not address.tls:
        yield (
            f"etcd.{files[0]} is set, but {address} speaks no TLS; write etcds:// in metadata, or "
            "leave the file out"
        )
    open_to_all = not address.tls or not (etcd.user or etcd.cert_file)
    if open_to_all and not address.is_loopback and not settings.insecure:
        lacks = "a log-in" if address.tls else "TLS"
        yield (
            f"metadata: {address} is on another machine and reached without {lacks}; whoever reaches "
            "it owns every topic. Write etcds:// and set etcd.user or etcd.cert_file, or allow it "
            "with --insecure (RIVERRUN_INSECURE=true, insecure = true)"
        )


def _peers(settings: Settings) -> Iterator[str]:
    if settings.metadata is None:
        return
    bind, advertised = settings.peer_address, settings.peer_advertised
    if not bind.is_loopback and not settings.insecure:
        yield (
            f"peer.listen: plaintext on {bind} lets every machine that reaches it read and write every "
            "replica; listen on 127.0.0.1, or allow it with --insecure (RIVERRUN_INSECURE=true, "
            "insecure = true)"
        )
    if advertised.is_wildcard:
        yield (
            f"peer.listen: other brokers cannot connect to {advertised}; say under which address they "
            "reach this broker with --peer-advertise HOST:PORT (RIVERRUN_PEER_ADVERTISE, advertise in "
            "[peer])"
        )


def _ports(settings: Settings) -> Iterator[str]:
    for key, address in (("http", settings.http_address), ("peer", settings.peer_address)):
        if address.port > 65535:
            yield f"{key}.listen: {address} lies beyond port 65535; set it with --{key}-listen"
    taken = {"http.listen": settings.http_address}
    if settings.metadata is not None:
        taken["peer.listen"] = settings.peer_address
    for listener in settings.listeners:
        label = f"listener {listener.name!r}"
        for other, address in taken.items():
            if address == listener.bind and address.port:
                yield f"{label} and {other} both want {address}; choose another port for one"
        taken[label] = listener.bind


def _pairs(settings: Settings) -> Iterator[str]:
    """Yield each pair of settings of which the first must not be the larger."""
    limits, storage = settings.limits, settings.storage
    connection_bytes = "max_in_flight_bytes_per_connection"
    ordered = [
        (
            ("storage.disk_low_water_bytes", storage.disk_low_water_bytes),
            ("storage.disk_high_water_bytes", storage.disk_high_water_bytes),
        ),
        (
            ("groups.min_session_timeout_ms", settings.groups.min_session_timeout_ms),
            ("groups.default_session_timeout_ms", settings.groups.default_session_timeout_ms),
        ),
        (
            ("groups.default_session_timeout_ms", settings.groups.default_session_timeout_ms),
            ("groups.max_session_timeout_ms", settings.groups.max_session_timeout_ms),
        ),
        (
            ("produce.default_timeout_ms", settings.produce.default_timeout_ms),
            ("produce.max_timeout_ms", settings.produce.max_timeout_ms),
        ),
        (
            ("topic_defaults.max_batch_bytes", settings.topic_defaults.max_batch_bytes),
            ("limits.max_batch_bytes", limits.max_batch_bytes),
        ),
        (
            ("limits.max_batch_bytes", limits.max_batch_bytes),
            (f"limits.{connection_bytes}", limits.max_in_flight_bytes_per_connection),
        ),
        (
            (f"limits.{connection_bytes}", limits.max_in_flight_bytes_per_connection),
            ("limits.max_in_flight_bytes", limits.max_in_flight_bytes),
        ),
        (
            ("limits.max_streams_per_connection", limits.max_streams_per_connection),
            ("limits.max_streams_per_principal", limits.max_streams_per_principal),
        ),
        (
            ("topic_defaults.partitions", settings.topic_defaults.partitions),
            ("limits.max_partitions_per_topic", limits.max_partitions_per_topic),
        ),
        (
            ("limits.max_partitions_per_topic", limits.max_partitions_per_topic),
            ("limits.max_partitions", limits.max_partitions),
        ),
    ]
    for (small, low), (large, high) in ordered:
        if low > high:
            yield f"{small} is {low}, but must not be above {large}, which is {high}"
