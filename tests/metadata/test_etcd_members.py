"""The store on an etcd of three members that lose their leader, and their majority."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.ports.metadata import (
    Compare,
    MetadataUnavailable,
    Put,
    Transaction,
    WatchInterrupted,
)
from riverrun_server.runtime.settling import settle
from tests.metadata.etcd_process import EtcdProcess, peer_addresses
from tests.metadata.fakes import SeededDice
from tests.polyglot import toolchain

pytestmark = toolchain.BUILDS


@pytest.fixture
def members(tmp_path):
    """Three members, started together: none serves before most of them are there."""
    places = peer_addresses("a", "b", "c")
    members = [EtcdProcess(tmp_path / name, name=name, members=places) for name in places]
    try:
        with ThreadPoolExecutor(3) as together:
            list(together.map(EtcdProcess.start, members))
        yield members
    finally:
        for member in members:
            member.stop()


def store_of(*members):
    options = EtcdOptions(tuple(each.address for each in members), "/riverrun/c/", timeout_s=2)
    return EtcdStore(options, SeededDice())


def change(value, revision):
    return Transaction((Compare.unchanged("k", revision),), (Put("k", value),))


async def changed(store, value, revision):
    """Change the key once, waiting where the store says that it did nothing."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await settle(store, change(value, revision))
            except MetadataUnavailable:
                await store.wait_until_it_answers(20)


async def test_whoever_is_killed_two_members_of_three_go_on(members):
    async with store_of(*members) as store:
        revision = (await store.transact(change(b"0", 0))).revision
        for number, member in enumerate(members, 1):
            await asyncio.to_thread(member.kill9)
            result = await changed(store, str(number).encode(), revision)
            assert result.succeeded
            revision = result.revision
            assert (await store.get("k")).version == number + 1
            await asyncio.to_thread(member.start)


async def test_a_member_without_a_majority_refuses_and_ends_its_watches(members):
    alone, *others = members
    async with store_of(alone) as store:
        revision = (await store.transact(change(b"0", 0))).revision
        watch = store.watch("", revision + 1)
        waiting = asyncio.create_task(watch.next())
        await store.get("k")
        for other in others:
            other.freeze()
        async with asyncio.timeout(30):
            with pytest.raises(WatchInterrupted, match="no leader"):
                await waiting
        with pytest.raises(MetadataUnavailable, match="no leader") as no:
            await store.transact(change(b"1", revision))
        assert no.value.definite
        for other in others:
            other.thaw()
        assert (await changed(store, b"2", revision)).succeeded
        assert (await store.get("k")).value == b"2"
