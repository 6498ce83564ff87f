"""Connections to brokers: one gRPC channel an address; any broker that answers, or a certain one."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

from riverrun._core.argument_checks import check_seconds, out_of_range
from riverrun._core.attempts import Attempts
from riverrun._core.backoff import Backoff
from riverrun._core.descriptions import ServerInfo
from riverrun._net.describing import server_info
from riverrun._net.failures import NO_ANSWER, being_cancelled, from_rpc, is_connection_trouble
from riverrun._net.forking import check_process
from riverrun._net.unreachable import no_answer, no_broker, waiting
from riverrun.errors import ClosedError, Reason, RetriableError, RiverrunError
from riverrun.v1 import (
    admin_pb2_grpc,
    consumer_pb2_grpc,
    group_pb2_grpc,
    metadata_pb2,
    metadata_pb2_grpc,
    producer_pb2_grpc,
)

T = TypeVar("T")
_log = logging.getLogger(__name__)

_MEBI = 1 << 20
# A batch and a frame are at most 4 MiB on this API; the room above is for what a later one may do.
_MESSAGE_BYTES_MAX = 16 * _MEBI
_PROBE_TIMEOUT_S = 3.0

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    # A dead peer is noticed within 15 s, also where nothing is being sent.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Every retry is ours: gRPC's own know nothing of sequences.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """How a client looks for brokers.

    Attributes:
        addresses: where, as host:port, in order.
        connect_timeout_s: for how long.
        request_timeout_s: how long a unary call may take, its retries included.
        client_id: a name for the broker's logs.
    """

    addresses: tuple[str, ...]
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 30.0
    client_id: str = ""

    def __post_init__(self) -> None:
        """Check the timeouts.

        Raises:
            UsageError: one is not above 0.
        """
        for name in ("connect_timeout_s", "request_timeout_s"):
            check_seconds(name, getattr(self, name), above=True)
        if not isinstance(self.client_id, str):
            raise out_of_range("client_id", self.client_id, "a str")


class Connection:
    """One broker that has answered: its address, what it said of itself, and its services."""

    __slots__ = ("admin", "consumer", "endpoint", "group", "info", "metadata", "producer")

    def __init__(
        self, endpoint: str, channel: grpc.aio.Channel, info: metadata_pb2.GetServerInfoResponse
    ) -> None:
        self.endpoint = endpoint
        self.info = info
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)
        self.consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
        self.group = group_pb2_grpc.GroupServiceStub(channel)
        self.metadata = metadata_pb2_grpc.MetadataServiceStub(channel)
        self.producer = producer_pb2_grpc.ProducerServiceStub(channel)


Send = Callable[[Connection, float], Awaitable[T]]
"""Makes one unary call on a connection, with a timeout in seconds."""


class Connections:
    """Finds a broker that answers, keeps to it until it is reported lost, then finds another.

    Beside that one there may be connections to certain brokers, by their ids.

    Args:
        config: the addresses and for how long to look.
        uniform: returns a random number in [0, 1): for delays, and whom to try first once a broker is
            lost, so that not all of its clients come to the same other one.

    Attributes:
        endpoints: where brokers of the cluster are, by id, as learnt from one of them.
    """

    def __init__(self, config: ConnectionConfig, uniform: Callable[[], float]) -> None:
        self._config = config
        self._uniform = uniform
        self.endpoints: Mapping[int, str] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._current: Connection | None = None
        self._certain: dict[int, Connection] = {}
        self._dialling: dict[int, asyncio.Lock] = {}
        # Which broker answered at an address when it was asked last.
        self._answered_by: dict[str, int] = {}
        self._lost_at = ""
        # What became of each address that was tried since a broker answered last.
        self._failures: dict[str, str] = {}
        self._looking = asyncio.Lock()
        self._told = False
        self._closed = False
        self._at_close: list[Callable[[], Awaitable[None]]] = []

    @property
    def request_timeout_s(self) -> float:
        """How long a call may take, its retries included."""
        return self._config.request_timeout_s

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where brokers may be, as host:port: what was given, then what was learnt.

        A broker that answers at an address that was given is not looked for elsewhere.
        """
        given = self._config.addresses
        found = {self._answered_by.get(address) for address in given}
        learnt = [at for broker, at in self.endpoints.items() if at and broker not in found]
        return tuple(dict.fromkeys((*given, *learnt)))

    @property
    def trouble(self) -> str:
        """At which addresses no broker answers, and why; empty where one does, or none was tried yet."""
        return no_answer(self._failures) if self._failures else ""

    async def connect(self, *, again: bool = False) -> Connection:
        """Return the broker in use, or find one that answers.

        Args:
            again: whoever asks will ask again where nobody answers; only what is told of the wait
                differs.

        Raises:
            NoBrokerError: nobody does, within the connect timeout.
            ClosedError: the client was closed.
        """
        if self._current is None:
            async with self._looking:
                if self._current is None:
                    self._current = await self._find(again=again)
        return self._current

    async def connect_to(self, broker_id: int) -> Connection:
        """Return a connection to a certain broker; it is dialled once, and not waited for.

        Raises:
            RetriableError: it cannot be reached.
            ClosedError: the client was closed.
        """
        current = self._current
        if current is not None and current.info.broker_id == broker_id:
            return current
        async with self._dialling.setdefault(broker_id, asyncio.Lock()):
            connection = self._certain.get(broker_id)
            if connection is None:
                connection = self._certain[broker_id] = await self._dial(broker_id)
        return connection

    def lost(self, connection: Connection) -> None:
        """Report that a broker does not answer any more: others are tried first."""
        if self._current is connection:
            self._current = None
            self._lost_at = connection.endpoint
        broker_id = connection.info.broker_id
        if self._certain.get(broker_id) is connection:
            del self._certain[broker_id]

    async def call(
        self,
        send: Send[T],
        what: str,
        *,
        idempotent: bool = True,
        attempts: Attempts | None = None,
    ) -> T:
        """Make a unary call, again where that is safe, within the request timeout.

        Args:
            send: makes it once.
            what: it in words, for errors.
            idempotent: making it again does no harm where the outcome is unknown.
            attempts: remembers what is left open; given by a caller whose call only reads, or whose
                answers have errors of their parts.

        Raises:
            RiverrunError: whatever it failed with at last. Where an earlier attempt may have taken
                effect, the outcome is unknown whatever the last one said.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._uniform)
        attempts = attempts or Attempts()
        connection = await self.connect()
        # From here on: finding a broker at first has a time of its own.
        deadline_s = loop.time() + self._config.request_timeout_s
        while True:
            try:
                return await send(connection, max(0.0, deadline_s - loop.time()))
            except asyncio.CancelledError:
                # gRPC says so too where the channel was closed and nobody cancels this task.
                if being_cancelled():
                    raise
                raise attempts.failed(_closed(what)) from None
            except grpc.aio.AioRpcError as failure:
                error = from_rpc(failure, what, connection.endpoint)
                if is_connection_trouble(error):
                    self.lost(connection)
                error = attempts.failed(error)
                delay_s = backoff.next_s(error.retry_after_s)
                again = isinstance(error, RetriableError) and (error.outcome_known or idempotent)
                if not again or loop.time() + delay_s >= deadline_s:
                    raise error from failure
            await asyncio.sleep(delay_s)
            connection = await self._connect_again(deadline_s, error, attempts)

    async def _connect_again(
        self, deadline_s: float, error: RiverrunError, attempts: Attempts
    ) -> Connection:
        """Find a broker for another attempt; at the deadline raise what the last one failed with."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self.connect()
        except TimeoutError:
            if self._failures:
                error = copy.copy(error)
                error.message = f"{error.message}; since then {self.trouble}"
            raise error from None
        except RiverrunError as nobody:
            raise attempts.failed(nobody) from nobody.__cause__

    def at_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close something before the channels are."""
        self._at_close.append(close)

    async def close(self) -> None:
        """Close every channel; calls under way fail."""
        self._closed = True
        for close in self._at_close:
            await close()
        self._current = None
        self._certain.clear()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _find(self, *, again: bool) -> Connection:
        """Ask one address after the other until one answers or the time is up."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        deadline_s = began_s + self._config.connect_timeout_s
        backoff = Backoff(self._uniform)
        addresses = self._in_turn()
        while True:
            for address in addresses:
                left_s = deadline_s - loop.time()
                # Whoever cannot wait any longer is told of an address that has said nothing so far.
                self._failures.setdefault(address, NO_ANSWER)
                try:
                    found = await self._probe(address, min(_PROBE_TIMEOUT_S, max(0.05, left_s)))
                except asyncio.CancelledError:
                    if being_cancelled():
                        raise
                    raise ClosedError("the client was closed", reason=Reason.CLOSED) from None
                except grpc.aio.AioRpcError as failure:
                    self._failures[address] = from_rpc(failure, "ask", address).message
                else:
                    self._failures.clear()
                    self._tell_found(address)
                    return found
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise no_broker(self._failures, loop.time() - began_s)
            self._tell_waiting(None if again else self._config.connect_timeout_s)
            # The last round comes at the end of the time, which is waited for whole.
            await asyncio.sleep(min(backoff.next_s(), left_s))

    def _in_turn(self) -> tuple[str, ...]:
        """Return the addresses, beginning with any but the one that was lost."""
        addresses = self.addresses
        if self._lost_at not in addresses or len(addresses) == 1:
            return addresses
        skipped = 1 + int(self._uniform() * (len(addresses) - 1))
        first = (addresses.index(self._lost_at) + skipped) % len(addresses)
        return addresses[first:] + addresses[:first]

    async def _dial(self, broker_id: int) -> Connection:
        """Ask where a broker has answered before, and where it says that it is."""
        given = self._config.addresses
        places = [at for at in given if self._answered_by.get(at) == broker_id]
        places.append(self.endpoints.get(broker_id, ""))
        why = "it has no address for clients of this listener"
        for address in filter(None, dict.fromkeys(places)):
            try:
                found = await self._probe(address, _PROBE_TIMEOUT_S)
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                raise ClosedError("the client was closed", reason=Reason.CLOSED) from None
            except grpc.aio.AioRpcError as failure:
                why = from_rpc(failure, "ask", address).message
            else:
                if found.info.broker_id == broker_id:
                    return found
                # Behind one address there may be several, and names may be given to others.
                why = f"broker {found.info.broker_id} answers at {address}"
        raise RetriableError(
            f"broker {broker_id} cannot be reached: {why}", reason=Reason.CONNECTION_LOST
        )

    async def _let_go(self) -> None:
        """Close the channels to where no broker is any more."""
        used = {at.endpoint for at in (*self._certain.values(), self._current) if at is not None}
        for address in self._channels.keys() - used - {*self.addresses}:
            await self._channels.pop(address).close()

    def _tell_waiting(self, timeout_s: float | None) -> None:
        """Say once what is waited for, until it is there."""
        if not self._told:
            self._told = True
            _log.info("%s", waiting(self._failures, timeout_s))

    def _tell_found(self, address: str) -> None:
        """Say that the wait is over, to whoever was told of it."""
        if self._told:
            self._told = False
            _log.info("back again: a broker answers at %s", address)

    async def _probe(self, address: str, timeout_s: float) -> Connection:
        if self._closed:
            raise ClosedError("the client was closed", reason=Reason.CLOSED)
        check_process()
        channel = self._channels.get(address)
        if channel is None:
            await self._let_go()
            agent = f"riverrun-python {self._config.client_id}".strip()
            options = [*_OPTIONS, ("grpc.primary_user_agent", agent)]
            channel = grpc.aio.insecure_channel(address, options=options)
            self._channels[address] = channel
        service = metadata_pb2_grpc.MetadataServiceStub(channel)
        info = await service.GetServerInfo(metadata_pb2.GetServerInfoRequest(), timeout=timeout_s)
        self._answered_by[address] = info.broker_id
        return Connection(address, channel, info)


def _closed(what: str) -> ClosedError:
    return ClosedError(
        f"{what}: the client was closed before the answer came",
        reason=Reason.CLOSED,
        outcome_known=False,
    )


async def fetch_server_info(connections: Connections) -> ServerInfo:
    """Ask a broker for its version, features and limits.

    Raises:
        NoBrokerError: nobody answers.
    """
    request = metadata_pb2.GetServerInfoRequest()

    async def ask(connection: Connection, timeout_s: float) -> ServerInfo:
        info = await connection.metadata.GetServerInfo(request, timeout=timeout_s)
        return server_info(info, connection.endpoint)

    return await connections.call(ask, "get server info", attempts=Attempts(changes=False))
