"""The door to a cluster, without async: one client makes producers, consumers and admins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

import riverrun.client
from riverrun._core.argument_checks import check_timeout
from riverrun._core.descriptions import ServerInfo
from riverrun._core.partitioner import Partitioner, PartitionerName
from riverrun._core.records import CommitMode, From, OffsetReset, PositionReset, TopicPartition
from riverrun._core.type_parameters import K, V
from riverrun._net.member_settings import MemberOptions
from riverrun.blocking.admin import Admin
from riverrun.blocking.consumer import Consumer
from riverrun.blocking.lifetimes import ends_with
from riverrun.blocking.producer import Producer
from riverrun.blocking.session import Session
from riverrun.client import DEFAULT_BOOTSTRAP
from riverrun.consumer_options import ConsumerOptions
from riverrun.deserializers import Deserializer
from riverrun.producer import Acks, Compression, OnDelivery, ProducerOptions
from riverrun.serializers import Serializer, SerializerName, record_serializer

# After an exception in the block, records that were sent still have this long to be acknowledged.
_HURRIED_FLUSH_S = 5.0


class Client:
    """A cluster, seen from outside, for programs without asyncio; the same as `riverrun.Client`.

    Any number of threads may use it and all that it makes. Behind it is one thread with an event
    loop, from the first call until it is closed, or until nobody has it any more, or the interpreter
    exits: then what was sent is flushed for at most five seconds. Ctrl-C ends a call at once; the
    client can be used, or closed, after it. It may be used in a notebook, or where another event loop
    runs, which waits meanwhile.

    A client that was used does not survive `os.fork()`: in the child its calls raise `FatalError`,
    in the parent it goes on. Make it after forking, or start processes with "spawn".

    Args:
        bootstrap: "host:port", several joined by commas, or a sequence of them; without a port it is
            7171. Any broker of the cluster will do: each serves every call.
        connect_timeout_s: how long to look for a broker that answers.
        request_timeout_s: how long one unary call may take, its retries included.
        client_id: a name for the broker's logs.

    Example:
        with riverrun.blocking.Client("127.0.0.1:7171") as client:
            with client.producer() as producer:
                producer.send("orders", b"2 apples", key=b"anna")
            with client.consumer("orders", stop_at_end=True) as consumer:
                for record in consumer:
                    print(record.key, record.value)
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str] = DEFAULT_BOOTSTRAP,
        *,
        connect_timeout_s: float = 10.0,
        request_timeout_s: float = 30.0,
        client_id: str = "",
    ) -> None:
        self._session = Session(
            riverrun.client.Client(
                bootstrap,
                connect_timeout_s=connect_timeout_s,
                request_timeout_s=request_timeout_s,
                client_id=client_id,
            )
        )
        ends_with(self, self._session.lifetime)

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
        """Make a producer; `riverrun.Client.producer` explains the settings.

        A partitioner that is a function, and `on_delivery`, are called on the client's thread and must
        not block; serializers in the thread that sends.

        Raises:
            UsageError: a setting is out of its range, or zstd is not installed.

        Example:
            def told(error, metadata):
                print(error or f"{metadata.topic}-{metadata.partition}: {metadata.offset}")

            with client.producer(
                partitioner="murmur2", value_serializer="json", on_delivery=told
            ) as producer:
                producer.send_nowait("orders", {"apples": 2}, key=b"anna")
        """
        serializer = record_serializer(key_serializer, value_serializer)
        made = self._session.make(
            lambda: self._session.client.producer(
                acks=acks,
                idempotent=idempotent,
                compression=compression,
                linger_s=linger_s,
                batch_bytes=batch_bytes,
                buffer_bytes=buffer_bytes,
                delivery_timeout_s=delivery_timeout_s,
                partitioner=partitioner,
            )
        )
        return Producer(
            self._session, made, buffer_bytes, self, on_delivery=on_delivery, serializer=serializer
        )

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
        """Make a consumer; `riverrun.Client.consumer` explains the settings.

        `on_reset`, a member's callbacks and deserializers are called on the client's thread and must not block. Where threads
        share a consumer with `commit="auto"`, a record is finished with when the thread that got it
        asks for more, or when the consumer's `with` block is left without an exception.

        Raises:
            UsageError: nothing to read, or settings that contradict each other.

        Example:
            with client.consumer(
                "orders", group="billing", commit="auto", value_deserializer="str", stop_at_end=True
            ) as consumer:
                for record in consumer:
                    print(record.key, record.value)
        """
        made = self._session.make(
            lambda: self._session.client.consumer(
                *topics,
                group=group,
                from_=from_,
                partitions=partitions,
                offset_reset=offset_reset,
                stop_at_end=stop_at_end,
                prefetch_bytes=prefetch_bytes,
                on_reset=on_reset,
                commit=commit,
                commit_interval_s=commit_interval_s,
                key_deserializer=key_deserializer,
                value_deserializer=value_deserializer,
                **member,
            )
        )
        return Consumer(self._session, made, self, keeps_hands=commit == "auto")

    def admin(self) -> Admin:
        """Return the calls that make and change topics.

        Example:
            for topic in client.admin().list_topics():
                print(topic.name)
        """
        return Admin(self._session, self._session.make(self._session.client.admin), self)

    def server_info(self) -> ServerInfo:
        """Ask a broker for its version, features and limits.

        Raises:
            NoBrokerError: nobody answers.

        Example:
            print(client.server_info().version)
        """
        return self._session.thread.call(self._session.client.server_info)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Close all that the client has made, producers first, then the connections.

        Safe to call twice, from several threads, and again after Ctrl-C.

        Args:
            timeout_s: give up flushing and committing after that; records that are left fail with
                `ClosedError`. None waits as long as the producers' delivery timeouts, and the
                consumers' last commits, let it take.

        Raises:
            RiverrunError: of the first thing that could not be closed in order; all is closed, and
                the other errors are logged.

        Example:
            client.close(timeout_s=10)
        """
        check_timeout(timeout_s)
        self._session.lifetime.close(timeout_s)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception, producers flush and consumers commit for at most five seconds."""
        self.close(timeout_s=None if error is None else _HURRIED_FLUSH_S)
