"""Calls to whichever member of etcd answers: reads go on to the next one, writes are sent once.

Each member has a channel of its own. gRPC's several addresses behind one channel would have to be IP
addresses, and TLS would check one name for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio

from riverrun_server.core.backoff import Backoff
from riverrun_server.metadata.etcd.failures import Failure, Kind, being_cancelled, failure_of
from riverrun_server.metadata.etcd.login import Login
from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.standing import Standing
from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.metadata.etcd.v3 import rpc_pb2_grpc as stubs
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.metadata import (
    AccessDenied,
    Compacted,
    FutureRevision,
    LeaseNotFound,
    MetadataError,
    MetadataUnavailable,
    StoreEnded,
    UnknownOutcome,
)

# Pages of a listing and fragments of a watch are far smaller; a single value may take 1 MiB.
RECEIVED_BYTES_MAX: Final = 16 << 20
# A member that refuses connections is passed by at once, one that swallows them after this.
_CONNECT_S: Final = 1.0
_WHY_S: Final = 0.2
# So that a read has time for a second member where the first one hangs.
_ATTEMPT_SHARE: Final = 0.4
_LOGINS_MAX: Final = 2
_UNDER_WAY: Final = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)

_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    # A dead peer is noticed within 13 s; etcd allows no more than a ping in 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC must not send a transaction again by itself.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Headed(Protocol):
    """A reply that says who answered, and at which revision."""

    @property
    def header(self) -> pb.ResponseHeader:
        """Who, and where."""
        ...


R = TypeVar("R", bound=Headed)
# A call on a member, with its metadata and its timeout in seconds.
Call = Callable[["Member", grpc.aio.Metadata, float], Awaitable[R]]


class ReplyTooLarge(UnknownOutcome):
    """The reply is larger than is received; a read asks for less, a write may have been done."""


_ERRORS: Final[dict[Kind, type[MetadataError]]] = {
    Kind.FUTURE: FutureRevision,
    Kind.NO_LEASE: LeaseNotFound,
    Kind.TOO_LARGE: ReplyTooLarge,
    Kind.NOTHING: MetadataUnavailable,
    Kind.OPEN: UnknownOutcome,
}


class Member:
    """One member of etcd, as the broker reaches it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        self._channel = (
            grpc.aio.insecure_channel(address, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        )
        self.kv = stubs.KVStub(self._channel)
        self.lease = stubs.LeaseStub(self._channel)
        self.watch = stubs.WatchStub(self._channel)
        self.auth = stubs.AuthStub(self._channel)

    async def connected(self) -> bool:
        """Return whether a request would be sent, after trying to connect."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                while True:
                    state = self._channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return True
                    if state not in _UNDER_WAY:
                        return False
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            return False

    async def trouble(self) -> str:
        """Return why it cannot be connected to: gRPC tells it only to whoever asks for something."""
        try:
            await self.kv.Range(pb.RangeRequest(key=b"\0"), timeout=_WHY_S)
        except grpc.aio.AioRpcError as error:
            return failure_of(error).text
        return "it took too long"

    async def close(self) -> None:
        """End its calls and its connection."""
        await self._channel.close()


class EtcdConnection:
    """All members, one of them the current one.

    Transitions: open -> closed. A call that fails makes the next member the current one.

    Args:
        options: where and how.
        dice: spreads the pauses between attempts.
        standing: checks that the store is the one that it was.
        pause: waits, in seconds, while no member answers.

    Raises:
        OSError: a file for TLS cannot be read.
    """

    def __init__(
        self,
        options: EtcdOptions,
        dice: Dice,
        standing: Standing,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        credentials = None if options.tls is None else options.tls.load()
        self._members = [Member(address, credentials) for address in options.endpoints]
        # Not all brokers begin with the same one.
        self._current = int(dice.uniform(0, len(self._members))) % len(self._members)
        self._login = Login(options.user)
        self._prefix = options.prefix
        self._timeout_s = options.timeout_s
        self._dice = dice
        self._standing = standing
        self._pause = pause
        self._last_failure = ""

    async def close(self) -> None:
        """End all calls; later ones are refused."""
        self._standing.end("the metadata store was closed")
        for member in self._members:
            await member.close()

    async def read(self, call: Call[R]) -> R:
        """Ask until a member answers, or time is up.

        Raises:
            Compacted: of revision 0, for whoever asked knows which.
            FutureRevision, AccessDenied, StoreEnded
            ReplyTooLarge: ask for less.
            MetadataUnavailable: no member answers.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                backoff = Backoff(self._dice.uniform, 0.05, 0.5)
                while True:
                    try:
                        return await self._once(call, self._timeout_s * _ATTEMPT_SHARE)
                    except (AccessDenied, StoreEnded, ReplyTooLarge):
                        raise
                    except (MetadataUnavailable, UnknownOutcome) as error:
                        self._last_failure = str(error)
                    await self._pause(backoff.next_s())
        except TimeoutError:
            raise self._unavailable() from None

    async def write(self, call: Call[R]) -> R:
        """Send a request once.

        Raises:
            UnknownOutcome: it may have been done, or may still be.
            MetadataUnavailable: nothing happened: it was not sent, or refused.
            LeaseNotFound, AccessDenied, StoreEnded: nothing happened.
        """
        return await self._once(call, self._timeout_s)

    async def renew(self, call: Call[R]) -> R:
        """Send a request once whose answer does not show how far the store is.

        Raises:
            UnknownOutcome, MetadataUnavailable, LeaseNotFound, AccessDenied, StoreEnded
        """
        return await self._once(call, self._timeout_s, shows_revision=False)

    async def stream(self) -> tuple[Member, grpc.aio.Metadata]:
        """Return a member that is connected, and what to send along with a stream's beginning.

        Raises:
            MetadataUnavailable: no member can be reached.
        """
        self._standing.check()
        member = await self._reached()
        return member, await self._along(member)

    def failed(self, member: Member, why: str) -> None:
        """Try another member next."""
        self._last_failure = why
        if self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)

    def see(self, header: pb.ResponseHeader, at_least: int = 0) -> None:
        """Hold an answer against what is known; only linearizable ones have an `at_least`.

        Raises:
            StoreEnded: it is another store.
        """
        self._standing.see(header.cluster_id, header.revision, at_least)

    async def _once(self, call: Call[R], timeout_s: float, *, shows_revision: bool = True) -> R:
        """Send a request to one member, again only after a log-in that it asked for."""
        for _ in range(_LOGINS_MAX):
            self._standing.check()
            member = await self._reached()
            along = await self._along(member)
            self._standing.check()
            known = self._standing.mark.revision
            try:
                reply = await call(member, along, timeout_s)
            except asyncio.CancelledError as error:
                if being_cancelled():
                    # Whoever lost patience finds another member next time: this one may hang.
                    self.failed(member, f"{member.address}: no answer as long as anybody waited")
                    raise
                raise UnknownOutcome("the metadata store was closed during the call") from error
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
                self._standing.check()  # closed meanwhile: that is why
                if failure.kind is Kind.TOKEN and self._login.needed:
                    self._login.forget(along)
                    continue
                if failure.kind in (Kind.OPEN, Kind.NOTHING):
                    self.failed(member, failure.text)
                raise self._error(failure, member) from error
            self._last_failure = ""
            self.see(reply.header, known if shows_revision else 0)
            return reply
        raise AccessDenied(f"etcd at {member.address} forgets every log-in at once: {failure.text}")

    async def _reached(self) -> Member:
        """Return a member that is connected.

        Raises:
            MetadataUnavailable: there is none; nothing was sent.
        """
        backoff = Backoff(self._dice.uniform, 0.05, 0.5)
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    for _ in self._members:
                        self._standing.check()
                        member = self._members[self._current]
                        if await member.connected():
                            return member
                        self._standing.check()  # a closed channel cannot even be asked why
                        self.failed(member, f"{member.address}: {await member.trouble()}")
                    await self._pause(backoff.next_s())
        except TimeoutError:
            raise self._unavailable() from None

    async def _along(self, member: Member) -> grpc.aio.Metadata:
        """Return the metadata of a call: a member without a leader shall refuse at once."""
        along = grpc.aio.Metadata(("hasleader", "true"))
        if self._login.needed:
            along.add("token", await self._login.token(member.auth, member.address))
        return along

    def _unavailable(self) -> MetadataUnavailable:
        members = ", ".join(member.address for member in self._members)
        return MetadataUnavailable(
            f"no member of etcd answered within {self._timeout_s:g} s ({members}); the last word "
            f"was: {self._last_failure or 'none'}"
        )

    def _error(self, failure: Failure, member: Member) -> MetadataError:
        said = f"etcd at {member.address} says: {failure.text}"
        if failure.kind is Kind.COMPACTED:
            return Compacted(0, 0)
        if failure.kind in (Kind.DENIED, Kind.TOKEN):
            return AccessDenied(
                f"{said}; the broker reads and writes the keys under {self._prefix!r}: give it a "
                "user who may (etcd.user, etcd.password_file, or etcd.cert_file)"
            )
        return _ERRORS[failure.kind](said)
