"""A broker's streams to other brokers: one to each leader that it follows, one from each follower."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from riverrun_server.core.replication.messages import (
    Acked,
    Diverged,
    Envelope,
    Follow,
    Message,
    Push,
    Restart,
)
from tests.sim.cluster.network import Lost, Network, Stream
from tests.sim.cluster.world import Process, World

RECONNECT_S = 0.2


class Listener(Protocol):
    """What is told of streams."""

    def connected(self, broker: int) -> None:
        """A stream to a leader is open."""

    def disconnected(self, broker: int) -> None:
        """The stream of a follower is gone."""

    def refused(self, broker: int) -> None:
        """A leader's port refuses connections."""

    def leads(self, message: Message) -> bool:
        """Whether a message is one that a leader sends."""
        ...


class Peers:
    """The streams of one process.

    What a follower says goes on the stream that it opened, what a leader says on the one that its
    follower opened. Without a stream it goes nowhere, as on a network that lost it.
    """

    def __init__(
        self, world: World, network: Network, process: Process, broker: int, listener: Listener
    ) -> None:
        self._world, self._network, self._process = world, network, process
        self._broker = broker
        self._listener = listener
        self._dice = world.dice(f"peers {process.name}")
        self._leaders: dict[int, Stream] = {}
        self._followers: dict[int, Stream] = {}
        self._wanted: Set[int] = frozenset()
        self._connecting: set[int] = set()

    def follow(self, leaders: Set[int]) -> None:
        """Have a stream to each of these brokers, from now on and as far as that is possible."""
        self._wanted = leaders
        for broker in sorted(leaders - set(self._leaders) - self._connecting):
            self._connect(broker)

    def send(self, envelope: Envelope) -> None:
        """Send each message on the stream that it belongs to."""
        follows: list[Message] = []
        leads: list[Message] = []
        for message in envelope.messages:
            if isinstance(message, Follow | Acked):
                follows.append(message)
            elif isinstance(message, Push | Diverged | Restart) or self._listener.leads(message):
                leads.append(message)
            elif envelope.to in self._leaders:
                follows.append(message)
            else:
                leads.append(message)
        for messages, streams in ((follows, self._leaders), (leads, self._followers)):
            stream = streams.get(envelope.to)
            if messages and stream is not None:
                part = Envelope(
                    envelope.sender, envelope.sender_epoch, envelope.to, tuple(messages)
                )
                stream.send(self._broker, part)

    def opened(self, stream: Stream) -> None:
        """A follower has opened a stream, which ends an earlier one and takes its place."""
        if not isinstance(stream.opener, int):
            return
        older = self._followers.get(stream.opener)
        self._followers[stream.opener] = stream
        if older is not None:
            # It may be the newer one: that of an ended process came late. Then its opener comes again.
            older.close()
            self._listener.disconnected(stream.opener)

    def broken(self, stream: Stream) -> None:
        """A stream is gone; one that another has replaced is not missed."""
        peer = stream.peer(self._broker)
        if not isinstance(peer, int):
            return
        if self._leaders.get(peer) is stream:
            del self._leaders[peer]
            self._later(peer)
        elif self._followers.get(peer) is stream:
            del self._followers[peer]
            self._listener.disconnected(peer)

    def _connect(self, broker: int) -> None:
        self._connecting.add(broker)

        def done(stream: Stream | Lost | None) -> None:
            self._connecting.discard(broker)
            if not isinstance(stream, Stream) or not stream.is_open:
                if stream is None:
                    self._listener.refused(broker)
                self._later(broker)
                return
            self._leaders[broker] = stream
            self._listener.connected(broker)

        self._network.open(self._broker, broker, done)

    def _later(self, broker: int) -> None:
        if broker in self._connecting:
            return
        self._connecting.add(broker)

        def again() -> None:
            self._connecting.discard(broker)
            if broker in self._wanted and broker not in self._leaders:
                self._connect(broker)

        delay_s = self._dice.uniform(0.2, 1.0) * RECONNECT_S
        self._world.after(delay_s, again, process=self._process)
