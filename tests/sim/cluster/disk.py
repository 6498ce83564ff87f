"""The disk of a simulated broker: slow, forgetful at a power cut, full, failing, and flipping bits.

It is the store in memory with the codec of the real one. A sync makes durable what was written before
it began and takes its time; a kill loses nothing that was written; a power cut loses a tail of what
was not synced.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from riverrun_server.core.cluster.values import Id, Incarnations
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import StorageError, StorageFailed, StorageFull, StorageStalled
from riverrun_server.storage.memory import MemoryStore
from riverrun_server.storage.memory_image import Step, StoredPartition
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.sim.cluster.world import Process, World


class DiskStore(MemoryStore):
    """The store in memory, with syncs that cover a part and images that can be looked at."""

    def __init__(self) -> None:
        super().__init__(stored_batch, scan_batch)
        self.refused = 0
        self.refuses_next = 0
        self.changes = 0

    def take(self, step: Step) -> None:
        """Change the live image; count what is taken and what is refused."""
        self.changes += 1
        try:
            if self.refuses_next:
                self.refuses_next -= 1
                raise StorageStalled("write stall")
            super().take(step)
        except StorageError:
            self.refused += 1
            raise

    def sync_first(self, writes: int) -> None:
        """Make the oldest writes durable; those that a crash has already dealt with are gone."""
        self.changes += 1
        for step in self._unsynced[:writes]:
            step(self._durable)
        del self._unsynced[:writes]

    def stored(self, partition: PartitionId, *, durable: bool) -> StoredPartition | None:
        """Return what a partition's rows are, on the disk or also in the page cache."""
        image = self._durable if durable else self._live
        return image.partitions.get(partition)

    def all_partitions(self, *, durable: bool) -> list[PartitionId]:
        """Return every partition that is stored."""
        image = self._durable if durable else self._live
        return list(image.partitions)

    def all_stored(self, *, durable: bool) -> list[StoredPartition]:
        """Return the rows of every partition."""
        image = self._durable if durable else self._live
        return list(image.partitions.values())


class SimDisk:
    """One broker's disk; it outlives the broker's processes.

    Args:
        world: time and dice.
        broker: whose it is.

    Attributes:
        damaged: every batch in which a bit was flipped, and what it had been.
    """

    def __init__(self, world: World, broker: int) -> None:
        self.broker = broker
        self.bitten: Counter[str] = Counter()
        self.damaged: dict[bytes, bytes] = {}
        self.sync_s = 0.002
        self.slow_s = 0.0
        self._world = world
        self._dice = world.dice(f"disk {broker}")
        self._lives = 0
        self._sync_error: StorageError | None = None
        self._crashes = 0
        self.store = DiskStore()
        self.incarnations = Incarnations(self._new_life(), self._new_life())

    @property
    def version(self) -> tuple[int, int]:
        """What differs as soon as anything that is stored does."""
        return self._crashes, self.store.changes

    def begin_sync(self, done: Callable[[StorageError | None], None], process: Process) -> None:
        """Begin a sync; `done` is told when everything written before this call is durable."""
        writes, crashes, store = self.store.unsynced_writes, self._crashes, self.store
        delay_s = self._dice.uniform(0.2, 1.0) * self.sync_s
        if self.slow_s:
            self.bitten["syncs slowed"] += 1
            delay_s += self._dice.uniform(0.0, self.slow_s)

        def finish() -> None:
            if crashes != self._crashes or store is not self.store:
                return
            if self._sync_error is not None:
                self.bitten["syncs failed"] += 1
                error, self._sync_error = self._sync_error, None
                self._world.after(0.0, done, error, process=process)
                return
            store.sync_first(writes)
            self._world.after(0.0, done, None, process=process)

        # The device works on while the process is paused.
        self._world.after(delay_s, finish)

    # What goes wrong, on demand.

    def kill(self) -> None:
        """The process ended: what it wrote is still in the page cache, and so survives."""
        self._end(self.store.unsynced_writes)

    def cut_power(self) -> int:
        """Lose all that was not synced, or the tail of it; return how many writes were lost."""
        unsynced = self.store.unsynced_writes
        survivors = self._dice.randint(0, unsynced) if self._dice.random() < 0.5 else 0
        self._end(survivors)
        if unsynced > survivors:
            self.bitten["unsynced writes lost"] += unsynced - survivors
        return unsynced - survivors

    def _end(self, survivors: int) -> None:
        self._crashes += 1
        self._sync_error = None
        self.store.crash(survivors)
        # Not shut down cleanly: what was never synced may be gone, whoever looks.
        self.incarnations = dataclasses.replace(self.incarnations, relaxed=self._new_life())

    def wipe(self) -> None:
        """Begin with an empty disk, as after a replacement; the data's life ends with it."""
        self._crashes += 1
        self._sync_error = None
        self.store.crash(0)
        self.store = DiskStore()
        self.incarnations = Incarnations(self._new_life(), self._new_life())
        self.bitten["disks wiped"] += 1

    def fill(self, *, full: bool) -> None:
        """Have writes refused for want of room, or take them again."""
        self.store.refuse_writes(StorageFull("no space left on device") if full else None)

    def stall(self, *, stalled: bool) -> None:
        """Have writes refused because the store is behind, or take them again."""
        self.store.refuse_writes(StorageStalled("write stall") if stalled else None)

    def stall_once(self, writes: int) -> None:
        """Have the next few writes refused, and those behind them taken; 0 takes that back."""
        self.store.refuses_next = writes

    def fail_next_sync(self, *, fails: bool = True) -> None:
        """Have the next sync fail, or not; where it does, nobody knows what of it is on the disk."""
        self._sync_error = StorageFailed("input/output error") if fails else None

    def corrupt(self, partition: PartitionId) -> int | None:
        """Flip a bit in one stored batch; return its offset, or None where there is none."""
        live = self.store.stored(partition, durable=False)
        if live is None or not live.batches:
            return None
        at = self._dice.randrange(len(live.batches))
        old, base = live.batches[at], live.bases[at]
        data = bytearray(old)
        # In the records, which begin behind the first tag and length: found by a checksum.
        data[self._dice.randrange(4, min(len(data), 12))] ^= 1 << self._dice.randrange(8)
        for durable in (False, True):
            stored = self.store.stored(partition, durable=durable)
            if stored is not None and base in stored.bases:
                place = stored.bases.index(base)
                if stored.batches[place] == old:
                    stored.batches[place] = bytes(data)
        self.damaged[bytes(data)] = self.damaged.get(old, old)
        self.bitten["batches corrupted"] += 1
        return base

    def holds_damage(self) -> bool:
        """Whether a bit is flipped in anything that is stored now."""
        return bool(self.damaged) and any(
            each in self.damaged
            for durable in (False, True)
            for stored in self.store.all_stored(durable=durable)
            for each in stored.batches
        )

    def repair(self) -> int:
        """Put back what bits were flipped in, as a disk does that had only read badly; count it."""
        repaired = 0
        for durable in (False, True):
            for stored in self.store.all_stored(durable=durable):
                for place, data in enumerate(stored.batches):
                    if data in self.damaged:
                        stored.batches[place] = self.damaged[data]
                        repaired += 1
        return repaired

    def _new_life(self) -> Id:
        self._lives += 1
        return Id(self.broker.to_bytes(8, "big") + self._lives.to_bytes(8, "big"))
