"""The port for other brokers; it shares nothing with the ports for clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio

FRAME_BYTES_MAX: Final = 8 << 20
"""Larger than anything that is sent: one batch of 3 MiB, or what a mailbox puts into one message."""

PING_S: Final = 2.0
"""A machine that is gone says nothing, so both sides ask a silent connection this often."""

_OPTIONS: Final = (
    # A second broker on the same port must fail, not take half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.keepalive_time_ms", round(PING_S * 1000)),
    ("grpc.keepalive_timeout_ms", round(PING_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    # A follower's pings are no attack.
    ("grpc.http2.min_ping_interval_without_data_ms", round(PING_S * 500)),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.http2.settings_timeout", 5_000),
)


class PeerServer:
    """Serves other brokers.

    Transitions: bound -> serving (`start`) -> stopped (`stop`).

    Args:
        address: where it listens, as host:port; port 0 lets the system choose.

    Raises:
        RuntimeError: the address cannot be bound.
    """

    def __init__(self, address: str) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        self.port = int(self._server.add_insecure_port(address))

    async def start(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Answer from now on, with these services."""
        self._server.add_generic_rpc_handlers(handlers)
        await self._server.start()

    async def stop(self) -> None:
        """End all streams."""
        await self._server.stop(None)
