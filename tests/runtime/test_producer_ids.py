"""Producer ids are handed out once, whatever happens in between."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.log import StorageFailed, StorageFull
from riverrun_server.runtime.producer_ids import BLOCK_SIZE, ProducerIds
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice


def ids_on(store, broker_id=1, seed=1):
    return ProducerIds(store, JsonDocuments(), SeededDice(seed), broker_id)


def store_on(disk):
    return EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice())


async def test_ids_begin_at_one_and_go_on_over_the_end_of_a_block():
    disk = FakeDisk()
    async with store_on(disk) as store:
        ids = ids_on(store)
        assert [await ids.next() for _ in range(2 * BLOCK_SIZE + 1)] == list(
            range(1, 2 * BLOCK_SIZE + 2)
        )
        assert disk.writes == 3


async def test_many_at_once_get_an_id_each_and_take_one_block():
    disk = FakeDisk()
    async with store_on(disk) as store:
        ids = ids_on(store)
        got = await asyncio.gather(*(ids.next() for _ in range(500)))
        assert len(set(got)) == 500
        assert disk.writes == 1


async def test_two_brokers_never_get_the_same_id():
    async with store_on(FakeDisk()) as store:
        brokers = [ids_on(store, number, number) for number in (1, 2, 3)]

        async def take(ids):
            return [await ids.next() for _ in range(BLOCK_SIZE + 1)]

        got = await asyncio.gather(*map(take, brokers))
        flat = [producer_id for each in got for producer_id in each]
        assert len(set(flat)) == len(flat) == 3 * (BLOCK_SIZE + 1)


@pytest.mark.parametrize("power_cut", [False, True])
async def test_no_id_is_handed_out_again_after_a_crash(power_cut):
    disk, got = FakeDisk(), []
    for _ in range(4):
        async with store_on(disk) as store:
            ids = ids_on(store)
            got += [await ids.next() for _ in range(3)]
            disk = disk.after_power_cut() if power_cut else disk.after_kill()
    assert len(set(got)) == len(got)


async def test_a_block_that_the_disk_does_not_have_is_not_used():
    disk = FakeDisk()
    async with store_on(disk) as store:
        ids = ids_on(store)
        disk.may_sync.clear()
        waiting = asyncio.ensure_future(ids.next())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        disk.may_sync.set()
        assert await waiting == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StorageFull("no room"), Reason.STORAGE_FULL), (StorageFailed("EIO"), Reason.STORAGE_STALLED)],
)
async def test_without_the_store_the_block_in_hand_is_used_up_then_it_is_refused(error, reason):
    disk = FakeDisk()
    async with store_on(disk) as store:
        ids = ids_on(store)
        await ids.next()
        disk.refusals = [error]
        for _ in range(BLOCK_SIZE - 1):
            await ids.next()
        with pytest.raises(Refusal) as refusal:
            await ids.next()
        assert refusal.value.reason is reason
        assert await ids.next() == BLOCK_SIZE + 1


async def test_a_caller_that_goes_away_while_a_block_is_taken_costs_no_more_than_that_block():
    disk = FakeDisk()
    async with store_on(disk) as store:
        ids = ids_on(store)
        disk.may_sync.clear()
        waiting = asyncio.ensure_future(ids.next())
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.cancel()
        disk.may_sync.set()
        assert await ids.next() == BLOCK_SIZE + 1
