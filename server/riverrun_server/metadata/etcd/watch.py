"""A watch of etcd: one stream, read no faster than it is asked, and ended at the first doubt.

It never connects again by itself. Between two streams lies a gap that only a listing can close, so
whoever watches is told to list again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio

from riverrun_server.metadata.etcd.connection import EtcdConnection, Member
from riverrun_server.metadata.etcd.failures import being_cancelled, failure_of
from riverrun_server.metadata.etcd.messages import Messages
from riverrun_server.metadata.etcd.ordering import EventOrder
from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.ports.metadata import (
    Compacted,
    MetadataError,
    MetadataUnavailable,
    StoreEnded,
    WatchBatch,
    WatchInterrupted,
)
from riverrun_server.runtime.ending import end

# A watcher that is this far behind lets the stream wait; etcd keeps what it has not sent.
_BATCHES_MAX: Final = 64

Stream = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]


class EtcdWatch:
    """Implements ports.metadata.Watch.

    Transitions: following -> ended (compacted, interrupted, the store ended) | closed. What was
    received before the end is still handed out.

    Args:
        connection: to a member.
        messages: of the watched keys.
        prefix: what they begin with.
        start_revision: the first one of interest.
        begin_within_s: how long a member may take to begin.
        forget: called when it is closed.
    """

    def __init__(
        self,
        connection: EtcdConnection,
        messages: Messages,
        prefix: str,
        start_revision: int,
        begin_within_s: float,
        forget: Callable[[EtcdWatch], None],
    ) -> None:
        assert start_revision > 0, start_revision
        self._connection = connection
        self._messages = messages
        self._prefix = prefix
        self._start_revision = start_revision
        self._begin_within_s = begin_within_s
        self._forget = forget
        self._order = EventOrder(start_revision)
        self._waiting: deque[WatchBatch] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._end: Callable[[], MetadataError] | None = None
        self._task = asyncio.create_task(self._run(), name=f"etcd-watch {prefix!r}")

    async def next(self) -> WatchBatch:
        """Wait for the next change under the prefix."""
        while not self._waiting:
            if self._end is not None:
                raise self._end()
            self._wake.clear()
            await self._wake.wait()
        self._room.set()
        return self._waiting.popleft()

    async def close(self) -> None:
        """Let go."""
        self._waiting.clear()
        self._finish(lambda: MetadataUnavailable("the watch is closed"), anew=True)
        try:
            await end(self._task)
        finally:
            self._forget(self)

    def _finish(self, end: Callable[[], MetadataError], *, anew: bool = False) -> None:
        if self._end is None or anew:
            self._end = end
        self._wake.set()

    async def _run(self) -> None:
        try:
            await self._follow()
        except Compacted as compacted:
            revision = compacted.compacted_revision
            self._finish(lambda: Compacted(self._start_revision, revision))
        except StoreEnded as error:
            text = str(error)
            self._finish(lambda: StoreEnded(text))
        except MetadataError as error:
            text = str(error)
            self._finish(lambda: WatchInterrupted(text))
        except BaseException as error:
            text = f"its task ended: {error!r}"
            self._finish(lambda: WatchInterrupted(text))
            raise

    async def _follow(self) -> None:
        """Hand on events until the stream ends.

        Raises:
            MetadataError: why it ended.
        """
        member, along = await self._connection.stream()
        stream: Stream = member.watch.Watch(metadata=along)
        try:
            await self._begin(stream)
            while True:
                await self._take(await self._read(stream))
        except grpc.aio.AioRpcError as error:
            raise self._failed(member, error) from error
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise StoreEnded("the metadata store was closed") from error
        except TimeoutError:
            said = f"etcd at {member.address} began no watch within {self._begin_within_s:g} s"
            self._connection.failed(member, said)
            raise WatchInterrupted(said) from None
        finally:
            stream.cancel()

    async def _begin(self, stream: Stream) -> None:
        async with asyncio.timeout(self._begin_within_s):
            with contextlib.suppress(asyncio.InvalidStateError):  # it failed; reading says why
                await stream.write(self._messages.watch(self._prefix, self._start_revision))
            await self._take(await self._read(stream))

    async def _read(self, stream: Stream) -> pb.WatchResponse:
        """Return the next response.

        Raises:
            AioRpcError: the stream failed.
            WatchInterrupted: it ended.
        """
        response = await stream.read()
        if isinstance(response, pb.WatchResponse):
            return response
        raise WatchInterrupted("etcd ended the watch's stream")

    async def _take(self, response: pb.WatchResponse) -> None:
        self._connection.see(response.header)
        events = map(self._messages.event, response.events)
        for batch in self._order.take(events, unfinished=response.fragment):
            while len(self._waiting) >= _BATCHES_MAX:
                self._room.clear()
                await self._room.wait()
            self._waiting.append(batch)
            self._wake.set()
        if response.compact_revision:
            raise Compacted(self._start_revision, response.compact_revision)
        if response.canceled:
            raise WatchInterrupted(f"etcd canceled the watch: {response.cancel_reason}")

    def _failed(self, member: Member, error: grpc.aio.AioRpcError) -> MetadataError:
        failure = failure_of(error)
        self._connection.failed(member, failure.text)
        return WatchInterrupted(f"the watch at {member.address} ended: {failure.text}")
