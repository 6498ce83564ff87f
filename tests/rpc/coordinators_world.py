"""Brokers that elect each other to coordinate groups, in virtual time, each hearing of it when it does.

One replicated partition keeps the offsets. Its rules are those of real ones: a leader is deposed the
moment another is elected, whoever has heard of it or not, commits nothing from then on, and cannot
confirm that it still leads; what it had written and not committed survives in part or not at all. Calls
between brokers are late, and their streams break, before or after the call has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import OffsetsLimits
from riverrun_server.core.groups.search import InDoubt
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.leadership import Leadership
from riverrun_server.ports.partitions import Appended
from riverrun_server.runtime.coordination_peers import Peers
from riverrun_server.runtime.offsets import GroupOffsets, GroupOffsetsSettings
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from tests.metadata.fakes import SeededDice
from tests.rpc.fake_partitions import NOW_MS, FakeDirectory, FakePartition, InlineThreads

HOME = PartitionId(b"o" * 16, 0)
SETTINGS = GroupOffsetsSettings(
    partitions=1,
    log=OffsetsLogSettings(
        limits=OffsetsLimits(rewrite_records_min=15, rewrite_factor=2), batch_bytes=300
    ),
)


class Replica(FakePartition):
    """One broker's replica of the partition, as it is led here, or is believed to be."""

    def __init__(self, world, broker):
        super().__init__(OFFSETS_TOPIC, HOME)
        self.world = world
        self.broker = broker
        self.commits_at_once = False
        self.leads_in = None
        self.epoch_start = 0

    @property
    def is_deposed(self):
        return self.leads_in != self.world.epoch

    def begin(self, epoch):
        """Lead from what was committed on, and what survived of the rest."""
        world = self.world
        self.end()
        survivors = world.dice.randint(0, len(world.surplus))
        self.batches = [*world.batches, *world.surplus[:survivors]]
        self.log_start_offset = world.log_start
        known = world.batches[-1].next_offset if world.batches else world.log_start
        self.log_end_offset = self.batches[-1].next_offset if self.batches else known
        self.high_watermark = known if world.dice.random() < 0.5 else world.log_start
        self.leads_in = self.leader_epoch = epoch
        self.epoch_start = self.log_end_offset

    def end(self):
        """Lead no more: nobody knows of what was not answered."""
        self.leads_in = None
        waiting, self.waiting = self.waiting, []
        for _, append, _ in waiting:
            count = append.batch.header.record_count
            unknown = Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "the leadership is over")
            append.done(Appended(None, count, error=unknown))
        self.wake_all()

    def replicate(self):
        """Commit everything, if nobody else was elected."""
        if not self.is_deposed:
            self.world.batches, self.world.surplus = list(self.batches), []
            self.commit()

    def _check(self):
        if self.leads_in is None:
            raise Refusal(Reason.NOT_LEADER, "another broker leads")
        if self.is_deposed:
            raise Refusal(Reason.PARTITION_OFFLINE, "the lease is over, and nobody confirms")

    def check_readable(self, offset, leader_epoch):
        if self.leads_in is None:
            raise Refusal(Reason.NOT_LEADER, "another broker leads")
        super().check_readable(offset, leader_epoch)

    async def watermarks(self):
        self._check()
        if self.high_watermark < self.epoch_start:
            raise Refusal(Reason.OFFSET_NOT_AVAILABLE, "it is not known what is committed")
        return await super().watermarks()

    def submit(self, append):
        if self.leads_in is None:
            append.refuse(Refusal(Reason.NOT_LEADER, "another broker leads"))
            return
        super().submit(append)
        if not self.is_deposed:
            self.world.surplus = self.batches[len(self.world.batches) :]

    async def trim(self, before_offset):
        self._check()
        start = await super().trim(before_offset)
        self.world.log_start = start
        self.world.batches = [each for each in self.world.batches if each.next_offset > start]
        return start


class Hearsay:
    """Implements ports.leadership.Leaderships: what one broker has heard so far."""

    def __init__(self, replica):
        self.replica = replica
        self.heard = (1, 1)
        self.watchers = set()

    def of(self, partition):
        if partition != HOME:
            return Leadership(None, 0)
        leader, epoch = self.heard
        here = self.replica if leader == self.replica.broker else None
        return Leadership(leader, epoch, here)

    def watch(self, partition, changed):
        self.watchers.add(changed)
        return functools.partial(self.watchers.discard, changed)

    def hear(self, leader, epoch):
        if epoch > self.heard[1]:
            self.heard = (leader, epoch)
            for changed in list(self.watchers):
                changed()


class Stream:
    """What one broker asks another, in order; a new one begins whenever it breaks."""

    def __init__(self, world, to):
        self.world = world
        self.to = to
        self.arrives_at = 0.0
        self.asked = set()

    def ask(self, ask):
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        self.asked.add(answered)
        self.arrives_at = max(
            self.arrives_at + 1e-6, loop.time() + self.world.dice.uniform(0, 0.02)
        )
        loop.call_at(self.arrives_at, self._arrive, ask, answered)
        return answered

    def breaks(self):
        asked, self.asked = self.asked, set()
        for answered in asked:
            if not answered.done():
                answered.set_exception(InDoubt(Reason.REQUEST_TIMED_OUT, "the stream broke"))
                answered.exception()

    def _arrive(self, ask, answered):
        if answered not in self.asked:
            return  # a newer stream has ended this one
        try:
            carried_out = asyncio.ensure_future(ask(self.world.brokers[self.to].coordinator))
        except Refusal as refusal:
            carried_out = asyncio.get_running_loop().create_future()
            carried_out.set_exception(refusal)
        carried_out.add_done_callback(functools.partial(self._carried_out, answered))

    def _carried_out(self, answered, carried_out):
        delay_s = self.world.dice.uniform(0, 0.02)
        asyncio.get_running_loop().call_later(delay_s, self._answer, answered, carried_out)

    def _answer(self, answered, carried_out):
        if carried_out.cancelled() or carried_out.exception() is not None:
            error = None if carried_out.cancelled() else carried_out.exception()
            if not answered.done() and error is not None:
                answered.set_exception(error)
        elif not answered.done():
            answered.set_result(carried_out.result())
        self.asked.discard(answered)


class Links:
    """Implements ports.coordination.Coordinators."""

    def __init__(self, world):
        self.streams = {broker: Stream(world, broker) for broker in world.ids}

    def commit(self, home, group_id, records, origin, within_s):
        records, epoch = list(records), home.leader_epoch

        def ask(coordinator):
            return coordinator.commit(home.partition, group_id, records, epoch)

        return self.streams[home.leader].ask(ask)

    async def committed(self, home, group_id, origin, within_s, partitions=None):
        def ask(coordinator):
            return coordinator.committed(home.partition, group_id, home.leader_epoch)

        return await self.streams[home.leader].ask(ask)


class Coordinators:
    """Three brokers; the first one leads."""

    ids = (1, 2, 3)

    def __init__(self, dice, settings=SETTINGS):
        self.dice = dice
        self.batches, self.surplus, self.log_start, self.epoch, self.leader = [], [], 0, 0, 0
        self.elections = 0
        directory = FakeDirectory()
        directory.create("d", 4)
        for each in directory.topics["d"]:
            each.append(*[b"x"] * 10)
        directory.topics[OFFSETS_TOPIC] = [FakePartition(OFFSETS_TOPIC, HOME)]
        self.directory = directory
        self.replicas = {broker: Replica(self, broker) for broker in self.ids}
        self.hearsay = {broker: Hearsay(self.replicas[broker]) for broker in self.ids}
        self.links = {broker: Links(self) for broker in self.ids}
        self.brokers = {
            broker: GroupOffsets(
                directory,
                directory,
                directory,
                lambda: NOW_MS,
                InlineThreads(),
                SeededDice(broker),
                settings,
                Peers(leaderships=self.hearsay[broker], coordinators=self.links[broker]),
            )
            for broker in self.ids
        }

    @contextlib.asynccontextmanager
    async def running(self):
        """Run all brokers, and the disks and followers of whoever leads."""
        tasks = [asyncio.create_task(each.run()) for each in self.brokers.values()]
        tasks.append(asyncio.create_task(self._replicate()))
        self.elect(1, told_within_s=0)
        await asyncio.sleep(0.01)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def elect(self, broker, told_within_s=0.3):
        """Make a broker the leader; each hears of it by and by, each part of it for itself."""
        self.elections += 1
        self.epoch += 1
        self.leader = broker
        loop = asyncio.get_running_loop()
        for each in self.ids:
            for tell in (self._tell_replica, self._tell_metadata):
                delay_s = self.dice.uniform(0, told_within_s)
                loop.call_later(delay_s, tell, each, broker, self.epoch)

    def _tell_replica(self, broker, leader, epoch):
        replica = self.replicas[broker]
        if epoch < max(self.epoch, replica.leads_in or 0):
            if replica.leads_in is not None and replica.leads_in < epoch:
                replica.end()
        elif leader == broker:
            replica.begin(epoch)
        else:
            replica.end()

    def _tell_metadata(self, broker, leader, epoch):
        self.hearsay[broker].hear(leader, epoch)

    async def _replicate(self):
        while True:
            await asyncio.sleep(self.dice.choice([0.001, 0.03]))
            self.replicas[self.leader].replicate()
