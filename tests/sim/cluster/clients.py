"""Simulated clients: producers that retry without doubling, producers that try once, and consumers.

A producer keeps the order of its batches by sequences: on any trouble it goes back to the oldest
batch without an answer and sends everything from there again, in the same batches. What it is told
goes into the history, and nothing else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from riverrun_server.core.errors import MEANINGS, Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.history import Delivery, History, Outcome, Send
from tests.sim.cluster.network import Lost, Network, Node, Stream
from tests.sim.cluster.requests import Fetched, Produce, Produced
from tests.sim.cluster.world import Process, World

REQUEST_TIMEOUT_S = 3.0
LOOKUP_TIMEOUT_S = 0.5
BACKOFF_S = 0.1

# Nothing was appended and nothing will be: for these a producer that tries once has failed.
_FATAL = {Reason.UNKNOWN_PRODUCER, Reason.PRODUCER_FENCED, Reason.INVALID_RECORD}


class Brokers(Protocol):
    """What clients ask of whichever broker they reach."""

    def ids(self) -> list[int]:
        """Return the brokers that a client may know of."""
        ...

    def leader(self, asked: int, partition: PartitionId) -> int | None:
        """Return who leads a partition, as a broker knows it."""
        ...

    def fetch(
        self, broker: int, partition: PartitionId, position: int, last_epoch: int | None
    ) -> Fetched:
        """Read from a broker."""
        ...

    def latest(self, broker: int, partition: PartitionId) -> int | None:
        """Ask a broker for the latest offset."""
        ...


class Producer:
    """Sends batches to one partition.

    Args:
        name: names the client and its values.
        partition: where to.
        producer_id: 0 for one that tries each batch once.
        window: so many batches may be without an answer.
        acks: what it asks for.
        conditional: it says where the log ends as far as it knows, and appends there or nowhere.
        give_up_s: after so long the oldest batch's outcome is given up as unknown.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        brokers: Brokers,
        history: History,
        name: str,
        partition: PartitionId,
        *,
        producer_id: int,
        window: int = 3,
        acks: Acks = Acks.ALL,
        conditional: bool = False,
        give_up_s: float = 20.0,
    ) -> None:
        self.process = Process(name)
        self.name = name
        self.acknowledged = 0
        self._world, self._network, self._brokers = world, network, brokers
        self._history = history
        self._dice = world.dice(name)
        self.partition = partition
        self._producer_id = producer_id
        self._producer_epoch = 0
        self._sequence = 0
        self._count = 0
        self._window = window if producer_id and not conditional else 1
        self._conditional = conditional
        self._log_end = 0
        self._acks = acks
        self._give_up_s = give_up_s
        self._waiting: deque[tuple[int, Send]] = deque()  # by tag, oldest first
        self._early: dict[int, Produced] = {}
        self._unsent = 0  # so many at the end of `_waiting` are not under way
        self._tag = 0
        self._stream: Stream | None = None
        self._is_connecting = False
        self._attempt = 0
        self.running = False
        network.attach(name, self)

    @property
    def idle(self) -> bool:
        """Whether everything that was sent has an outcome."""
        return not self._waiting

    def start(self, every_s: float) -> None:
        """Make batches, about one in `every_s`, until `stop`."""
        self.running = True
        self._make(every_s)

    def stop(self) -> None:
        """Make no more batches; those that wait go on being tried."""
        self.running = False

    def abandon(self) -> None:
        """Make nothing any more and wait for nothing: what it sends to is deleted."""
        self.running = False
        while self._waiting:
            self._finish(Outcome.UNKNOWN)
        self._unsent = 0
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _make(self, every_s: float) -> None:
        if not self.running:
            return
        if len(self._waiting) < 2 * self._window:
            count = self._dice.choice((1, 1, 2, 3))
            values = tuple(f"{self.name}-{self._count + n}".encode() for n in range(count))
            self._count += count
            batch = Batch(values, self._producer_id, self._producer_epoch, self._sequence)
            self._sequence += count
            send = Send(self.name, self.partition, batch, self._acks, self._world.now_s)
            self._history.sends.append(send)
            self._tag += 1
            self._waiting.append((self._tag, send))
            self._unsent += 1
            self._send()
        delay_s = self._dice.uniform(0.3, 1.7) * every_s
        self._world.after(delay_s, self._make, every_s, process=self.process)

    # Sending.

    def _send(self) -> None:
        if self._stream is None:
            self._connect()
            return
        while self._unsent and len(self._waiting) - self._unsent < self._window:
            tag, send = self._waiting[len(self._waiting) - self._unsent]
            self._unsent -= 1
            send.attempts += 1
            expected = self._log_end if self._conditional else None
            if expected is not None:
                send.expected.append(expected)
            request = Produce(tag, self.partition, send.batch, self._acks, expected)
            self._stream.send(self.name, request)
            self._watch(tag, self._stream)

    def _watch(self, tag: int, stream: Stream) -> None:
        def expire() -> None:
            if self._stream is stream and any(tag == each for each, _ in self._waiting):
                self._go_back()

        self._world.after(REQUEST_TIMEOUT_S, expire, process=self.process)

    def _connect(self) -> None:
        if self._is_connecting:
            return
        self._is_connecting = True
        asked = self._dice.choice(self._brokers.ids())

        def found(leader: object) -> None:
            if isinstance(leader, int):
                self._network.open(self.name, leader, opened)
            else:
                opened(None)

        def opened(stream: Stream | Lost | None) -> None:
            self._is_connecting = False
            if not isinstance(stream, Stream) or not stream.is_open:
                self._later()
                return
            self._stream = stream
            self._send()

        self._network.call(
            self.name,
            asked,
            lambda: self._brokers.leader(asked, self.partition),
            found,
            LOOKUP_TIMEOUT_S,
        )

    def _later(self) -> None:
        self._attempt += 1
        delay_s = self._dice.uniform(0.5, 1.0) * BACKOFF_S * min(8, self._attempt)
        self._world.after(delay_s, self._try_again, process=self.process)

    def _try_again(self) -> None:
        if self._waiting and self._world.now_s - self._waiting[0][1].sent_s > self._give_up_s:
            self._give_up()
        if self._waiting:
            self._send()

    def _go_back(self) -> None:
        """Begin again from the oldest batch without an answer, on another stream."""
        self._early.clear()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
        if not self._producer_id:
            # It tries once: what was under way may have been appended.
            under_way = len(self._waiting) - self._unsent
            for _ in range(under_way):
                self._finish(Outcome.UNKNOWN)
        self._unsent = len(self._waiting)
        self._later()

    def _give_up(self) -> None:
        """Nobody knows of what waits; begin a new epoch, so that nothing of it can come later."""
        while self._waiting:
            self._finish(Outcome.UNKNOWN)
        self._unsent = 0
        self._producer_epoch += 1
        self._sequence = 0

    def _finish(self, outcome: Outcome, base_offset: int | None = None) -> None:
        _, send = self._waiting.popleft()
        send.outcome, send.base_offset, send.done_s = outcome, base_offset, self._world.now_s

    # A node of the network.

    def opened(self, stream: Stream) -> None:
        raise AssertionError(stream)

    def broken(self, stream: Stream) -> None:
        if stream is self._stream:
            self._go_back()

    def received(self, stream: Stream, payload: object) -> None:
        assert isinstance(payload, Produced), payload
        if stream is not self._stream or not self._waiting:
            return
        self._log_end = payload.log_end or self._log_end
        if payload.reason is not None:
            self._refused(payload, payload.reason)
            return
        # A duplicate may be answered before that of the batch before it, which had to wait. Whoever serves
        # a stream puts answers in order (core.answer_order); here its client does.
        self._early[payload.tag] = payload
        while self._waiting and (found := self._early.pop(self._waiting[0][0], None)) is not None:
            self._attempt = 0
            self.acknowledged += 1
            if found.base_offset is not None:
                self._log_end = found.base_offset + len(self._waiting[0][1].batch.values)
            self._finish(Outcome.OK, found.base_offset)
        self._send()

    def _refused(self, payload: Produced, reason: Reason) -> None:
        tag, oldest = payload.tag, self._waiting[0][1].batch.base_sequence
        if self._producer_id:
            # What it has been told is there is gone: only one leader had promised it.
            is_behind = (payload.expected_sequence or oldest) < oldest
            if reason in _FATAL or (tag == self._waiting[0][0] and is_behind):
                self._give_up()
            self._go_back()
            return
        if tag == self._waiting[0][0]:
            definite = MEANINGS[reason].definite
            self._finish(Outcome.FAILED if definite else Outcome.UNKNOWN)
        self._go_back()


class Consumer:
    """Reads one partition from its beginning, for ever.

    Args:
        name: names the client.
        partition: of what.
        watch: told what a broker handed out, as it was handed out.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        brokers: Brokers,
        history: History,
        name: str,
        partition: PartitionId,
        watch: Callable[[int, PartitionId, tuple[tuple[int, bytes], ...]], None],
    ) -> None:
        self.process = Process(name)
        self.name = name
        self.partition = partition
        self.position = 0
        self.resets: list[tuple[Reason, int, int]] = []
        self._world, self._network, self._brokers = world, network, brokers
        self._history = history
        self._dice = world.dice(name)
        self._watch = watch
        self._last_epoch: int | None = None
        self._leader: int | None = None
        self._is_stopped = False
        network.attach(name, self)

    def start(self) -> None:
        """Begin to read."""
        self._next(0.0)

    def stop(self) -> None:
        """Read no more: what it reads is deleted."""
        self._is_stopped = True

    def _next(self, delay_s: float) -> None:
        self._world.after(delay_s, self._poll, process=self.process)

    def _poll(self) -> None:
        if self._is_stopped:
            return
        if self._leader is None:
            self._look_up()
            return
        leader, position, epoch = self._leader, self.position, self._last_epoch
        if self._dice.random() < 0.1:
            self._network.call(
                self.name,
                leader,
                lambda: self._brokers.latest(leader, self.partition),
                lambda answer: None,
                LOOKUP_TIMEOUT_S,
            )

        def handle() -> Fetched:
            fetched = self._brokers.fetch(leader, self.partition, position, epoch)
            if fetched.records:
                self._watch(leader, self.partition, fetched.records)
            return fetched

        self._network.call(self.name, leader, handle, self._fetched, LOOKUP_TIMEOUT_S)

    def _look_up(self) -> None:
        asked = self._dice.choice(self._brokers.ids())

        def found(leader: object) -> None:
            self._leader = leader if isinstance(leader, int) else None
            self._next(0.0 if self._leader is not None else self._dice.uniform(0.1, 0.4))

        self._network.call(
            self.name,
            asked,
            lambda: self._brokers.leader(asked, self.partition),
            found,
            LOOKUP_TIMEOUT_S,
        )

    def _fetched(self, answer: object) -> None:
        if answer is Lost.LOST:
            self._leader = None
            self._next(self._dice.uniform(0.05, 0.2))
            return
        assert isinstance(answer, Fetched), answer
        if answer.reason is not None:
            self._stopped(answer)
            return
        if answer.records:
            self._history.deliveries.append(
                Delivery(
                    self.name,
                    self.partition,
                    self._world.now_s,
                    self.position,
                    answer.next_offset,
                    answer.records,
                )
            )
            self.position, self._last_epoch = answer.next_offset, answer.last_epoch
        self._next(self._dice.uniform(0.05, 0.3))

    def _stopped(self, answer: Fetched) -> None:
        """Go where the log goes on, where it was cut or deleted; look for the leader else."""
        target = answer.diverging_offset
        if answer.log_start is not None and self.position < answer.log_start:
            target = answer.log_start
        if target is not None and answer.reason is not None:
            self.resets.append((answer.reason, self.position, target))
            self.position, self._last_epoch = target, None
        self._leader = None
        self._next(self._dice.uniform(0.1, 0.4))

    # A node of the network; it opens no streams.

    def opened(self, stream: Stream) -> None:
        raise AssertionError(stream)

    received = broken = opened


def names(nodes: list[Producer] | list[Consumer]) -> list[Node]:
    """Return the nodes of some clients."""
    return [each.name for each in nodes]
