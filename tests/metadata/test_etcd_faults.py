"""The store on a real etcd that dies, hangs, loses replies, compacts, and comes back as another one."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.values import ClusterValue
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.standing import Mark
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.ports.metadata import (
    Compacted,
    Compare,
    MetadataUnavailable,
    Put,
    StoreEnded,
    Transaction,
    UnknownOutcome,
    WatchInterrupted,
)
from riverrun_server.runtime.metadata_feed import MetadataFeed
from riverrun_server.runtime.settling import settle
from tests.metadata.cutting_proxy import CuttingProxy
from tests.metadata.etcd_process import EtcdProcess
from tests.metadata.fakes import SeededDice
from tests.polyglot import toolchain

pytestmark = toolchain.BUILDS

CREATE = Transaction((Compare.absent("k"),), (Put("k", b"mine"),))


@pytest.fixture
async def proxy(etcd):
    async with CuttingProxy(etcd.address) as proxy:
        yield proxy


@pytest.fixture
async def direct(etcd_world):
    """The store as everybody else sees it."""
    return await etcd_world.open()


def store_at(world, *addresses, timeout_s=2.0, **more):
    return EtcdStore(world.options(endpoints=addresses, timeout_s=timeout_s), SeededDice(), **more)


async def put(store, key, value=b"v"):
    return (await store.transact(Transaction((), (Put(key, value),)))).revision


async def changes(store):
    """A watch of everything that happens from now on."""
    return store.watch("", (await store.scan("")).revision + 1)


async def next_of(watch):
    async with asyncio.timeout(20):
        return await watch.next()


# --- replies that are lost


async def test_a_success_whose_reply_was_lost_is_recognised_and_was_done_once(
    etcd_world, direct, proxy
):
    async with store_at(etcd_world, proxy.address) as store:
        assert await store.get("k") is None
        proxy.loses_replies = True
        applied = await changes(direct)
        settling = asyncio.create_task(settle(store, CREATE))
        await next_of(applied)
        proxy.loses_replies = False
        await proxy.cut()
        result = await settling
        entry = await direct.get("k")
    assert result.succeeded
    assert result.revision == entry.mod_revision
    assert entry.version == 1
    assert proxy.connections == 2


async def test_a_transaction_is_never_sent_again_by_itself(etcd_world, direct, proxy):
    async with store_at(etcd_world, proxy.address) as store:
        await store.get("k")
        proxy.loses_replies = True
        applied = await changes(direct)
        sending = asyncio.create_task(put(store, "k"))
        await next_of(applied)
        proxy.loses_replies = False
        await proxy.cut()
        with pytest.raises(UnknownOutcome) as unknown:
            await sending
        assert not unknown.value.definite
        assert await store.get("other") is None  # it is connected again
        assert (await direct.get("k")).version == 1


async def test_a_request_that_was_never_sent_is_a_definite_no(etcd_world):
    async with store_at(etcd_world, "127.0.0.1:1", timeout_s=0.2) as store:
        for call in (store.transact(CREATE), store.grant(5), store.revoke(1), store.keep_alive(1)):
            with pytest.raises(MetadataUnavailable, match=r"127\.0\.0\.1:1.*refused") as no:
                await call
            assert no.value.definite


async def test_a_member_that_hangs_leaves_the_outcome_open_and_reads_go_on_elsewhere(
    etcd_world, direct, proxy
):
    async with store_at(etcd_world, proxy.address, timeout_s=0.5) as store:
        await store.get("k")
        proxy.passes.clear()
        with pytest.raises(UnknownOutcome, match="DEADLINE_EXCEEDED"):
            await store.transact(CREATE)
        with pytest.raises(MetadataUnavailable, match=r"no member of etcd answered within 0\.5 s"):
            await store.get("k")
    members = (proxy.address, etcd_world.etcd.address)
    async with store_at(etcd_world, *members, timeout_s=3) as store:
        for _ in range(2):  # whichever it begins with
            assert await store.get("other") is None


# --- deaths and partitions


async def test_a_feed_lists_again_after_etcd_was_killed_and_misses_nothing(etcd_world, direct):
    documents, image = JsonDocuments(), ClusterImage()
    waits = []

    async def pause(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    feed = MetadataFeed(direct, documents, image, SeededDice(), pause)
    await feed.load()
    following = asyncio.create_task(feed.next())
    await asyncio.to_thread(etcd_world.etcd.kill9)
    async with store_at(etcd_world, etcd_world.etcd.address, timeout_s=0.3) as store:
        with pytest.raises(MetadataUnavailable):
            await put(store, "cluster")
    await asyncio.to_thread(etcd_world.etcd.start)
    value = documents.encode(ClusterValue(cluster_id="ab", create_time_ms=1), b"n")
    revision = await put(direct, "cluster", value)
    while image.revision < revision:
        async with asyncio.timeout(20):
            await following
        following = asyncio.create_task(feed.next())
    assert image.cluster.value.cluster_id == "ab"
    following.cancel()
    await feed.close()


async def test_a_partition_that_heals_loses_no_event(etcd_world, direct, proxy):
    async with store_at(etcd_world, proxy.address) as store:
        watch = store.watch("", await put(store, "k"))
        await watch.next()
        proxy.passes.clear()
        waiting = asyncio.create_task(watch.next())
        revisions = [await put(direct, "k") for _ in range(3)]
        assert not waiting.done()
        proxy.passes.set()
        assert (await waiting).revision == revisions[0]
        assert [(await watch.next()).revision for _ in range(2)] == revisions[1:]


async def test_a_connection_that_is_cut_ends_a_watch_after_what_it_had_received(
    etcd_world, direct, proxy
):
    async with store_at(etcd_world, proxy.address) as store:
        watch = store.watch("", await put(store, "k"))
        first = await watch.next()
        await proxy.cut()
        for _ in range(2):
            with pytest.raises(WatchInterrupted):
                await watch.next()
        listing = await store.scan("")
        assert listing.revision == first.revision


async def test_closing_the_store_ends_whoever_waits(etcd_world, direct, proxy):
    store = store_at(etcd_world, proxy.address, timeout_s=10)
    watch = store.watch("", await put(store, "k") + 1)
    waiting = asyncio.create_task(watch.next())
    proxy.passes.clear()
    reading, writing = asyncio.create_task(store.get("k")), asyncio.create_task(put(store, "k"))
    await asyncio.sleep(0.1)
    await store.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        for task in (waiting, reading):
            with pytest.raises(MetadataUnavailable):
                await task
        with pytest.raises(UnknownOutcome):
            await writing
    with pytest.raises(StoreEnded, match="closed"):
        await store.get("k")


async def test_closing_the_store_ends_whoever_tries_to_connect(etcd_world, proxy):
    proxy.passes.clear()  # connections are taken, and nothing is said on them
    store = store_at(etcd_world, proxy.address, timeout_s=30)
    watch = store.watch("", 1)
    tasks = [asyncio.create_task(call) for call in (store.get("k"), put(store, "k"), watch.next())]
    await asyncio.sleep(0.1)
    await store.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        for task in tasks:
            with pytest.raises(MetadataUnavailable):
                await task


# --- compaction


async def test_a_paused_watcher_is_told_to_list_again_once_its_events_are_compacted(
    etcd_world, direct
):
    value = bytes(100_000)
    start = await put(direct, "k", value)
    watch = direct.watch("", start)
    await watch.next()
    # More than the stream, its buffers on both sides and the watch itself hold.
    for _ in range(600):
        last = await put(direct, "k", value)
    await etcd_world.forget()
    revision, compacted = start, None
    while compacted is None:
        try:
            batch = await next_of(watch)
        except Compacted as told:
            compacted = told.compacted_revision
        else:
            revision += 1
            assert batch.revision == revision
    assert revision < last
    assert revision < compacted


async def test_a_listing_that_compaction_overtakes_begins_anew(etcd_world):
    store = EtcdStore(etcd_world.options(), SeededDice(), page_keys=2)
    pages = store._range

    async def page_then_compaction(request):
        reply = await pages(request)
        if request.revision == 0 and overtaken:
            overtaken.pop()
            await put(direct, "k0", b"newer")
            await etcd_world.forget()
        return reply

    direct = await etcd_world.open()
    overtaken = [1]
    for number in range(5):
        await put(direct, f"k{number}")
    store._range = page_then_compaction
    async with store:
        listing = await store.scan("k")
        assert [entry.key for entry in listing.entries] == [f"k{number}" for number in range(5)]
        assert listing.entries[0].value == b"newer"
        assert not overtaken
        overtaken = [1] * 3
        with pytest.raises(MetadataUnavailable, match="each of 3 listings"):
            await store.scan("k")


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(etcd_world, direct):
    value = bytes(1_000_000)
    for number in range(20):
        await put(direct, f"k{number:02}", value)
    store = EtcdStore(etcd_world.options(), SeededDice(), page_keys=500)
    async with store:
        assert len((await store.scan("k")).entries) == 20


# --- another store


async def test_a_store_that_has_gone_back_or_is_another_one_is_never_believed(tmp_path):
    etcd = EtcdProcess(tmp_path)

    async def again(data=None):
        await asyncio.to_thread(etcd.kill9)
        if data is not None:
            shutil.rmtree(tmp_path / "etcd")
            data.rename(tmp_path / "etcd")
        await asyncio.to_thread(etcd.start)

    try:
        await asyncio.to_thread(etcd.start)
        options = EtcdOptions((etcd.address,), "/riverrun/c/")
        marks = []
        async with EtcdStore(options, SeededDice(), progress=marks.append) as store:
            await put(store, "k")
            await again()
            shutil.copytree(tmp_path / "etcd", tmp_path / "backup")
            assert await put(store, "k") == marks[-1].revision
            await again(tmp_path / "backup")
            for _ in range(2):
                with pytest.raises(StoreEnded, match=r"was at \d+ before; nothing is done"):
                    await store.get("k")
            with pytest.raises(StoreEnded):
                await store.watch("", 1).next()
        mark = Mark(marks[-1].cluster_id + 1, 1)
        async with EtcdStore(options, SeededDice(), mark=mark) as store:
            with pytest.raises(StoreEnded, match="says it is cluster"):
                await store.get("k")
    finally:
        etcd.stop()
