"""Who gets which slot, and that a slot shows nothing of who had it before."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import StorageStalled
from riverrun_server.storage.slots import SlotPool
from tests.storage.world import P0, P1, Writer, read_all


def partition(number):
    return PartitionId(b"p" * 16, number)


def take(pool, number):
    slot = pool.choose()
    return slot, pool.take(partition(number), slot)


def test_each_partition_gets_a_slot_of_its_own_while_there_are_any():
    pool = SlotPool(range(3), {})
    assert [take(pool, n) for n in range(3)] == [(0, False), (1, False), (2, False)]
    assert (pool.free, pool.sharing) == (0, 0)
    assert pool.partitions() == [partition(n) for n in range(3)]


def test_when_they_are_used_up_the_emptiest_is_shared():
    pool = SlotPool(range(2), {})
    assert [take(pool, n) for n in range(5)] == [
        (0, False),
        (1, False),
        (0, True),
        (1, True),
        (0, True),
    ]
    assert pool.sharing == 5
    pool.leave(partition(1))
    assert take(pool, 9) == (1, True)


def test_a_slot_with_litter_is_taken_after_clean_ones_and_before_sharing():
    pool = SlotPool(range(2), {})
    take(pool, 0)
    assert pool.leave(partition(0)) == 0
    assert take(pool, 1) == (1, False)
    assert take(pool, 2) == (0, False)
    assert take(pool, 3)[1]


def test_a_cleaned_slot_comes_last():
    pool = SlotPool(range(3), {})
    for n in range(2):
        take(pool, n)
    pool.leave(partition(0))
    pool.cleaned(0)
    assert [take(pool, n)[0] for n in (5, 6)] == [2, 0]


def test_litter_of_two_partitions_is_cleaned_twice():
    pool = SlotPool(range(2), {partition(n): 0 for n in range(2)})
    pool.leave(partition(0))
    pool.leave(partition(1))
    pool.cleaned(0)
    assert [take(pool, n)[0] for n in (5, 6)] == [1, 0]


def test_what_is_stored_is_known_again():
    pool = SlotPool(range(4), {partition(0): 2, partition(1): 2}, [1])
    assert partition(1) in pool
    assert pool[partition(1)] == 2
    assert (pool.free, pool.sharing) == (3, 2)
    assert take(pool, 5)[0] == 0


# In a store.


def test_slots_that_are_used_up_are_shared_with_a_warning(opened, data_dir):
    store = opened(slots=2)
    with capture_logs() as logs:
        writers = [Writer(store.open(partition(n))) for n in range(2)]
        assert not logs
        writers += [Writer(store.open(partition(n))) for n in range(2, 5)]
    # Once for all three, or whoever makes topics fills the log.
    assert [(line["log_level"], line["slots"]) for line in logs] == [("warning", 2)]
    for round_ in range(3):
        for writer in writers:
            writer.append(size=round_ + 10)
    assert store.metrics().partitions_sharing == 5
    store.drop(partition(0))
    while store.upkeep():
        pass
    store.close()
    store = opened()
    for n in range(1, 5):
        assert len(read_all(store.open(partition(n)))) == 3


def test_a_slot_that_serves_another_partition_shows_nothing_old(opened):
    store = opened(slots=1)
    for n in range(6):
        writer = Writer(store.open(partition(n)))
        writer.many(5 + n)
        assert len(read_all(writer.log)) == 5 + n
        store.drop(partition(n))
        if n % 2:
            while store.upkeep():
                pass
    # The same prefix in the same slot, whose old batches have not been cleaned away yet.
    Writer(store.open(P0)).many(9)
    store.drop(P0)
    writer = Writer(store.open(P0))
    new = writer.append(count=8)
    while True:
        for offset in range(8):
            assert writer.log.read(offset, 8, 1) == [new]
        if not store.upkeep():
            break


def test_a_partition_is_not_made_again_while_its_old_batches_are_being_deleted(opened):
    store = opened(slots=1)
    Writer(store.open(P0)).many(3)
    store.drop(P0)
    work = store._upkeep.work

    def meanwhile(job):
        with pytest.raises(StorageStalled, match="being deleted"):
            store.open(P0)
        store.open(P1)
        return work(job)

    store._upkeep.work = meanwhile
    assert store.upkeep()
    store._upkeep.work = work
    Writer(store.open(P0)).append()
    assert len(read_all(store.open(P0))) == 1


def test_more_slots_are_made_when_more_are_asked_for_and_never_fewer(opened):
    store = opened(slots=2)
    Writer(store.open(P0)).append()
    store.close()
    store = opened(slots=5)
    assert store.metrics().slots == 5
    store.close()
    store = opened(slots=1)
    assert store.metrics().slots == 5
    assert len(read_all(store.open(P0))) == 1


def test_slots_are_counted_under_the_lock_under_which_they_change(opened):
    """Figures are taken in a thread of their own, and a dict must not grow while it is counted."""
    store = opened(slots=2)

    class Watched(SlotPool):
        @property
        def free(self):
            assert store._maps.locked()
            return super().free

        @property
        def sharing(self):
            assert store._maps.locked()
            return super().sharing

    store._pool = Watched(range(2), {})
    assert (store.metrics().slots_free, store.metrics().partitions_sharing) == (2, 0)
