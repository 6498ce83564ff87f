"""Drives one producer: an outlet for each broker that its batches go to, and what they share.

In a cluster of one broker there is one outlet, for whichever broker answers. Else each partition's
batches go to its leader, and through any other broker where that cannot be reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set

from riverrun._core.attempts import Attempts
from riverrun._core.backoff import Backoff
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.cluster import Cluster
from riverrun._net.produce_outlet import ProduceOutlet
from riverrun._net.produce_stream import Machine, StreamSettings
from riverrun.errors import FatalError, NoBrokerError, Reason, RiverrunError
from riverrun.v1 import producer_pb2 as pb

# So long a broker that no longer leads may take to answer what it was sent: its answers save sending
# that again. One that hangs answers nothing, and is not waited for.
_LAST_ANSWERS_S = 0.5


class ProduceLoop:
    """Drives one producer's machine. Transitions: running -> closed, or failed.

    Owns the tasks of its outlets; they end with `run`.

    Args:
        cluster: finds brokers, and tells who leads.
        machine: what to send, and where answers go.
        uniform: returns a random number in [0, 1), for delays.
        acks: when an append is answered.
        codec: how batches are compressed.
        idempotent: whether to ask for a producer id.
        delivery_timeout_s: how long a batch may take in all.
        deliver: called after the machine may have resolved something.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        uniform: Callable[[], float],
        *,
        acks: str,
        codec: int,
        idempotent: bool,
        delivery_timeout_s: float,
        deliver: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._machine = machine
        self._uniform = uniform
        self._acks = acks
        self._codec = codec
        self._idempotent = idempotent
        self._delivery_timeout_s = delivery_timeout_s
        self._deliver = deliver
        self._outlets: dict[int, ProduceOutlet] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        self._asking_id = asyncio.Lock()
        self._producer_id: int | None = None
        self._closing = False
        self._expiry: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        cluster.listen(self._rerouted)

    @property
    def is_open(self) -> bool:
        """Whether there is a stream just now."""
        return any(outlet.stream is not None for outlet in self._outlets.values())

    def wake(self, partition: TopicPartition) -> None:
        """Say that there may be something to send to a partition, or something new to give up."""
        self._wake_outlet(self._machine.where(partition))
        if self._expiry is None and not self._closing:
            self._arm()

    def wake_all(self) -> None:
        """Say so of every partition."""
        for broker_id in self._machine.brokers():
            if not self._machine.idle_at(broker_id):
                self._wake_outlet(broker_id)
        if self._expiry is None and not self._closing:
            self._arm()

    def rearm(self) -> None:
        """Say that the machine was given something that gives up earlier than what it had."""
        if self._expiry is not None and not self._closing:
            self._expiry.cancel()
            self._arm()

    def close(self) -> None:
        """End once what has been sent is answered; call it when the machine is idle."""
        self._closing = True
        self._cluster.ignore(self._rerouted)
        for timer in (self._expiry, self._leaving):
            if timer is not None:
                timer.cancel()
        for outlet in self._outlets.values():
            outlet.close()
        self._ended.set()

    async def run(self) -> None:
        """Run until closed.

        Raises:
            RiverrunError: the broker refuses what no retry can change.
        """
        try:
            while not self._closing or self._tasks:
                self._ended.clear()
                for broker_id in [b for b, task in self._tasks.items() if task.done()]:
                    self._tasks.pop(broker_id).result()
                if self._tasks or not self._closing:
                    await self._ended.wait()
        finally:
            await self.end()

    async def end(self) -> None:
        """End the outlets, whatever they are doing; also those of a `run` that never began."""
        self.close()
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _wake_outlet(self, broker_id: int) -> None:
        outlet = self._outlets.get(broker_id)
        if outlet is None:
            outlet = self._new_outlet(broker_id)
        outlet.wake.set()

    def _new_outlet(self, broker_id: int) -> ProduceOutlet:
        outlet = self._outlets[broker_id] = ProduceOutlet(
            broker_id,
            self._cluster,
            self._machine,
            Backoff(self._uniform),
            settings=self._settings,
            deliver=self._delivered,
        )
        if not self._closing:
            task = asyncio.create_task(outlet.run(), name="riverrun producer: a broker")
            task.add_done_callback(lambda _: self._ended.set())
            self._tasks[broker_id] = task
        return outlet

    # Who leads has changed.

    def _rerouted(self, partitions: Set[TopicPartition]) -> None:
        """Send elsewhere what is led elsewhere by now."""
        now_s = asyncio.get_running_loop().time()
        self._reached(self._machine.reroute(partitions, now_s))
        if self._machine.leaving and self._leaving is None:
            self._wait_for_last_answers()

    def _delivered(self) -> None:
        """See to what the machine has resolved, and to partitions whose last answers have come."""
        self._deliver()
        if self._machine.leaving:
            self._reached(self._machine.moved(asyncio.get_running_loop().time()))

    def _reached(self, brokers: Iterable[int]) -> None:
        """Wake who has got something to send; let go of whom nothing goes to any more."""
        for broker_id in brokers:
            if not self._machine.idle_at(broker_id):
                self._wake_outlet(broker_id)
        for broker_id, outlet in self._outlets.items():
            if outlet.stream is not None and not self._machine.used(broker_id):
                outlet.let_go()

    def _wait_for_last_answers(self) -> None:
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(_LAST_ANSWERS_S, self._give_up_answers)

    def _give_up_answers(self) -> None:
        self._leaving = None
        loop = asyncio.get_running_loop()
        self._machine.give_up_answers(loop.time() - _LAST_ANSWERS_S)
        self._delivered()
        if self._machine.leaving and not self._closing:
            self._wait_for_last_answers()

    # What streams have in common.

    async def _settings(self, connection: Connection) -> StreamSettings:
        """Get a producer id once, and stay within what the broker allows."""
        async with self._asking_id:
            if self._producer_id is None:
                self._producer_id = await self._init_producer() if self._idempotent else 0
        limit = connection.info.limits.max_produce_timeout
        limit_s = limit.seconds + limit.nanos / 1e9 or self._delivery_timeout_s
        timeout_s = min(self._delivery_timeout_s, limit_s)
        return StreamSettings(self._acks, timeout_s, self._codec, self._producer_id)

    async def _init_producer(self) -> int:
        request = pb.InitProducerRequest()
        response = await self._cluster.connections.call(
            lambda connection, timeout_s: connection.producer.InitProducer(
                request, timeout=timeout_s
            ),
            "get a producer id",
            # An id that nobody hears of is one fewer of many, and nothing else.
            attempts=Attempts(changes=False),
        )
        if response.producer_id <= 0:
            raise FatalError(
                f"the broker handed out producer id {response.producer_id}; ids start at 1",
                reason=Reason.PROTOCOL_BROKEN,
            )
        return response.producer_id

    def _arm(self) -> None:
        """Set the timer that gives up what is late."""
        deadline_s = self._machine.next_deadline_s()
        self._expiry = None
        if deadline_s is not None:
            self._expiry = asyncio.get_running_loop().call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        why = f"{self._delivery_timeout_s:g} s have passed (delivery_timeout_s)"
        last, nobody = self._trouble(), self._cluster.connections.trouble
        # That nobody answers is told as it is now.
        if last is not None and not (nobody and isinstance(last, NoBrokerError)):
            why += f"; the last trouble was: {last.message}"
        if nobody:
            why += f"; {nobody}"
        self._machine.expire(asyncio.get_running_loop().time(), why)
        self._delivered()
        self.wake_all()
        self._arm()

    def _trouble(self) -> RiverrunError | None:
        """Return what the newest stream that has answered nothing, or is none, broke of."""
        found: RiverrunError | None = None
        for broker_id, outlet in self._outlets.items():
            # Once a stream has answered, what was wrong with the ones before it explains nothing.
            answered = outlet.stream is not None and outlet.stream.answers
            if outlet.trouble is not None and not answered and not self._machine.idle_at(broker_id):
                found = outlet.trouble
        return found
