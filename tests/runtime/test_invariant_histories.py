"""Random lives of one partition against a list of its batches: restarts, crashes, trims, truncations.

The list knows nothing of snapshots, epoch entries or signposts. After every step the partition has
to say what the list says: its bounds, the epoch of each record, what it knows of its producers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server import recover
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.epochs import EpochMap
from riverrun_server.ports.log import StorageStalled
from riverrun_server.runtime import appender
from riverrun_server.storage import keys
from riverrun_server.storage.rocks import Batch
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.runtime.manual import settle
from tests.runtime.partition_world import ID, World
from tests.storage.world import SMALL, SeededDice, killed

_names = itertools.count()


class MemoryDisk(World):
    """A crash keeps the first few of the writes that were not synced."""

    @contextlib.contextmanager
    def stalled(self):
        self.store.refuse_writes(StorageStalled("behind"))
        yield
        self.store.refuse_writes(None)

    def damage(self, base_offset):
        def step(image):
            stored = image.partitions[ID]
            at = stored.bases.index(base_offset)
            stored.batches[at] = flipped(stored.batches[at])

        self.store.take(step)
        self.store.sync()

    def snapshot_offsets(self):
        return list(self.store.image.partitions[ID].snapshots)

    def put_away(self):
        pass


class RealDisk(World):
    """The store of a broker. A crash is a kill, which loses nothing."""

    def __init__(self, folder, **how):
        super().__init__(**how)
        self.folder = folder / "data"
        self.store = self._opened()

    def _opened(self):
        return open_store(
            self.folder,
            slots=1,
            broker_id=1,
            parse=stored_batch,
            scan=scan_batch,
            dice=SeededDice(),
            tuning=SMALL,
        )

    @contextlib.contextmanager
    def stalled(self):
        def behind(_):
            raise StorageStalled("behind")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.store._journal, "commit", behind)
            yield

    async def crash(self, survivors=0):
        del survivors
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        copy = killed(self.folder, f"killed{next(_names)}")
        self.store.close(clean=False)
        shutil.rmtree(self.folder)
        self.folder = copy
        self.store = self._opened()

    async def close(self):
        await super().close()
        self.store.close(clean=True)
        self.store = self._opened()

    def damage(self, base_offset):
        (stored, *_) = self.store.open(ID).read(base_offset, 1 << 40, 1)
        write = Batch()
        key = keys.batch(keys.prefix(ID), base_offset)
        write.put(self.store.open(ID)._slot, key, flipped(stored.data))
        self.store._journal.commit(write)

    def snapshot_offsets(self):
        return self.store.open(ID)._snapshot_offsets()

    def put_away(self):
        self.store.close(clean=False)


def flipped(data):
    """Return a batch with a bit of its records changed."""
    return data[:5] + bytes([data[5] ^ 1]) + data[6:]


class Written(NamedTuple):
    """One batch that the log holds."""

    base_offset: int
    next_offset: int
    leader_epoch: int
    producer: tuple[int, int, int]
    time_ms: int
    values: list[bytes]


def next_sequence(batches):
    """Return what follows a producer's batches, each as (first sequence, first offset, count)."""
    return batches[-1][0] + batches[-1][2] if batches else 0


class Life:
    """A partition, and the list of its batches from offset 0 on, trimmed ones included."""

    def __init__(self, world):
        self.world = world
        self.log: list[Written] = []
        self.start = 0
        self.watermark = 0
        self.forgotten_below = 0
        self.last_value = 0
        self.unanswered: list[tuple[list, int]] = []
        self.ever: dict[tuple[int, int], bytes] = {}
        self.seen: dict[int, int] = {}
        self.replaced: dict[tuple[int, int], int] = {}
        self.happened = Counter()

    @property
    def end(self):
        return self.log[-1].next_offset if self.log else 0

    def producers(self):
        """Return {id: [epoch, [(first sequence, first offset, count)]]}, by their newest batch."""
        known: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
        for batch in self.log:
            pid, epoch, first = batch.producer
            if not pid or batch.base_offset < self.forgotten_below:
                continue
            old_epoch, batches = known.pop(pid, (epoch, []))
            if old_epoch != epoch:
                batches = []
            batches.append((first, batch.base_offset, len(batch.values)))
            known[pid] = epoch, batches
        return known

    # What happens.

    def append(self, pid, count, *, newer_epoch=False):
        epoch, batches = self.producers().get(pid, (0, []))
        first = next_sequence(batches)
        if newer_epoch:
            epoch, first = epoch + 1, 0
        values = [b"%d" % (self.last_value + n) for n in range(count)]
        self.last_value += count
        producer = {"producer_id": pid, "producer_epoch": epoch, "base_sequence": first}
        answers = self.world.append(*values, **producer if pid else {})
        assert answers == []
        self.unanswered.append((answers, self.end))
        self.log.append(
            Written(
                self.end,
                self.end + count,
                self.world.epoch,
                (pid, epoch, first) if pid else (0, 0, 0),
                self.world.now_ms,
                values,
            )
        )

    async def append_during_a_sync(self, pid, count):
        """What is written while the disk works is not proved by it."""
        await self.sync()
        self.append(pid, count)
        await settle()
        self.world.syncs.step()
        self.watermark = self.end
        self.append(pid, count)
        await settle()

    async def repeat(self, pid, back):
        """Send one of a producer's remembered batches again, and hear where it stands."""
        epoch, batches = self.producers().get(pid, (0, []))
        if not batches:
            return
        first, offset, count = batches[-1 - back % len(batches)]
        producer = {"producer_id": pid, "producer_epoch": epoch, "base_sequence": first}
        answers = self.world.append(*[b"again"] * count, **producer)
        await self.sync()
        assert (answers[0].base_offset, answers[0].duplicate) == (offset, True)
        self.happened["repeated"] += 1

    def stall(self, pid):
        """Have a write refused: nothing has happened."""
        epoch, batches = self.producers().get(pid, (0, []))
        first = next_sequence(batches)
        producer = {"producer_id": pid, "producer_epoch": epoch, "base_sequence": first}
        with self.world.stalled():
            answers = self.world.append(b"stalled", **producer)
        assert answers[0].error.reason is Reason.STORAGE_STALLED

    async def sync(self):
        await self.world.sync()
        self.watermark = self.world.partition.high_watermark
        assert self.watermark == self.end
        self.all_are_answered()

    def all_are_answered(self):
        """Check that every append was told where its batch stands."""
        assert [answers[0].base_offset for answers, _ in self.unanswered] == [
            base_offset for _, base_offset in self.unanswered
        ]
        self.unanswered.clear()

    async def read(self):
        found = await self.world.read(self.start)
        assert list(found) == list(range(self.start, self.watermark))
        for batch in self.log:
            for offset, value in enumerate(batch.values, batch.base_offset):
                if offset in found:
                    assert found[offset] == value
                    assert self.ever.setdefault((offset, batch.leader_epoch), value) == value
                    self.seen[offset] = batch.leader_epoch

    async def trim(self, share, *, hurried):
        """Trim to a committed offset; where it is hurried, a power cut comes before the disk."""
        target = self.start + int(share * (self.watermark - self.start))
        trimming = asyncio.create_task(self.world.partition.trim(target))
        await settle()
        if hurried:
            if trimming.done():
                self.start = trimming.result()
            trimming.cancel()
            await self.crash(0)
            return
        await self.sync()
        assert await trimming == target
        self.start = target

    async def restart(self):
        await self.world.close()
        self.watermark = self.end
        self.all_are_answered()
        await self.opened()

    async def crash(self, survivors):
        """Lose what was not synced, or some of it; what a reader could have seen stays."""
        await self.world.crash(survivors)
        state = self.world.store.open(ID).state
        self.happened["lost what was not synced"] += state.log_end_offset < self.end
        assert state.log_end_offset >= self.watermark
        self.unanswered.clear()
        self.cut(state.log_end_offset)
        # A trim that was not answered may have taken place or not.
        assert state.log_start_offset >= self.start
        self.start = state.log_start_offset
        await self.opened()

    async def truncate(self, share):
        """Damage a batch, and accept the loss of it and all behind it."""
        await self.restart()
        kept = [batch for batch in self.log if batch.next_offset > self.start]
        if not kept:
            return
        damaged = kept[int(share * len(kept))].base_offset
        await self.world.close()
        end = max(damaged, self.start)
        # Behind a trim there is nothing to tell of producers but snapshots.
        snapshots = self.world.snapshot_offsets()
        forgets = self.start > 0 and not any(at <= end for at in snapshots)
        self.world.damage(damaged)
        told = recover._accept(self.world.store, ID, "t-0")
        assert f"now ends at offset {end};" in told
        assert ("forgotten" in told) is forgets
        self.happened["truncated"] += 1
        self.happened["truncated below a snapshot"] += any(at > end for at in snapshots)
        self.happened["truncated behind a snapshot"] += any(0 < at <= end for at in snapshots)
        if forgets:
            self.forgotten_below = end
            self.happened["forgotten"] += 1
        for offset in [offset for offset in self.seen if offset >= end]:
            self.replaced[offset, self.seen.pop(offset)] = end
        self.replaced = {place: min(cut, end) for place, cut in self.replaced.items()}
        self.watermark = end
        self.log = [batch for batch in self.log if batch.next_offset <= damaged]
        if end > damaged:
            # The log begins and ends inside the damaged batch: of that one nothing can be read.
            self.log.append(kept[0]._replace(next_offset=end, producer=(0, 0, 0), values=[]))
        epochs = self.world.store.open(ID).epochs()
        assert all(entry.start_offset < end for entry in epochs)
        if end > self.start:
            assert epochs[-1].leader_epoch == self.log[-1].leader_epoch
        await self.opened()

    def cut(self, end):
        assert end >= max((offset + 1 for offset in self.seen), default=0)
        assert end in [0, *(batch.next_offset for batch in self.log)]
        self.log = [batch for batch in self.log if batch.next_offset <= end]

    async def opened(self):
        await self.world.open()
        assert self.world.partition.offline is None
        self.watermark = self.end
        log = self.world.store.open(ID)
        found = log.scan(self.start, 1 << 30)
        kept = [batch for batch in self.log if batch.next_offset > self.start]
        assert [
            (each.stamp.base_offset, each.stamp.next_offset, each.stamp.leader_epoch)
            for each in found
        ] == [batch[:3] for batch in kept]

    # What holds after every step.

    def check(self):
        partition, machine = self.world.partition, self.world.partition._machine
        assert machine.log_start == self.start
        assert self.start <= machine.high_watermark <= machine.durable_end <= machine.log_end
        assert (machine.high_watermark, machine.log_end) == (self.watermark, self.end)
        assert all(at <= self.watermark for at in self.world.snapshot_offsets())
        self.check_epochs(partition._epochs)
        stored = EpochMap(self.world.store.open(ID).epochs())
        assert stored.entries() == partition._epochs.entries()
        self.check_producers(machine.producers.snapshot(self.end))
        self.check_replaced()

    def check_epochs(self, epochs):
        entries = epochs.entries()
        for before, after in itertools.pairwise(entries):
            assert before.leader_epoch < after.leader_epoch
            assert before.start_offset < after.start_offset
        assert entries[-1].leader_epoch == self.world.epoch
        for batch in self.log:
            for offset in range(max(batch.base_offset, self.start), batch.next_offset):
                assert epochs.epoch_at(offset) == batch.leader_epoch

    def check_producers(self, found):
        expected = self.producers()
        newest_ms = {batch.producer[0]: batch.time_ms for batch in self.log}
        assert [each.producer_id for each in found.producers] == list(expected)
        for each in found.producers:
            epoch, batches = expected[each.producer_id]
            assert each.producer_epoch == epoch
            assert each.last_append_time_ms == newest_ms[each.producer_id]
            assert each.last_sequence == next_sequence(batches) - 1
            assert list(each.batches) == [number for batch in batches for number in batch]

    def check_replaced(self):
        """Whoever has read what was truncated hears of it; nobody else does."""
        readable = self.world.partition.check_readable
        for offset, epoch in self.seen.items():
            if offset >= self.start:
                readable(offset + 1, epoch)
        for (offset, epoch), cut in self.replaced.items():
            if offset < self.start:
                continue
            with pytest.raises(Refusal) as refused:
                readable(offset + 1, epoch)
            assert refused.value.reason is Reason.LOG_TRUNCATED
            assert refused.value.diverging_offset <= max(cut, self.start)
            self.happened["told of a truncation"] += 1


WEIGHTS = {
    "append": 30,
    "append during a sync": 6,
    "sync": 12,
    "repeat": 6,
    "read": 6,
    "trim": 5,
    "restart": 3,
    "crash": 4,
    "truncate": 4,
    "stall": 4,
}


async def step(life, dice):
    """Let something happen, by chance."""
    life.world.now_ms += dice.choice([0, 0, 1, 10_000])
    what = dice.choices(list(WEIGHTS), WEIGHTS.values())[0]
    match what:
        case "append":
            life.append(dice.randint(0, 3), dice.randint(1, 3), newer_epoch=dice.random() < 0.1)
        case "append during a sync":
            await life.append_during_a_sync(dice.randint(0, 3), dice.randint(1, 3))
        case "sync":
            await life.sync()
        case "repeat":
            await life.repeat(dice.randint(1, 3), dice.randint(0, 3))
        case "read":
            await life.read()
        case "trim":
            await life.trim(dice.random() ** 2, hurried=dice.random() < 0.3)
        case "restart":
            await life.restart()
        case "crash":
            await life.crash(dice.randint(0, 5))
        case "truncate":
            # Mostly near the end, so that there is something left to go on from.
            await life.truncate(1 - dice.random() ** 3)
        case "stall":
            life.stall(dice.randint(1, 3))


async def live(world, seed, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appender, "SNAPSHOT_INTERVAL_BYTES", 400)
        life, dice = Life(world), random.Random(seed)
        await world.open()
        for _ in range(steps):
            await step(life, dice)
            life.check()
        await life.sync()
        await life.read()
        world.running.cancel()
        world.put_away()
    return life.happened


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1 << 20]))
def test_a_partition_in_memory_lives_as_the_list_of_its_batches_says(seed, tail_bytes):
    asyncio.run(live(MemoryDisk(tail_bytes=tail_bytes), seed, 60))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_partition_on_disk_lives_as_the_list_of_its_batches_says(seed):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(RealDisk(Path(folder), tail_bytes=0), seed, 60))


def test_the_lives_are_rich_enough_to_find_something():
    happened = Counter()
    for seed in range(40):
        happened += asyncio.run(live(MemoryDisk(tail_bytes=0), seed, 60))
    assert set(happened) == {
        "repeated",
        "lost what was not synced",
        "truncated",
        "truncated below a snapshot",
        "truncated behind a snapshot",
        "forgotten",
        "told of a truncation",
    }
    assert min(happened.values()) >= 10, happened
