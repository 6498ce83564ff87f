"""The network: streams in order that break, single calls whose replies get lost, links that are cut.

Within a stream nothing is reordered, doubled or left out: what TCP promises. Between streams there is
no order at all. A cut link holds what a stream carries; if the cut lasts, the stream breaks, and what
was on the way is lost on both sides, each of which learns of it in its own time.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Protocol

from tests.sim.cluster.world import Life, Process, World

Node = Hashable

CONNECT_TIMEOUT_S = 1.0
KEEPALIVE_S = 2.0


class Lost(enum.Enum):
    """What comes of a call that gets no answer: the request or the reply was lost, who knows."""

    LOST = "lost"


class Endpoint(Protocol):
    """A node as the network sees it."""

    process: Process

    def opened(self, stream: Stream) -> None:
        """Somebody has opened a stream to here."""

    def received(self, stream: Stream, payload: object) -> None:
        """Something has arrived."""

    def broken(self, stream: Stream) -> None:
        """The stream is gone, and whatever was on its way."""


class Stream:
    """Two directions of messages between two nodes, each in order, until it breaks."""

    __slots__ = ("_network", "acceptor", "due_s", "is_open", "number", "opener", "queues", "stuck")

    def __init__(self, network: Network, number: int, opener: Node, acceptor: Node) -> None:
        self._network = network
        self.number = number
        self.opener = opener
        self.acceptor = acceptor
        self.is_open = True
        self.queues: dict[Node, deque[object]] = {opener: deque(), acceptor: deque()}
        self.due_s: dict[Node, float] = {opener: 0.0, acceptor: 0.0}
        self.stuck: set[Node] = set()

    def peer(self, node: Node) -> Node:
        """Return the other end."""
        return self.acceptor if node == self.opener else self.opener

    def send(self, sender: Node, payload: object) -> None:
        """Send to the other end; on a broken stream it goes nowhere."""
        self._network.send(self, sender, payload)

    def close(self) -> None:
        """Break it; both ends are told."""
        self._network.break_stream(self)


class Network:
    """Everything between nodes.

    Args:
        world: time and dice.
        delay_s: the usual way takes up to so long.
    """

    def __init__(self, world: World, delay_s: float = 0.002) -> None:
        self._world = world
        self._dice = world.dice("network")
        self._endpoints: dict[Node, Endpoint] = {}
        self._streams: dict[int, Stream] = {}
        self._number = 0
        self._cut: Counter[tuple[Node, Node]] = Counter()
        self.delay_s = delay_s
        self.slow: dict[tuple[Node, Node], float] = {}
        self.lose_replies: dict[Node, float] = {}
        # Nodes whose machines are down: nothing comes back from them, not even a refusal.
        self.silent: set[Node] = set()
        self.bitten: Counter[str] = Counter()

    # What goes wrong, on demand. Cuts are counted, so two that overlap end when both have.

    def cut(self, sender: Node, receiver: Node) -> None:
        """Let nothing through in one direction."""
        self._cut[sender, receiver] += 1

    def mend(self, sender: Node, receiver: Node) -> None:
        """Take one cut back; what was held goes on its way."""
        assert self._cut[sender, receiver] > 0, (sender, receiver)
        self._cut[sender, receiver] -= 1
        for stream in list(self._streams.values()):
            if {sender, receiver} == {stream.opener, stream.acceptor}:
                for _ in stream.queues[receiver]:
                    self._arm(stream, receiver)

    def is_cut(self, sender: Node, receiver: Node) -> bool:
        """Return whether a direction lets nothing through."""
        return self._cut[sender, receiver] > 0

    def break_stream(self, stream: Stream) -> None:
        """Lose everything that is on its way and tell both ends, each after a while of its own."""
        if not stream.is_open:
            return
        stream.is_open = False
        del self._streams[stream.number]
        self.bitten["messages lost with a stream"] += sum(map(len, stream.queues.values()))
        for node, queue in stream.queues.items():
            queue.clear()
            self._tell_broken(stream, node)

    def break_streams(self, one: Node, other: Node) -> int:
        """Break every stream between two nodes; return how many there were."""
        found = [
            stream
            for stream in self._streams.values()
            if {one, other} == {stream.opener, stream.acceptor}
        ]
        for stream in found:
            self.break_stream(stream)
        return len(found)

    def vanish(self, node: Node) -> None:
        """Break every stream of a node whose process has ended."""
        for stream in list(self._streams.values()):
            if node in (stream.opener, stream.acceptor):
                self.break_stream(stream)

    # What nodes do.

    def attach(self, node: Node, endpoint: Endpoint) -> None:
        """Let a process be reached as a node, in place of the one before."""
        self.silent.discard(node)
        self._endpoints[node] = endpoint

    def open(
        self, opener: Node, acceptor: Node, done: Callable[[Stream | Lost | None], None]
    ) -> None:
        """Open a stream; `done` gets it, None where it is refused, Lost where no answer comes."""
        world, process = self._world, self._endpoints[opener].process

        def arrive() -> None:
            # A paused process still accepts: its kernel does.
            endpoint = self._endpoints.get(acceptor)
            alive = endpoint is not None and endpoint.process.life is not Life.ENDED
            is_cut = self.is_cut(opener, acceptor) or self.is_cut(acceptor, opener)
            if is_cut or acceptor in self.silent:
                self.bitten["connections refused by a cut"] += is_cut
                world.after(CONNECT_TIMEOUT_S, done, Lost.LOST, process=process)
                return
            if not alive:
                world.after(self._delay(acceptor, opener), done, None, process=process)
                return
            self._number += 1
            stream = self._streams[self._number] = Stream(self, self._number, opener, acceptor)
            known_s = self._delay(acceptor, opener)
            # Nothing arrives on it before its opener knows of it.
            stream.due_s[opener] = world.now_s + known_s + 1e-9
            world.after(known_s, done, stream, process=process)
            world.after(0.0, endpoint.opened, stream, process=endpoint.process)
            if process.life is Life.ENDED:
                self.break_stream(stream)

        world.after(self._delay(opener, acceptor), arrive)

    def send(self, stream: Stream, sender: Node, payload: object) -> None:
        """Put a message on its way."""
        if not stream.is_open:
            return
        receiver = stream.peer(sender)
        stream.queues[receiver].append(payload)
        self._arm(stream, receiver)

    def call(
        self,
        caller: Node,
        callee: Node,
        handle: Callable[[], object],
        done: Callable[[object], None],
        timeout_s: float,
    ) -> None:
        """Ask a node for something once; `done` gets the answer, or `Lost.LOST` after a time.

        A request that arrives late is handled all the same, as on a real network.
        """
        world, process = self._world, self._endpoints[caller].process
        answered = False

        def answer(reply: object) -> None:
            nonlocal answered
            if not answered:
                answered = True
                done(reply)

        def arrive() -> None:
            if self.is_cut(caller, callee):
                self.bitten["requests lost"] += 1
                return
            reply = handle()
            lost = self.is_cut(callee, caller)
            if not lost and self._dice.random() < self.lose_replies.get(callee, 0.0):
                lost = True
                self.bitten["replies lost"] += 1
            if not lost:
                world.after(self._delay(callee, caller), answer, reply, process=process)

        callee_end = self._endpoints.get(callee)
        if callee_end is not None and callee_end.process.life is not Life.ENDED:
            world.after(self._delay(caller, callee), arrive, process=callee_end.process)
        world.after(timeout_s, answer, Lost.LOST, process=process)

    def _delay(self, sender: Node, receiver: Node) -> float:
        usual = self._dice.uniform(0.0002, self.delay_s)
        extra = self.slow.get((sender, receiver))
        if extra:
            self.bitten["messages slowed"] += 1
            usual += self._dice.uniform(0.0, extra)
        return usual

    def _arm(self, stream: Stream, receiver: Node) -> None:
        """Let one more message arrive; whichever event comes first takes the oldest one."""
        world = self._world
        usual_s = world.now_s + self._delay(stream.peer(receiver), receiver)
        stream.due_s[receiver] = due_s = max(stream.due_s[receiver], usual_s)
        endpoint = self._endpoints[receiver]
        world.after(
            due_s - world.now_s, self._arrive, stream, receiver, endpoint, process=endpoint.process
        )

    def _arrive(self, stream: Stream, receiver: Node, endpoint: Endpoint) -> None:
        if not stream.is_open or not stream.queues[receiver]:
            return
        if self.is_cut(stream.peer(receiver), receiver):
            self.bitten["messages held"] += 1
            if receiver not in stream.stuck:
                stream.stuck.add(receiver)
                patience_s = self._dice.uniform(0.5, 2.0) * KEEPALIVE_S
                self._world.after(patience_s, self._give_up_on, stream, receiver)
            return
        endpoint.received(stream, stream.queues[receiver].popleft())

    def _give_up_on(self, stream: Stream, receiver: Node) -> None:
        """Break a stream whose messages have been held for as long as keepalives take."""
        stream.stuck.discard(receiver)
        if stream.is_open and self.is_cut(stream.peer(receiver), receiver):
            self.break_stream(stream)

    def _tell_broken(self, stream: Stream, node: Node) -> None:
        endpoint = self._endpoints[node]
        self._world.after(
            self._dice.uniform(0.0, 0.05), endpoint.broken, stream, process=endpoint.process
        )
