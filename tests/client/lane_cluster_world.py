"""Outlets and partitions in one seeded world of several brokers: leaders move, streams hang and break.

What an old leader, or a broken stream, still has on the wire arrives later, and is refused or, where
that broker leads again by then, looked at.
"""

from __future__ import annotations

from riverrun._core.dispatch import StreamLimits
from riverrun._core.leader_map import ANY
from riverrun._core.outlets import Outlets
from riverrun._core.records import TopicPartition
from riverrun._net.failures import from_proto
from tests.client.fake_log import FakeRefusal, RefusingLane
from tests.client.lane_world import WINDOW, Request, Stream, World, wire_request

BROKERS = [1, 2, 3]


class ClusterWorld(World):
    """The same world, where each partition has a leader; broker ANY passes on to it.

    Attributes:
        leaders: who leads each partition.
        known: who leads each, as the client believes.
    """

    def __init__(self, seed: int, *, idempotent: bool) -> None:
        super().__init__(seed, idempotent=idempotent)
        self.leaders = {place: self.rng.choice(BROKERS) for place in self.partitions}
        self.known = dict(self.leaders)
        self.dispatcher = Outlets(self._lane, lambda place: self.known[place])
        self.streams: dict[int, Stream] = {}

    # What may happen.

    def step(self) -> None:
        if self.rng.random() < 0.05:
            self.rng.choice([self.elect, self.learn, self.learn, self.hide, self.grow_impatient])()
        else:
            super().step()

    def elect(self) -> None:
        """Let somebody else lead; nobody has told the client."""
        self.leaders[self.rng.choice([*self.partitions])] = self.rng.choice(BROKERS)

    def learn(self) -> None:
        """Tell the client who leads."""
        place = self.rng.choice([*self.partitions])
        self._reroute(place, self.leaders[place])

    def hide(self) -> None:
        """Let the client find that it cannot reach a leader."""
        self._reroute(self.rng.choice([*self.partitions]), ANY)

    def grow_impatient(self) -> None:
        """Wait no longer for the last answers of brokers that were left."""
        for broker_id, stream in self.streams.items():
            waiting = [place for place in self.partitions if self._is_leaving(place, broker_id)]
            # It hangs: what it would answer is lost, what it was sent arrives some time.
            for request in [r for r in stream.requests if r.partition in waiting]:
                stream.requests.remove(request)
                self.ghosts.append((stream, request))
        self.deliver(self.dispatcher.give_up_answers(self.now))
        self.dispatcher.settle(self.now)

    def _is_leaving(self, place: TopicPartition, broker_id: int) -> bool:
        lane = self.dispatcher.lane(place)
        at = self.dispatcher.where(place)
        return lane.leaving and lane.idempotent and at == broker_id and bool(lane.unanswered)

    def _reroute(self, place: TopicPartition, to: int) -> None:
        self.known[place] = to
        self.dispatcher.reroute([place], self.now)

    def connect(self) -> None:
        for broker_id in (ANY, *BROKERS):
            if broker_id not in self.streams:
                self.streams[broker_id] = Stream()
                self.dispatcher.outlet(broker_id).stream_started(StreamLimits(WINDOW, 1 << 20))

    def send(self) -> None:
        if not self.streams:
            return
        broker_id = self.rng.choice([*self.streams])
        outlet = self.dispatcher.outlet(broker_id)
        outlet.release_held(self.now)
        append = outlet.next(self.now)
        if append is None:
            if outlet.spent:
                self._lose(broker_id, len(self.streams[broker_id].requests))
            return
        self.streams[broker_id].requests.append(wire_request(append, idempotent=self.idempotent))

    def serve(self) -> None:
        busy = [(b, s) for b, s in self.streams.items() if s.requests]
        if busy:
            broker_id, stream = self.rng.choice(busy)
            stream.broker_id = broker_id
            self.process(stream, stream.requests.popleft())

    def process(self, stream: Stream, request: Request) -> None:
        if stream.broker_id in (ANY, self.leaders[request.partition]):
            super().process(stream, request)
            return
        lane = stream.lanes.setdefault(request.partition, RefusingLane())
        refusal = FakeRefusal("NOT_LEADER", retry_safe=True)
        try:
            lane.check(request.batch, request.attempt)
            lane.failed(request.batch, request.attempt)
        except FakeRefusal as preceding:
            refusal = preceding
        stream.answers.append((request.tag, None, from_proto(refusal.proto)))

    def hear(self) -> None:
        talking = [(b, s) for b, s in self.streams.items() if s.answers]
        if not talking:
            return
        broker_id, stream = self.rng.choice(talking)
        tag, offset, error = stream.answers.popleft()
        waiting = self.dispatcher.outlet(broker_id)
        self.deliver(waiting.answered(tag, offset, error, self.now))
        if error is not None and error.reason == "NOT_LEADER" and self.rng.random() < 0.7:
            for place in self.partitions:
                if self.dispatcher.where(place) == broker_id:
                    self._reroute(place, self.leaders[place])
        self.dispatcher.settle(self.now)

    def lose_stream(self) -> None:
        if self.streams:
            broker_id = self.rng.choice([*self.streams])
            self._lose(broker_id, self.rng.randrange(len(self.streams[broker_id].requests) + 1))

    def _lose(self, broker_id: int, kept: int) -> None:
        stream = self.streams.pop(broker_id)
        stream.broker_id = broker_id
        self.ghosts += [(stream, request) for request in list(stream.requests)[:kept]]
        self.deliver(self.dispatcher.outlet(broker_id).stream_lost())
        self.dispatcher.settle(self.now)

    def expire(self) -> None:
        super().expire()
        self.dispatcher.settle(self.now)

    # The end.

    def settle(self) -> None:
        """End all trouble; the client hears who leads, and everything must be resolved soon."""
        for place in self.partitions:
            self._reroute(place, self.leaders[place])
        super().settle()

    def forget(self) -> None:
        """Partitions never forget here: that is looked at where there is one broker."""
