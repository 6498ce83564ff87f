"""The door to a cluster: one client makes producers, consumers and admins that share connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from riverrun._core.descriptions import ServerInfo
from riverrun._core.records import From, OffsetReset, TopicPartition
from riverrun.admin import Admin
from riverrun.consumer import Consumer
from riverrun.producer import Acks, Compression, Producer

DEFAULT_BOOTSTRAP = "127.0.0.1:7171"


class Client:
    """A cluster, seen from outside.

        async with riverrun.Client("127.0.0.1:7171") as client:
            async with client.producer() as producer:
                await producer.send("orders", b"hello")

    Nothing connects before the first call; a call that finds no broker fails within
    `connect_timeout_s` with an error that names the addresses. Leaving the block closes all that
    the client has made.

    Args:
        bootstrap: "host:port", several joined by commas, or a sequence of them. Any broker of the
            cluster will do: each serves every call.
        connect_timeout_s: how long to look for a broker that answers.
        request_timeout_s: how long one unary call may take, its retries included.
        client_id: a name for the broker's logs.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str] = DEFAULT_BOOTSTRAP,
        *,
        connect_timeout_s: float = 10.0,
        request_timeout_s: float = 30.0,
        client_id: str = "",
    ) -> None:
        raise NotImplementedError

    def producer(
        self,
        *,
        acks: Acks = "all",
        idempotent: bool = True,
        compression: Compression = "none",
        linger_s: float = 0.005,
        batch_bytes: int = 256 * 1024,
        buffer_bytes: int = 32 * 1024 * 1024,
        delivery_timeout_s: float = 120.0,
    ) -> Producer:
        """Make a producer.

        Args:
            acks: when an append counts: "all" in-sync replicas have it on disk, the "leader" has it
                on disk, or the leader has taken it in ("none").
            idempotent: batches sent again after a broken connection are not written twice. Without
                it they are not sent again, and fail with an unknown outcome.
            compression: of whole batches. "zstd" needs `pip install riverrun[zstd]`.
            linger_s: how long a batch that is not full waits for more records.
            batch_bytes: how large a batch may grow; the broker's limit counts too.
            buffer_bytes: how much may wait for its acknowledgement.
            delivery_timeout_s: how long a record may take from `send` to its acknowledgement,
                retries and broken connections included.

        Raises:
            UsageError: a setting is out of its range, or zstd is not installed.
        """
        raise NotImplementedError

    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        from_: From | None = None,
        partitions: Iterable[int | TopicPartition] | Mapping[TopicPartition, From] | None = None,
        offset_reset: OffsetReset | None = None,
        stop_at_end: bool = False,
        prefetch_bytes: int = 16 * 1024 * 1024,
    ) -> Consumer:
        """Make a consumer.

        Args:
            topics: what to read: all partitions of each, unless `partitions` says less.
            group: whose committed offsets to use and to commit for.
            from_: where to begin; with a group it counts only where nothing is committed. None is
                "earliest".
            partitions: what to read explicitly: numbers count in each of `topics`; a mapping says
                also where to begin in each. With a group, committed offsets are then used only where
                `from_`, or the mapping, says "committed".
            offset_reset: where to go on from a position that is out of range; None is "earliest"
                with a group, else "error".
            stop_at_end: end the iteration at the high watermarks found at the start.
            prefetch_bytes: how much may be read ahead.

        Raises:
            UsageError: nothing to read, or settings that contradict each other.
        """
        raise NotImplementedError

    def admin(self) -> Admin:
        """Return the calls that make and change topics."""
        raise NotImplementedError

    async def server_info(self) -> ServerInfo:
        """Ask a broker for its version, features and limits.

        Raises:
            NoBrokerError: nobody answers.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close all that the client has made, producers first, then the connections."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        raise NotImplementedError
