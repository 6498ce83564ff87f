"""The metadata store of a cluster: transactions, listings, watches and leases of etcd.

Every read is linearizable. A transaction is sent once; where the answer is lost the outcome is
unknown, and the nonce in each value lets the writer find out (runtime/settling.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio

from riverrun_server.core.backoff import Backoff
from riverrun_server.metadata.etcd.connection import (
    EtcdConnection,
    Member,
    ReplyTooLarge,
)
from riverrun_server.metadata.etcd.messages import Messages
from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.standing import Mark, Standing
from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.metadata.etcd.watch import EtcdWatch
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.metadata import (
    AccessDenied,
    Compacted,
    Entry,
    Lease,
    LeaseNotFound,
    Listing,
    MetadataError,
    MetadataUnavailable,
    StoreEnded,
    Transaction,
    TransactionResult,
    UnknownOutcome,
)

# Keys in a page of a listing: some 100 kB of ordinary values.
PAGE_KEYS: Final = 500
# A listing that compaction overtakes begins anew; more often than this something else is wrong.
_LISTINGS_MAX: Final = 3


class EtcdStore:
    """Implements ports.metadata.MetadataStore; use it as an async context manager.

    Transitions: open -> ended (etcd is not what it was) | closed.

    Args:
        options: how etcd is reached and where the keys stand.
        dice: spreads pauses.
        mark: how far the store was seen by an earlier process.
        progress: is told the newest mark whenever it has moved.
        page_keys: so many keys are listed at a time.
        pause: waits, in seconds; only while etcd does not answer.

    Raises:
        OSError: a file for TLS cannot be read.
    """

    def __init__(
        self,
        options: EtcdOptions,
        dice: Dice,
        *,
        mark: Mark = Mark(),  # noqa: B008 - frozen
        progress: Callable[[Mark], None] = lambda _: None,
        page_keys: int = PAGE_KEYS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._messages = Messages(options.prefix)
        self._standing = Standing(mark)
        self._connection = EtcdConnection(options, dice, self._standing, pause)
        self._timeout_s = options.timeout_s
        self._dice = dice
        self._told = mark
        self._progress = progress
        self._page_keys = page_keys
        self._pause = pause
        self._watches: set[EtcdWatch] = set()

    async def __aenter__(self) -> Self:
        """Do nothing yet: connections are made when they are needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End watches and connections; whoever still waits for an answer is told."""
        for watch in list(self._watches):
            await watch.close()
        await self._connection.close()

    async def wait_until_it_answers(self, within_s: float) -> None:
        """Ask until there is an answer.

        Raises:
            AccessDenied, StoreEnded: waiting would not help.
            MetadataUnavailable: there was none in time.
        """
        backoff = Backoff(self._dice.uniform, 0.1, 1.0)
        last: MetadataUnavailable | None = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        await self.get("cluster")
                    except (AccessDenied, StoreEnded):
                        raise
                    except MetadataUnavailable as error:
                        last = error
                    else:
                        return
                    await self._pause(backoff.next_s())
        except TimeoutError:
            raise MetadataUnavailable(
                f"etcd did not answer within {within_s:g} s; is it running, and are its addresses "
                f"right? {last or ''}".rstrip()
            ) from last

    # --- reading ---------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        """Return a key as it stands, or stood at a revision."""
        reply = await self._range(self._messages.one(key, revision or 0))
        found = self._messages.entries(reply.kvs)
        return found[0] if found else None

    async def scan(self, prefix: str, *, revision: int | None = None) -> Listing:
        """Return all keys that begin with `prefix`, as they stand, or stood at a revision."""
        if revision is not None:
            return await self._list(prefix, revision)
        for _ in range(_LISTINGS_MAX):
            try:
                return await self._list(prefix, 0)
            except Compacted as overtaken:
                last = overtaken
        raise MetadataUnavailable(
            f"etcd was compacted during each of {_LISTINGS_MAX} listings of {prefix!r}"
        ) from last

    def watch(self, prefix: str, start_revision: int) -> EtcdWatch:
        """Return a watch of every change under `prefix` from a revision on."""
        watch = EtcdWatch(
            self._connection,
            self._messages,
            prefix,
            start_revision,
            self._timeout_s,
            self._watches.discard,
        )
        self._watches.add(watch)
        return watch

    # --- writing ---------------------------------------------------------------------------------

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Apply a transaction or say why not."""
        request = self._messages.txn(transaction)

        async def send(
            member: Member, along: grpc.aio.Metadata, timeout_s: float
        ) -> pb.TxnResponse:
            return await member.kv.Txn(request, metadata=along, timeout=timeout_s)

        reply = await self._connection.write(send)
        self._tell()
        return self._messages.result(transaction, reply)

    # --- leases ----------------------------------------------------------------------------------

    async def grant(self, ttl_s: float) -> Lease:
        """Make a lease; etcd counts whole seconds, so it may be a little longer."""
        request = pb.LeaseGrantRequest(TTL=math.ceil(ttl_s))

        async def send(
            member: Member, along: grpc.aio.Metadata, timeout_s: float
        ) -> pb.LeaseGrantResponse:
            return await member.lease.LeaseGrant(request, metadata=along, timeout=timeout_s)

        reply = await self._connection.write(send)
        return Lease(reply.ID, float(reply.TTL))

    async def keep_alive(self, lease_id: int) -> Lease:
        """Let a lease begin anew with its full time."""
        request = pb.LeaseKeepAliveRequest(ID=lease_id)

        async def send(
            member: Member, along: grpc.aio.Metadata, timeout_s: float
        ) -> pb.LeaseKeepAliveResponse:
            stream = member.lease.LeaseKeepAlive(metadata=along, timeout=timeout_s)
            try:
                with contextlib.suppress(asyncio.InvalidStateError):  # it failed; reading says why
                    await stream.write(request)
                    await stream.done_writing()
                async for reply in stream:
                    return reply
            finally:
                stream.cancel()
            raise MetadataUnavailable("etcd ended the stream without an answer")

        try:
            reply = await self._connection.renew(send)
        except UnknownOutcome as error:
            # Renewed or not, nothing is lost by it.
            raise MetadataUnavailable(str(error)) from error
        if reply.TTL <= 0:
            raise LeaseNotFound(f"lease {lease_id} has expired or was revoked")
        return Lease(lease_id, float(reply.TTL))

    async def revoke(self, lease_id: int) -> None:
        """End a lease now, and its keys with it."""
        request = pb.LeaseRevokeRequest(ID=lease_id)

        async def send(
            member: Member, along: grpc.aio.Metadata, timeout_s: float
        ) -> pb.LeaseRevokeResponse:
            return await member.lease.LeaseRevoke(request, metadata=along, timeout=timeout_s)

        await self._connection.write(send)
        self._tell()

    # --- steps -----------------------------------------------------------------------------------

    async def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        async def send(
            member: Member, along: grpc.aio.Metadata, timeout_s: float
        ) -> pb.RangeResponse:
            return await member.kv.Range(request, metadata=along, timeout=timeout_s)

        try:
            reply: pb.RangeResponse = await self._connection.read(send)
        except Compacted:
            raise await self._compacted(request.revision) from None
        self._tell()
        return reply

    async def _list(self, prefix: str, revision: int) -> Listing:
        """List page by page, all of them at the revision of the first."""
        entries: list[Entry] = []
        limit = self._page_keys
        while True:
            after = entries[-1].key if entries else None
            request = self._messages.under(prefix, after=after, revision=revision, limit=limit)
            try:
                reply = await self._range(request)
            except ReplyTooLarge as error:
                if limit == 1:
                    raise MetadataUnavailable(str(error)) from error
                limit //= 2
                continue
            revision = revision or reply.header.revision
            entries += self._messages.entries(reply.kvs)
            if not reply.more:
                return Listing(revision, entries)

    async def _compacted(self, revision: int) -> Compacted:
        """Return the error with the revision up to which events are gone: only a watch is told it."""
        watch = self.watch("", revision)
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    await watch.next()
        except Compacted as compacted:
            return compacted
        except (MetadataError, TimeoutError):
            return Compacted(revision, revision)
        finally:
            await watch.close()

    def _tell(self) -> None:
        if self._standing.mark != self._told:
            self._told = self._standing.mark
            self._progress(self._told)
