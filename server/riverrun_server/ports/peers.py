"""Other brokers, as replication sees them: envelopes go out and come in, streams begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from riverrun_server.core.replication.messages import Envelope


class PeerEvents(Protocol):
    """Who is told what other brokers say. Called on the loop; nothing may be awaited."""

    def receive(self, envelope: Envelope) -> None:
        """Take an envelope."""
        ...

    def connected(self, broker: int) -> None:
        """Learn that a new stream leads to a broker, on which it can be followed."""
        ...

    def disconnected(self, broker: int) -> None:
        """Learn that the stream has ended on which a broker followed."""
        ...


class Links(Protocol):
    """The streams of replication to and from other brokers."""

    def follow(self, leaders: Mapping[int, str]) -> None:
        """Keep a stream to each of these brokers, by address, and to no others."""
        ...

    def send(self, envelope: Envelope) -> None:
        """Send messages to a broker; what cannot be sent is lost."""
        ...

    async def close(self) -> None:
        """End all streams."""
        ...
