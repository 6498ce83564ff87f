"""A connection to another broker's port for peers, which shares nothing with any other connection there."""

from __future__ import annotations

from typing import Final

import grpc.aio

from riverrun_server.peer.server import FRAME_BYTES_MAX, PING_S

RECONNECT_MAX_S: Final = 2.0


def peer_channel(address: str, reconnect_max_s: float = RECONNECT_MAX_S) -> grpc.aio.Channel:
    """Return a connection that is begun when something is asked, and notices a machine that is gone.

    Args:
        address: where the broker listens for peers, as host:port.
        reconnect_max_s: between two attempts to connect, at the most.
    """
    options = (
        ("grpc.keepalive_time_ms", round(PING_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(PING_S * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
        ("grpc.max_send_message_length", FRAME_BYTES_MAX),
        # Nothing that brokers say to each other stands in the way of anything else.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", round(reconnect_max_s * 1000)),
    )
    return grpc.aio.insecure_channel(address, options=options)
