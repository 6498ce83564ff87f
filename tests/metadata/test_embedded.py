"""What only the embedded store promises: the disk has it before anyone hears of it."""

from __future__ import annotations

import asyncio
import struct

import pytest

from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.log import CorruptData, StorageFailed, StorageFull, StorageStalled
from riverrun_server.ports.metadata import (
    Compacted,
    Compare,
    MetadataUnavailable,
    Put,
    Transaction,
    UnknownOutcome,
)
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice


def make(disk, **options):
    return EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice(), **options)


def put(store, key, value=b"v"):
    return store.transact(Transaction((), (Put(key, value),)))


async def settle_down():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_shows_a_transaction_before_the_disk_has_it():
    disk = FakeDisk()
    async with make(disk) as store:
        revision = (await put(store, "a", b"old")).revision
        watch = store.watch("", revision + 1)
        disk.may_sync.clear()
        calls = [
            asyncio.ensure_future(call)
            for call in (
                put(store, "a", b"new"),
                store.get("a"),
                store.scan(""),
                store.transact(Transaction((Compare.unchanged("a", revision),), ())),
                watch.next(),
            )
        ]
        await settle_down()
        assert not any(call.done() for call in calls)
        # What stood before is durable and can be read all the while.
        assert (await store.get("a", revision=revision)).value == b"old"
        disk.may_sync.set()
        written, entry, listing, compared, batch = await asyncio.gather(*calls)
        assert written.succeeded
        assert entry.value == listing.entries[0].value == b"new"
        assert not compared.succeeded
        assert batch.revision == revision + 1


async def test_a_power_cut_takes_only_what_was_never_answered():
    disk = FakeDisk()
    async with make(disk) as store:
        await put(store, "answered")
        disk.may_sync.clear()
        unanswered = asyncio.ensure_future(put(store, "unanswered"))
        await settle_down()
        assert not unanswered.done()
        survived = disk.after_power_cut()
    with pytest.raises(UnknownOutcome):
        await unanswered
    async with make(survived) as store:
        assert [entry.key for entry in (await store.scan("")).entries] == ["answered"]
        assert (await put(store, "next")).revision == 2


async def test_what_is_written_while_a_sync_is_under_way_waits_for_the_next_one():
    disk = FakeDisk()
    async with make(disk) as store:
        disk.may_sync.clear()
        first = asyncio.ensure_future(put(store, "a"))
        await settle_down()
        second = asyncio.ensure_future(put(store, "b"))
        await settle_down()
        disk.may_sync.set()
        await first
        await second
        assert b"metadata/key/b" in disk.synced_rows
        assert disk.syncs == 2


async def test_many_transactions_share_a_sync():
    disk = FakeDisk()
    async with make(disk) as store:
        await asyncio.gather(*(put(store, f"k{number}") for number in range(50)))
        assert disk.syncs <= 2
        assert (await store.get("k0")).mod_revision == 1


async def test_a_cancelled_writer_changes_nothing_for_the_others():
    disk = FakeDisk()
    async with make(disk) as store:
        disk.may_sync.clear()
        cancelled = asyncio.ensure_future(put(store, "a"))
        other = asyncio.ensure_future(put(store, "b"))
        await settle_down()
        cancelled.cancel()
        disk.may_sync.set()
        assert (await other).revision == 2
        assert (await store.get("a")).mod_revision == 1


async def test_a_stalled_disk_is_waited_for_and_the_transaction_decided_anew():
    disk = FakeDisk()

    async def pause(_seconds):
        # While this one waits another comes first.
        if not disk.refusals:
            await put(store, "a", b"first")

    async with make(disk, pause=pause) as store:
        disk.refusals = [StorageStalled("busy")] * 3
        result = await store.transact(Transaction((Compare.absent("a"),), (Put("a", b"second"),)))
        assert not result.succeeded
        assert result.entries["a"].value == b"first"


async def test_a_disk_that_stays_stalled_is_given_up_and_nothing_has_happened():
    disk, clock = FakeDisk(), ManualClock()

    async def pause(seconds):
        clock.now += seconds * 10

    async with EmbeddedStore(disk, disk.durable, clock, SeededDice(), pause=pause) as store:
        disk.refusals = [StorageStalled("busy")] * 1_000
        with pytest.raises(MetadataUnavailable, match="busy"):
            await put(store, "a")
        assert len(disk.refusals) < 1_000
        disk.refusals = []
        assert await store.get("a") is None
        assert (await put(store, "a")).revision == 1


async def test_a_full_disk_is_a_definite_refusal():
    disk = FakeDisk()
    async with make(disk) as store:
        disk.refusals = [StorageFull("no room")]
        with pytest.raises(MetadataUnavailable, match="no room") as refused:
            await put(store, "a")
        assert isinstance(refused.value.__cause__, StorageFull)
        assert await store.get("a") is None


async def test_after_a_failed_sync_nothing_is_answered_any_more():
    disk = FakeDisk()
    async with make(disk) as store:
        revision = (await put(store, "a")).revision
        watch = store.watch("", revision + 1)
        waiting = asyncio.ensure_future(watch.next())
        disk.sync_error = StorageFailed("EIO")
        with pytest.raises(UnknownOutcome, match="EIO"):
            await put(store, "b")
        for call in (store.get("a"), store.scan(""), put(store, "c"), store.grant(3), waiting):
            with pytest.raises(MetadataUnavailable, match="EIO"):
                await call
        assert disk.writes == 2


async def test_a_lease_ends_by_itself_while_nobody_calls():
    disk, clock = FakeDisk(), ManualClock()
    async with EmbeddedStore(disk, disk.durable, clock, SeededDice()) as store:
        lease = await store.grant(0.01)
        written = await store.transact(Transaction((), (Put("mine", b"", lease.lease_id),)))
        watch = store.watch("", written.revision + 1)
        clock.now += 1
        async with asyncio.timeout(5):
            batch = await watch.next()
        assert batch.events[0].key == "mine"


async def test_a_lease_outlives_a_disk_that_is_full_and_ends_after_that():
    disk, clock = FakeDisk(), ManualClock()
    async with EmbeddedStore(disk, disk.durable, clock, SeededDice()) as store:
        lease = await store.grant(10)
        await store.transact(Transaction((), (Put("mine", b"", lease.lease_id),)))
        clock.now += 11
        disk.refusals = [StorageFull("no room")]
        assert await store.get("mine") is not None
        assert await store.get("mine") is None


async def test_what_is_kept_of_the_past_is_bounded():
    disk = FakeDisk()
    async with make(disk, history_revisions=5) as store:
        for number in range(50):
            await put(store, "a", str(number).encode())
        assert len(store._map._changes) == 5
        assert (await store.get("a", revision=45)).value == b"44"


async def test_a_watcher_that_is_too_slow_is_told_to_list_again():
    async with make(FakeDisk(), history_revisions=5) as store:
        watch = store.watch("", (await put(store, "a")).revision)
        await watch.next()
        for _ in range(10):
            await put(store, "a")
        for _ in range(2):
            with pytest.raises(Compacted):
                await watch.next()


async def test_rows_of_another_format_or_cut_short_are_refused():
    disk = FakeDisk()
    async with make(disk) as store:
        await put(store, "a")
    for key in disk.rows:
        newer = disk.after_kill()
        newer.rows[key] = b"\x02" + newer.rows[key][1:]
        with pytest.raises(CorruptData, match="format 2"):
            make(newer)
        short = disk.after_kill()
        short.rows[key] = short.rows[key][:7]
        with pytest.raises(CorruptData, match="7 B"):
            make(short)
    older = disk.after_kill()
    older.rows[b"metadata/revision"] = struct.pack(">BQ", 1, 0)
    with pytest.raises(CorruptData, match="revision 1 in a store at revision 0"):
        make(older)


async def test_other_rows_in_the_table_are_left_alone():
    disk = FakeDisk({b"metadat": b"x", b"metadata0": b"y", b"zzz": b"z"})
    async with make(disk) as store:
        await put(store, "a")
        assert len((await store.scan("")).entries) == 1
    assert {disk.rows[key] for key in (b"metadat", b"metadata0", b"zzz")} == {b"x", b"y", b"z"}


async def test_a_closed_store_says_so():
    disk = FakeDisk()
    async with make(disk) as store:
        pass
    with pytest.raises(MetadataUnavailable, match="closed"):
        await store.get("a")
