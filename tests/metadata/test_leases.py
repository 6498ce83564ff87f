"""A lease is kept on a task of its own, holds by the holder's clock, and names one process a broker."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap

import pytest

from riverrun_server.core.cluster.values import Id, LiveProcess
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import (
    Delete,
    LeaseNotFound,
    MetadataUnavailable,
    Put,
    StoreEnded,
    Transaction,
)
from riverrun_server.runtime.broker_liveness import BrokerLiveness, Superseded
from riverrun_server.runtime.lease_keeper import LeaseKeeper
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice
from tests.polyglot import toolchain


class World:
    """A store and keepers whose pauses move the clock."""

    def __init__(self):
        self.clock, self.disk = ManualClock(), FakeDisk()
        self.store = EmbeddedStore(self.disk, self.disk.durable, self.clock, SeededDice())
        self.pauses = []

    async def pause(self, seconds):
        self.pauses.append(seconds)
        self.clock.now += seconds
        self.store.expire()
        await asyncio.sleep(0)

    def keeper(self, store=None):
        return LeaseKeeper(store or self.store, self.clock, 3.0, 0.5, self.pause)

    def liveness(self, incarnation=b"a", store=None):
        process = LiveProcess(incarnation=Id(incarnation * 16), host=f"host-{incarnation.decode()}")
        return BrokerLiveness(
            *(store or self.store, JsonDocuments(), self.clock, SeededDice()),
            *(1, process, self.pause),
        )


class Away:
    """A store that does not answer renewals while it is told so."""

    def __init__(self, store):
        self._store = store
        self.away = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def keep_alive(self, lease_id):
        if self.away:
            raise MetadataUnavailable("away")
        return await self._store.keep_alive(lease_id)


@pytest.fixture
async def world():
    world = World()
    async with world.store:
        yield world


async def times(number):
    """Let a task that only pauses on this clock go round so often."""
    for _ in range(number * 20):
        await asyncio.sleep(0)


async def test_a_lease_is_kept_far_beyond_its_time(world):
    keeper = world.keeper()
    lease_id = await keeper.acquire()
    await world.store.transact(Transaction((), (Put("mine", b"", lease_id),)))
    running = asyncio.create_task(keeper.run())
    while world.clock.now < 1_100:
        assert keeper.holds
        await asyncio.sleep(0)
    assert await world.store.get("mine") is not None
    assert set(world.pauses) == {1.0}
    running.cancel()


async def test_a_holder_stops_before_the_store_does_while_nothing_is_answered(world):
    away = Away(world.store)
    keeper = world.keeper(away)
    lease_id = await keeper.acquire()
    await world.store.transact(Transaction((), (Put("mine", b"", lease_id),)))
    away.away = True
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while keeper.holds:  # noqa: ASYNC110 - turns of the loop are the clock of this test
            await asyncio.sleep(0)
    assert await world.store.get("mine") is not None  # for the margin
    assert 2.49 < world.clock.now - 1_000 < 2.9
    assert world.pauses[1:] == pytest.approx([0.3] * (len(world.pauses) - 1))
    away.away = False
    await times(1)
    assert keeper.holds
    running.cancel()


async def test_a_lease_that_the_store_has_ended_is_lost(world):
    away = Away(world.store)
    keeper = world.keeper(away)
    await keeper.acquire()
    running = asyncio.create_task(keeper.run())
    world.clock.now += 3.1
    with pytest.raises(LeaseNotFound):
        await running
    assert not keeper.holds
    await keeper.acquire()
    assert keeper.holds


async def test_an_answer_is_counted_from_before_its_question(world):
    class Slow(Away):
        async def grant(self, ttl_s):
            lease = await self._store.grant(ttl_s)
            world.clock.now += 2.6
            return lease

    keeper = world.keeper(Slow(world.store))
    await keeper.acquire()
    assert not keeper.holds


async def test_a_store_that_has_ended_ends_the_keeper(world):
    keeper = world.keeper()
    await keeper.acquire()
    world.store._end("for a test")
    with pytest.raises(StoreEnded):
        await keeper.run()


# --- one process for each broker


async def test_a_second_process_waits_for_the_first_ones_end_and_then_names_it(world):
    first = world.liveness(b"a")
    await first.begin()
    running = asyncio.create_task(first.run())
    with pytest.raises(Superseded, match="alive in another process, on 'host-a'"):
        await world.liveness(b"b").begin()
    await times(1)
    assert not running.done()
    running.cancel()
    await first.end()
    await world.liveness(b"b").begin()


async def test_what_a_dead_process_left_ends_by_itself_or_is_taken_by_its_successor(world):
    await world.liveness(b"a").begin()
    before = world.clock.now
    await world.liveness(b"a").begin()  # the same data directory: that process is gone
    assert world.clock.now == before
    await world.liveness(b"b").begin()
    assert 2.9 < world.clock.now - before < 3.6


async def test_a_process_whose_key_was_taken_ends(world):
    first = world.liveness(b"a")
    await first.begin()
    running = asyncio.create_task(first.run())
    await world.liveness(b"a").begin()  # a copy of its data directory
    with pytest.raises(Superseded):
        await running


async def test_a_key_that_somebody_deleted_is_put_again(world):
    one = world.liveness(b"a")
    await one.begin()
    running = asyncio.create_task(one.run())
    await world.store.transact(Transaction((), (Delete("live/1"),)))
    await times(2)
    assert await world.store.get("live/1") is not None
    running.cancel()


async def test_a_lease_that_was_lost_is_taken_again_unless_somebody_else_came(world):
    away = Away(world.store)
    one = world.liveness(b"a", away)
    await one.begin()
    running = asyncio.create_task(one.run())
    world.clock.now += 4
    await times(2)
    assert not running.done()
    assert await world.store.get("live/1") is not None
    away.away = True
    world.clock.now += 4
    world.store.expire()
    await world.liveness(b"b").begin()
    away.away = False
    with pytest.raises(Superseded, match="host-b"):
        await running


# --- a real pause


HOLDER = textwrap.dedent(
    """
    import asyncio, sys
    from riverrun_server.metadata.etcd.options import EtcdOptions
    from riverrun_server.metadata.etcd.store import EtcdStore
    from riverrun_server.runtime.clock import SystemClock, SystemDice
    from riverrun_server.runtime.lease_keeper import LeaseKeeper
    from riverrun_server.ports.metadata import LeaseNotFound, Put, Transaction

    async def main():
        async with EtcdStore(EtcdOptions((sys.argv[1],), sys.argv[2]), SystemDice()) as store:
            keeper = LeaseKeeper(store, SystemClock(), 1, 0.2)
            put = Put("mine", b"", await keeper.acquire())
            await store.transact(Transaction((), (put,)))
            running = asyncio.create_task(keeper.run())
            print(keeper.holds, flush=True)
            while line := sys.stdin.readline():  # blocks the loop, as a stalled process does
                print(keeper.holds, flush=True)
                if line == "end\\n":
                    try:
                        await running
                    except LeaseNotFound:
                        print("lost", flush=True)

    asyncio.run(main())
    """
)


@toolchain.BUILDS
async def test_a_process_that_was_stopped_for_longer_than_its_lease_knows_when_it_goes_on(
    etcd_world,
):
    store = await etcd_world.open()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, etcd_world.etcd.address, etcd_world.prefix),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def said():
        async with asyncio.timeout(20):
            return (await process.stdout.readline()).strip()

    try:
        assert await said() == b"True"
        process.send_signal(signal.SIGSTOP)
        watch = store.watch("mine", (await store.get("mine")).mod_revision + 1)
        async with asyncio.timeout(20):
            [event] = (await watch.next()).events
        assert event.entry is None
        process.send_signal(signal.SIGCONT)
        process.stdin.write(b"now\nend\n")
        # Before it has heard a word from etcd.
        assert await said() == b"False"
        assert await said() == b"False"
        assert await said() == b"lost"
    finally:
        process.kill()
        await process.wait()
