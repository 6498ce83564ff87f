"""One gRPC server for each listener: its options, services, health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.protobuf.internal import api_implementation
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from riverrun_server.rpc.admission import Admission
from riverrun_server.rpc.door import METADATA_BYTES_MAX, Door
from riverrun_server.rpc.listener import Address, Listener
from riverrun_server.rpc.reflection import serve_reflection
from riverrun_server.runtime.supervisor import CannotStart

# Room for a message's envelope, so that our own error about its size is heard before gRPC's.
_ENVELOPE_BYTES: Final = 64 << 10
# A client says who it is with its first packet.
_HANDSHAKE_MS: Final = 5_000
# HTTP/2 streams that one connection may have beside its open streams, for unary calls; more wait
# in the client, where they are in nobody's way.
_UNARY_PER_CONNECTION: Final = 256


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What gRPC is told.

    Attributes:
        max_request_bytes: the largest message that is accepted.
        max_frame_bytes: the largest message that is sent.
        max_connections: connections of this listener; see `connection_shares`.
        max_streams_per_connection: open streams of one connection.
        keepalive_time_s: how often a silent connection is pinged.
        keepalive_timeout_s: how long an answer to that may take.
        min_client_ping_interval_s: a client that pings more often is told to go away.
    """

    max_request_bytes: int
    max_frame_bytes: int
    max_connections: int
    max_streams_per_connection: int
    keepalive_time_s: float
    keepalive_timeout_s: float
    min_client_ping_interval_s: float

    def as_grpc(self) -> list[tuple[str, int]]:
        """Return them as gRPC's own."""
        return [
            ("grpc.max_receive_message_length", self.max_request_bytes + _ENVELOPE_BYTES),
            ("grpc.max_send_message_length", self.max_frame_bytes),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            # Whoever connects and says nothing, or never acknowledges what it may send.
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
            (
                "grpc.max_concurrent_streams",
                self.max_streams_per_connection + _UNARY_PER_CONNECTION,
            ),
            ("grpc.keepalive_time_ms", round(self.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            # A client may ping while it waits for its next call, and so may the broker: that is
            # how either learns that the other one's machine is gone.
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                round(self.min_client_ping_interval_s * 1000),
            ),
            # A second broker on the same port must fail, not take half of the connections.
            ("grpc.so_reuseport", 0),
        ]


@dataclass(frozen=True, slots=True)
class Service:
    """A service and how it is added to a server.

    Attributes:
        name: in full, as in riverrun.v1.ProducerService.
        add: the generated add_…_to_server, its servicer already given; the door is its server.
    """

    name: str
    add: Callable[[Door], None]


class ServingStatus:
    """grpc.health.v1 for every listener: SERVING once told so, NOT_SERVING before and after."""

    def __init__(self, services: Sequence[Service] = ()) -> None:
        self._names = [""]
        self.servicer = health.aio.HealthServicer()
        self.add(services)

    def add(self, services: Sequence[Service]) -> None:
        """Tell of these services too, from the next change on."""
        self._names += [service.name for service in services]

    async def starting(self) -> None:
        """Say that nothing is served yet."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def serving(self) -> None:
        """Say that everything is served."""
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def draining(self) -> None:
        """Say for good that nothing is served any more."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, status: int) -> None:
        for name in self._names:
            await self.servicer.set(name, status)


class ListenerServer:
    """Serves one listener.

    The port is bound before anybody is answered, so that a broker knows all of its addresses, and
    that they are its own, before it opens anything or tells anyone.

    Transitions: bound -> serving (`start`) -> stopped (`stop`).
    """

    def __init__(
        self,
        listener: Listener,
        services: Sequence[Service] = (),
        *,
        options: ServerOptions,
        admission: Admission,
        status: ServingStatus,
        reflects: bool,
    ) -> None:
        """Bind the port; nobody is answered before `start`.

        Raises:
            CannotStart: the address is taken or not one of this machine's.
        """
        # Pure-Python protobuf parses without the bounds that upb has, and 50 times slower.
        if api_implementation.Type() != "upb":
            raise CannotStart(
                f"protobuf runs on {api_implementation.Type()!r}, expected 'upb'; unset "
                "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION or install protobuf's binary wheel"
            )
        self._door = Door(admission, listener.name)
        self._server = grpc.aio.server(options=options.as_grpc())
        self._server.add_generic_rpc_handlers((self._door,))
        health_pb2_grpc.add_HealthServicer_to_server(status.servicer, self._door)
        self._reflects = reflects
        self._names: list[str] = [health.SERVICE_NAME]
        self.add(services)
        self.listener = listener.bound(self._bind(listener))

    def add(self, services: Sequence[Service]) -> None:
        """Serve these too; before `start`."""
        for service in services:
            service.add(self._door)
            self._names.append(service.name)

    async def start(self) -> None:
        """Answer calls from now on."""
        if self._reflects:
            serve_reflection(self._door, self._names)
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no calls any more, and end those that are still under way after `grace_s`."""
        await self._server.stop(grace_s)

    def _bind(self, listener: Listener) -> int:
        try:
            return int(self._server.add_insecure_port(str(listener.bind)))
        except RuntimeError as error:
            check_free(listener)
            raise CannotStart(_cannot_listen(listener, str(error))) from error


def check_free(listener: Listener) -> None:
    """Fail where a listener's address cannot be bound now.

    Raises:
        CannotStart: it is taken, or not one of this machine's.
    """
    why = _why_not(listener.bind)
    if why is not None:
        raise CannotStart(_cannot_listen(listener, why))


def _cannot_listen(listener: Listener, why: str) -> str:
    text = f"listener {listener.name!r} cannot listen on {listener.bind}: {why}"
    if why != os.strerror(errno.EADDRINUSE):
        return text
    return (
        f"{text}; is another broker running? If so, give this one --listen HOST:PORT and "
        "--data-dir DIR of its own"
    )


def _why_not(bind: Address) -> str | None:
    """Return why an address cannot be bound: gRPC tells it only to its own log."""
    with contextlib.ExitStack() as stack:
        try:
            family, *_, where = socket.getaddrinfo(*bind, type=socket.SOCK_STREAM)[0]
            probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
        except OSError as error:
            return error.strerror
    return None


def connection_shares(connections: int, listeners: int) -> list[int]:
    """Return how many of the process's connections each listener may have.

    gRPC counts for each port by itself, and tells nobody before a client has called; so the
    descriptors, of which the process has so many, are shared out beforehand.

        >>> connection_shares(10_000, 3)
        [3334, 3333, 3333]

    Args:
        connections: of all listeners together; at least one for each.
        listeners: how many there are.
    """
    assert connections >= listeners >= 1, (connections, listeners)
    each, left = divmod(connections, listeners)
    return [each + (number < left) for number in range(listeners)]


async def stop_all(servers: Sequence[ListenerServer], grace_s: float) -> None:
    """Stop every listener at the same time."""
    await asyncio.gather(*(server.stop(grace_s) for server in servers))
