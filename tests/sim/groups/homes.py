"""Replicated partitions of the offsets topic: elected leaders, appends on their way, tails that are cut off."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.ports.leadership import Leadership
from riverrun_server.ports.partitions import Append, Appended
from tests.rpc.fake_partitions import FakePartition
from tests.sim.groups.processes import Process
from tests.sim.groups.world import World


class Replica(FakePartition):
    """One process's replica of a home, in one leadership; implements ports.partitions.PartitionAccess.

    Transitions: elected -> leading (`begin`) -> deposed: another one was elected -> over, once it learns of it
    (`learn`). Its process may end at any time.
    """

    def __init__(self, world: World, home: Home, process: Process, epoch: int) -> None:
        super().__init__("__consumer_offsets", home.id)
        self.commits_at_once = False
        self.leader_epoch = epoch
        self.process = process
        self.deposed = self.is_over = self.is_ready = False
        self.scarce_until = -1.0
        self._world = world
        self._home = home
        self._dice = world.dice(f"replica {process} {home.id.partition} {epoch}")
        self._pending: deque[tuple[StoredBatch, Append | None]] = deque()

    # What happens to it.

    def inherit(self, batches: list[StoredBatch], log_start: int, committed: int) -> None:
        """Take over the log of the leader before, of which so much is committed for certain."""
        self.batches = batches
        self.log_start_offset = log_start
        self.high_watermark = committed
        self.log_end_offset = batches[-1].next_offset if batches else committed
        self._pending.extend((each, None) for each in batches if each.next_offset > committed)

    def begin(self) -> None:
        """Lead; what was inherited is committed after a moment."""
        if self.is_over:
            return
        for _ in self._pending:
            self._commit_later()
        self.process.after(self._dice.uniform(0, 0.05), self._now_ready)

    def learn(self) -> None:
        """Learn that another one leads: nobody knows what becomes of what is on its way."""
        if self.is_over:
            return
        self.is_over = True
        pending, self._pending = self._pending, deque()
        for _, append in pending:
            if append is not None:
                self._refuse(
                    append,
                    Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                    "written, and another one leads",
                )

    @property
    def tail(self) -> list[StoredBatch]:
        """What is appended and not committed."""
        return [batch for batch, _ in self._pending]

    # ports.partitions.PartitionAccess

    def submit(self, append: Append) -> None:
        if self.is_over:
            self._refuse(append, Reason.NOT_LEADER, "another one leads")
        elif self._world.loop.time() < self.scarce_until:
            self._refuse(append, Reason.NOT_ENOUGH_REPLICAS, "nothing was written")
        elif append.expected_offset not in (None, self.log_end_offset):
            self._world.counts["append that does not fit"] += 1
            self._refuse(
                append,
                Reason.EXPECTED_OFFSET_MISMATCH,
                f"the log ends at {self.log_end_offset}, expected {append.expected_offset}",
            )
        else:
            self.store(append.batch)
            self._pending.append((self.batches[-1], append))
            self._commit_later()

    async def watermarks(self) -> Any:
        if self.is_over:
            raise Refusal(Reason.NOT_LEADER, f"another broker leads {self.id}")
        if self.deposed or not self.is_ready or self._home.is_cut_off(self.process):
            raise Refusal(Reason.OFFSET_NOT_AVAILABLE, "nobody confirms that this broker leads")
        return await super().watermarks()

    async def trim(self, before_offset: int) -> int:
        await asyncio.sleep(self._delay_s())
        if self.is_over or self.deposed or self._home.is_cut_off(self.process):
            raise Refusal(Reason.PARTITION_OFFLINE, "nobody confirms that this broker leads")
        self._world.counts["log trimmed"] += 1
        start = await super().trim(before_offset)
        self._home.trimmed(start)
        return start

    # Inside.

    def _commit_later(self) -> None:
        self.process.after(self._delay_s(), self._commit)

    def _commit(self) -> None:
        """Commit the oldest; once deposed nothing is committed any more."""
        if self.deposed or self.is_over or not self._pending:
            return
        if self._home.is_cut_off(self.process) or not self.is_ready:
            self.process.after(0.1, self._commit)
            return
        batch, append = self._pending.popleft()
        self._home.committed(batch)
        self.high_watermark = batch.next_offset
        self.wake_all()
        if append is not None:
            count = batch.next_offset - batch.base_offset
            append.done(Appended(batch.base_offset, count, self.log_start_offset))

    def _now_ready(self) -> None:
        self.is_ready = True

    def _refuse(self, append: Append, reason: Reason, text: str) -> None:
        count = append.batch.header.record_count
        append.done(Appended(None, count, error=Refusal(reason, text)))

    def _delay_s(self) -> float:
        """Return how long the replicas take; now and then much longer."""
        usual = self._world.options.append_s
        return self._dice.uniform(usual / 2, usual * (10 if self._dice.random() < 0.03 else 2))


class Home:
    """One partition of the offsets topic, with whatever is committed in it.

    Args:
        world: of the seed.
        number: of the partition.
        cluster: knows who reaches whom, and is told what is committed.
    """

    def __init__(self, world: World, number: int, cluster: Any) -> None:
        self.id = PartitionId(b"__offsets_topic_", number)
        self.leader: Replica | None = None
        self.leader_id = -1
        self.elected_at = 0.0
        self.batches: list[StoredBatch] = []
        self.log_start = 0
        self._epoch = 0
        self._world = world
        self._cluster = cluster
        self._dice = world.dice(f"home {number}")

    @property
    def end(self) -> int:
        """Where what is committed ends."""
        return self.batches[-1].next_offset if self.batches else self.log_start

    def elect(self, broker: Any) -> None:
        """Have a process lead; of what the one before had on its way, some is kept."""
        old = self.leader
        batches, kept = list(self.batches), 0
        if old is not None:
            old.deposed = True
            tail = old.tail
            kept = self._dice.randint(0, len(tail))
            if tail:
                self._world.counts["tail kept" if kept else "tail cut off"] += 1
            batches += tail[:kept]
        self._epoch += 1
        self.elected_at = self._world.loop.time()
        new = Replica(self._world, self, broker.process, self._epoch)
        new.inherit(batches, self.log_start, self.end)
        self.leader, self.leader_id = new, broker.broker_id
        self._world.note(
            f"home {self.id.partition}", "elected", broker.process, self._epoch, "kept", kept
        )
        for each in self._cluster.brokers.values():
            if not each.process.has_ended:
                each.learns(self, self._leadership(each, new), old)

    def tell(self, broker: Any) -> None:
        """Tell a process that has just begun who leads."""
        if self.leader is not None:
            broker.learns(self, self._leadership(broker, self.leader), None)

    def committed(self, batch: StoredBatch) -> None:
        """Keep a batch for good."""
        assert batch.base_offset == self.end or not self.batches, (batch.base_offset, self.end)
        self.batches.append(batch)
        self._cluster.checker.committed(self, batch)

    def trimmed(self, start: int) -> None:
        """Forget what lies before an offset."""
        self.log_start = max(self.log_start, start)
        self.batches = [each for each in self.batches if each.next_offset > self.log_start]

    def is_cut_off(self, process: Process) -> bool:
        """Return whether a process reaches no other replica."""
        return self._cluster.is_cut_off(process)

    def _leadership(self, broker: Any, leader: Replica) -> Leadership:
        here = leader if leader.process is broker.process else None
        return Leadership(self.leader_id, leader.leader_epoch, here)
