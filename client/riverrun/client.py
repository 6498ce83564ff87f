"""The door to a cluster: one client makes producers, consumers and admins that share connections."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from riverrun._core.argument_checks import check_timeout
from riverrun._core.descriptions import ServerInfo
from riverrun._core.records import CommitMode, From, OffsetReset, PositionReset, TopicPartition
from riverrun._core.type_parameters import K, V
from riverrun._net.addresses import parse_bootstrap
from riverrun._net.channel import ConnectionConfig, Connections, fetch_server_info
from riverrun._net.closing import Closing, all_closed
from riverrun.admin import Admin
from riverrun.errors import ClosedError, Reason

if TYPE_CHECKING:
    # Imported when the first one is made: `riverrun topic list` needs neither, and waits for it.
    from riverrun._core.partitioner import Partitioner, PartitionerName
    from riverrun._net.cluster import Cluster
    from riverrun._net.member_settings import MemberOptions
    from riverrun.consumer import Consumer
    from riverrun.consumer_options import ConsumerOptions
    from riverrun.deserializers import Deserializer
    from riverrun.producer import Acks, Compression, OnDelivery, Producer, ProducerOptions
    from riverrun.serializers import Serializer, SerializerName

DEFAULT_BOOTSTRAP = "127.0.0.1:7171"

# After an exception in the block, records that were sent still have this long to be acknowledged.
_HURRIED_FLUSH_S = 5.0


class Client:
    """A cluster, seen from outside.

    Nothing connects before the first call; a call that finds no broker fails within
    `connect_timeout_s` with an error that names the addresses. Leaving the block closes all that
    the client has made.

    Args:
        bootstrap: "host:port", several joined by commas, or a sequence of them; without a port it is
            7171. Any broker of the cluster will do: it tells where the others are.
        connect_timeout_s: how long to look for a broker that answers.
        request_timeout_s: how long one unary call may take once a broker was found, its retries
            included, and finding a broker again for them.
        client_id: a name for the broker's logs.

    Example:
        async with riverrun.Client("127.0.0.1:7171") as client:
            async with client.producer() as producer:
                await producer.send("orders", b"hello")
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str] = DEFAULT_BOOTSTRAP,
        *,
        connect_timeout_s: float = 10.0,
        request_timeout_s: float = 30.0,
        client_id: str = "",
    ) -> None:
        config = ConnectionConfig(
            parse_bootstrap(bootstrap), connect_timeout_s, request_timeout_s, client_id
        )
        # Jitter and where to begin; nothing that has to be unguessable.
        self._uniform = random.Random().random  # noqa: S311
        self._connections = Connections(config, lambda: self._uniform())  # noqa: PLW0108 - tests set it
        self._cluster: Cluster | None = None
        self._producers: set[Producer[Any, Any]] = set()
        self._consumers: set[Consumer[Any, Any]] = set()
        self._closed = False
        self._closing = Closing()

    @overload
    def producer(self, **options: Unpack[ProducerOptions]) -> Producer: ...

    @overload
    def producer(
        self, *, key_serializer: Serializer[K], **options: Unpack[ProducerOptions]
    ) -> Producer[K, bytes]: ...

    @overload
    def producer(
        self, *, value_serializer: Serializer[V], **options: Unpack[ProducerOptions]
    ) -> Producer[bytes, V]: ...

    @overload
    def producer(
        self,
        *,
        key_serializer: Serializer[K],
        value_serializer: Serializer[V],
        **options: Unpack[ProducerOptions],
    ) -> Producer[K, V]: ...

    @overload
    def producer(
        self,
        *,
        key_serializer: SerializerName | Serializer[Any] = ...,
        value_serializer: SerializerName | Serializer[Any] = ...,
        **options: Unpack[ProducerOptions],
    ) -> Producer[Any, Any]: ...

    def producer(
        self,
        *,
        acks: Acks = "all",
        idempotent: bool = True,
        compression: Compression = "none",
        linger_s: float = 0.0,
        batch_bytes: int = 256 * 1024,
        buffer_bytes: int = 32 * 1024 * 1024,
        delivery_timeout_s: float = 120.0,
        partitioner: PartitionerName | Partitioner = "crc32",
        on_delivery: OnDelivery | None = None,
        key_serializer: SerializerName | Serializer[Any] = "bytes",
        value_serializer: SerializerName | Serializer[Any] = "bytes",
    ) -> Producer[Any, Any]:
        """Make a producer.

        Args:
            acks: when an append counts: "all" in-sync replicas have it on disk, the "leader" has it
                on disk, or the leader has taken it in ("none").
            idempotent: batches sent again after a broken connection are not written twice. Without
                it they are not sent again, and fail with an unknown outcome.
            compression: of whole batches. "zstd" needs `pip install backports.zstd` before Python 3.14.
            linger_s: how long a batch that is not full waits for more records. Also with 0 records
                gather while earlier batches wait for their answers.
            batch_bytes: how large a batch may grow; the broker's limit counts too.
            buffer_bytes: how much may wait for its acknowledgement.
            delivery_timeout_s: how long a record may take to its acknowledgement once the buffer has
                room for it, retries and broken connections included; and before that, how long
                `send` and `send_many` wait for room.
            partitioner: chooses the partition where none is named. "crc32" takes the CRC-32 of the
                key, "murmur2" the hash of Kafka's Java clients; without a key both stay with one
                partition until its batch is full. "sticky" does so with all records, "round-robin"
                takes the next partition for each; these two ignore keys, so equal keys are spread
                and lose their order. A function of topic, key, value and the number of partitions
                returns the partition; it sees bytes, and is called on the event loop.
            on_delivery: told of each record of `send_nowait` that names no other, as there.
            key_serializer: turns keys into bytes: "bytes" takes them as they are, "str", "json",
                "protobuf", or a function. None stays None. For a type checker, functions say what
                keys may be (`riverrun.serializers` has one for each name); a name lets anything pass.
            value_serializer: turns values into bytes, likewise.

        Raises:
            UsageError: a setting is out of its range, or zstd is not installed.

        Example:
            def urgent_first(topic, key, value, partitions):
                return 0 if value.startswith(b"urgent") else partitions - 1

            async with client.producer(
                compression="gzip", partitioner=urgent_first, value_serializer="str"
            ) as producer:
                await producer.send("orders", "urgent: 2 apples", key=b"anna")
        """
        from riverrun._net.cluster import Cluster  # noqa: PLC0415 - see the imports
        from riverrun._net.produce_engine import ProduceEngine  # noqa: PLC0415
        from riverrun._net.produce_settings import checked_config  # noqa: PLC0415
        from riverrun.producer import Producer  # noqa: PLC0415
        from riverrun.serializers import record_serializer  # noqa: PLC0415

        self._check_open()
        config = checked_config(
            acks=acks,
            idempotent=idempotent,
            compression=compression,
            linger_s=linger_s,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            delivery_timeout_s=delivery_timeout_s,
            partitioner=partitioner,
        )
        self._cluster = self._cluster or Cluster(self._connections, self._uniform)
        engine = ProduceEngine(self._cluster, config, self._uniform)
        producer: Producer[Any, Any] = Producer(
            engine,
            config,
            self._producers.discard,
            on_delivery=on_delivery,
            serializer=record_serializer(key_serializer, value_serializer),
        )
        self._producers.add(producer)
        return producer

    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["bytes"] | type[K] | Callable[[bytes], K] = ...,
        value_deserializer: Literal["bytes"] | type[V] | Callable[[bytes], V] = ...,
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[K, V]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["bytes"] | type[K] | Callable[[bytes], K] = ...,
        value_deserializer: Literal["str"],
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[K, str]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["bytes"] | type[K] | Callable[[bytes], K] = ...,
        value_deserializer: Literal["json"],
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[K, Any]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["str"],
        value_deserializer: Literal["bytes"] | type[V] | Callable[[bytes], V] = ...,
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[str, V]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["str"],
        value_deserializer: Literal["str"],
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[str, str]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Literal["str"],
        value_deserializer: Literal["json"],
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[str, Any]: ...
    @overload
    def consumer(
        self,
        *topics: str,
        key_deserializer: Deserializer[Any] = ...,
        value_deserializer: Deserializer[Any] = ...,
        **settings: Unpack[ConsumerOptions],
    ) -> Consumer[Any, Any]: ...
    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        from_: From | None = None,
        partitions: Iterable[int | TopicPartition] | Mapping[TopicPartition, From] | None = None,
        offset_reset: OffsetReset | None = None,
        stop_at_end: bool = False,
        prefetch_bytes: int = 16 * 1024 * 1024,
        on_reset: Callable[[PositionReset], None] | None = None,
        commit: CommitMode = "manual",
        commit_interval_s: float = 5.0,
        key_deserializer: Deserializer[Any] = "bytes",
        value_deserializer: Deserializer[Any] = "bytes",
        **member: Unpack[MemberOptions],
    ) -> Consumer[Any, Any]:
        """Make a consumer; with a group and whole topics it is a member of the group.

        Args:
            topics: what to read: all partitions of each, unless `partitions` says less.
            group: whose member to be, with a share of the partitions; with `partitions` it is none.
            from_: where to begin, "earliest" if None; with a group only where nothing is committed.
            partitions: what to read explicitly: numbers count in each of `topics`; a mapping says
                also where to begin in each, whatever the group has committed.
            offset_reset: where to go on from a position out of range; None is "earliest" with a group, else
                "error". What had been read and is lost is an `OffsetOutOfRangeError` in any case.
            stop_at_end: end at the high watermarks found at the start; `request_timeout_s` without a word of a
                broker, or of a partition, on the way there is an error.
            prefetch_bytes: how much may be read ahead.
            on_reset: called, on the event loop, with each position out of range; it is logged, too.
            commit: who commits for the group. "manual": the application, by `Consumer.commit`.
                "auto", at least once: the consumer, every `commit_interval_s` and at the end, what the
                application has finished with: a record, when the next one is asked for.
                "at_most_once", at most once: the consumer, before it returns records, some hundred at a time; a crash loses those not yet returned.
            commit_interval_s: how often "auto" commits. What fails is tried again the next time.
            key_deserializer: what keys are: "bytes", "str" (UTF-8), "json", a protobuf message class, or a
                function of bytes. No key stays None. `batches` has bytes in any case.
            value_deserializer: what values are, likewise; a tombstone stays None.
            member: see `MemberOptions`.

        Raises:
            UsageError: nothing to read, or settings that contradict each other.

        Example:
            async with client.consumer(
                "orders", group="billing", commit="auto", value_deserializer="str", stop_at_end=True
            ) as consumer:
                async for record in consumer:
                    print(record.key, record.value)
        """
        from riverrun._net.cluster import Cluster  # noqa: PLC0415 - see the imports
        from riverrun._net.group_commits import CommitSettings  # noqa: PLC0415
        from riverrun._net.member_settings import member_settings  # noqa: PLC0415
        from riverrun._net.subscribe_settings import checked_settings  # noqa: PLC0415
        from riverrun.consumer import Consumer  # noqa: PLC0415
        from riverrun.deserializers import record_deserializer  # noqa: PLC0415

        self._check_open()
        settings = checked_settings(
            topics,
            group=group,
            from_=from_,
            partitions=partitions,
            offset_reset=offset_reset,
            stop_at_end=stop_at_end,
            prefetch_bytes=prefetch_bytes,
            on_reset=on_reset,
            pattern=member.get("topic_pattern"),
        )
        self._cluster = self._cluster or Cluster(self._connections, self._uniform)
        consumer: Consumer[Any, Any] = Consumer(
            self._cluster,
            settings,
            self._uniform,
            self._consumers.discard,
            commits=CommitSettings(commit, commit_interval_s, settings.group),
            member=member_settings(settings, member),
            deserializer=record_deserializer(key_deserializer, value_deserializer),
        )
        self._consumers.add(consumer)
        return consumer

    def admin(self) -> Admin:
        """Return the calls that make and change topics.

        Example:
            async for topic in client.admin().list_topics():
                print(topic.name)
        """
        self._check_open()
        return Admin(self._connections)

    async def server_info(self) -> ServerInfo:
        """Ask a broker for its version, features and limits.

        Raises:
            NoBrokerError: nobody answers.

        Example:
            print((await client.server_info()).version)
        """
        return await fetch_server_info(self._connections)

    async def close(self, *, timeout_s: float | None = None) -> None:
        """Close all that the client has made, producers first, then the connections.

        Args:
            timeout_s: give up flushing and committing after that; records that are left fail with
                `ClosedError`. None waits as long as the producers' delivery timeouts, and the
                consumers' last commits, let it take.

        Raises:
            RiverrunError: of the first thing that could not be closed in order; all is closed, and
                the other errors are logged. Only the first of several calls raises.

        Example:
            await client.close(timeout_s=10)
        """
        check_timeout(timeout_s)
        await self._close_once(timeout_s=timeout_s, quiet=False)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception, producers flush and consumers commit for at most five seconds."""
        await self._close_once(
            timeout_s=None if error is None else _HURRIED_FLUSH_S, quiet=error is not None
        )

    async def _close_once(self, *, timeout_s: float | None, quiet: bool) -> None:
        self._closed = True
        await self._closing.once(
            lambda: self._close_all(timeout_s=timeout_s, quiet=quiet), timeout_s
        )

    async def _close_all(self, *, timeout_s: float | None, quiet: bool) -> None:
        closings = [producer.close(timeout_s=timeout_s) for producer in tuple(self._producers)]
        closings += [consumer.close(timeout_s=timeout_s) for consumer in tuple(self._consumers)]
        try:
            await all_closed(closings, quiet=quiet)
        finally:
            await self._connections.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client was closed; make a new one", reason=Reason.CLOSED)
