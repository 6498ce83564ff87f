"""Every bound that the broker enforces and tells, in one value."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one broker. Reaching one is an error that names it, or back-pressure.

    Attributes:
        max_batch_bytes: the largest batch that a topic may allow, also expanded. 3 MiB, so that a
            batch with its envelope fits the 4 MiB that an untuned gRPC stub accepts.
        max_batch_records: the most records in a batch; 2^16 empty records already take 116 bytes
            of memory each when they are parsed.
        max_request_bytes: the largest message that is accepted; gRPC's own default.
        max_frame_bytes: the largest message that is sent; what an untuned gRPC stub accepts.
        max_partitions_per_call: the most partitions, or topics, that one call may name.
        max_unacknowledged_batches: the most batches of one producer id that may wait for their
            answer in one partition; as many as a partition remembers to recognise duplicates.
        max_in_flight_bytes_per_connection: the most bytes that may wait for their answer on one
            connection.
        timestamp_ahead_max_ms: how far ahead of the broker's clock a timestamp may lie; beyond it
            one batch stamped in the wrong unit would spoil every later lookup by time.
        default_produce_timeout_ms: how long Produce waits for its ack condition where the request
            does not say.
        max_produce_timeout_ms: how long Produce waits at the most.
        max_fetch_wait_ms: how long Fetch waits at the most.
        min_session_timeout_ms: the shortest time of silence after which a member of a group may ask to be
            given up. A second is as short as beats over a loaded network allow.
        max_session_timeout_ms: the longest.
        default_session_timeout_ms: which one it has where it does not ask.
        default_revocation_timeout_ms: how long a member may take to give a partition up where it does not
            ask; never less than its session timeout.
        max_partitions_per_topic: the most partitions that a topic may have.
        max_partitions: the most partitions on this broker, all topics together. Each takes some
            10 KB of memory, and a slot of the store while there are any.
        max_metadata_watchers: the most WatchMetadata streams at once.
        max_waiting_topic_changes: the most changes of topics that wait for the one under way.
        topic_change_timeout_ms: how long a change of a topic is waited for; it goes on after that.
    """

    max_batch_bytes: int = 3 * MIB
    max_batch_records: int = 65_536
    max_request_bytes: int = 4 * MIB
    max_frame_bytes: int = 4 * MIB
    max_partitions_per_call: int = 1_000
    max_unacknowledged_batches: int = 64
    max_in_flight_bytes_per_connection: int = 64 * MIB
    timestamp_ahead_max_ms: int = 3_600_000
    default_produce_timeout_ms: int = 30_000
    max_produce_timeout_ms: int = 300_000
    max_fetch_wait_ms: int = 30_000
    min_session_timeout_ms: int = 1_000
    max_session_timeout_ms: int = 1_800_000
    default_session_timeout_ms: int = 10_000
    default_revocation_timeout_ms: int = 60_000
    max_partitions_per_topic: int = 1_000
    max_partitions: int = 4_000
    max_metadata_watchers: int = 1_000
    max_waiting_topic_changes: int = 64
    topic_change_timeout_ms: int = 60_000
