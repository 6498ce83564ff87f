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


class Findings(Protocol):
    """Who is told what the streams to other brokers find."""

    def refuses(self, broker: int, epoch: int) -> None:
        """Learn that a process that had taken a connection refuses them now."""
        ...

    def answers(self, broker: int) -> None:
        """Learn that a broker has taken a connection."""
        ...


class ControlEvents(Protocol):
    """Who judges other brokers by what witnesses say."""

    def refuses(self, witness: int, broker: int, epoch: int) -> None:
        """Take a report that a broker's process refuses connections."""
        ...

    def answers(self, witness: int, broker: int) -> None:
        """Take a report that a broker is reached again."""
        ...


class ControlCalls(Protocol):
    """Calls to the broker that controls the cluster; they may be lost."""

    def refuses(self, controller: int, broker: int, epoch: int) -> None:
        """Tell it that a process of another broker refuses connections."""
        ...

    def answers(self, controller: int, broker: int) -> None:
        """Tell it that another broker takes connections."""
        ...
