"""A broker whose disk fails, runs full or takes its time; `tests/e2e/power` has the disk."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

import pytest

from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.records_pb2 import Record
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.kill.anomalies import Kind as Anomalous
from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.history import Outcome
from tests.e2e.kill.stub_readers import read_everything
from tests.e2e.kill.world import OWNED, TOPIC, producers
from tests.e2e.power.cuts import Kind, cut_power
from tests.e2e.power.disk import FaultyDisk, NoCompiler
from tests.e2e.power.load import under_load

SEED = int(os.environ.get("DISK_SEED", "0")) or int.from_bytes(os.urandom(4))
SLOTS = ("--set", "storage.slots=8")
END_TIMEOUT_S = 20


@pytest.fixture
def broker_on(tmp_path):
    """Make a broker on a faulty disk."""
    brokers = []

    def make(**rules):
        try:
            disk = FaultyDisk(tmp_path / "data", **rules)
        except NoCompiler as missing:
            pytest.skip(str(missing))
        brokers.append(BrokerProcess(tmp_path, *SLOTS, environ=disk.environ))
        return brokers[-1], disk

    sys.stdout.write(f"DISK_SEED={SEED} makes the same choices again\n")
    yield make
    for broker in brokers:
        broker.stop()
        sys.stdout.write(broker.logs())


async def ended_by_itself(broker):
    """Wait for the broker's end, and return its exit code."""
    ending = asyncio.to_thread(os.waitid, os.P_PID, broker.pid, os.WEXITED | os.WNOWAIT)
    await asyncio.wait_for(ending, END_TIMEOUT_S)
    broker.kill9()
    return broker.exit_code


async def goes_on(load):
    """Wait until appends are acknowledged again or nobody answers any more; return whether they are."""
    acked, unknown = load.seen[Outcome.ACKED], load.seen[Outcome.UNKNOWN]
    await load.until(
        lambda: load.seen[Outcome.ACKED] > acked + 10 or load.seen[Outcome.UNKNOWN] > unknown + 10
    )
    return load.seen[Outcome.ACKED] > acked + 10


async def after_a_power_cut(broker, disk, load):
    """Return what is wrong once the broker is back from a power cut."""
    cut_power(disk, Kind.DROP, random.Random(SEED))
    await asyncio.to_thread(broker.restart)
    return await load.anomalies()


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_a_sync_that_fails_ends_the_broker_and_nobody_is_answered_for_it(broker_on, error):
    broker, disk = broker_on(sync_ms=4, only=".log")
    await asyncio.to_thread(broker.start)
    async with under_load(broker.address, SEED) as load:
        await load.until_more(Outcome.ACKED, 100)
        disk.fail_syncs(error)
        assert await ended_by_itself(broker) == 1
    assert disk.failed_syncs == 1
    assert load.seen[Outcome.UNKNOWN]
    if error == "EIO":
        # Not even once more: the pages are dropped, so the next sync succeeds and proves nothing.
        # (Of a full disk RocksDB itself recovers meanwhile, and syncs what it writes anew.)
        assert disk.syncs == disk.last_failed_sync
    assert not list(summary(await after_a_power_cut(broker, disk, load)))


async def test_a_write_that_fails_ends_the_broker(broker_on):
    broker, disk = broker_on(only=".log")
    await asyncio.to_thread(broker.start)
    async with under_load(broker.address, SEED) as load:
        await load.until_more(Outcome.ACKED, 100)
        disk.fail_writes("EIO", 1)
        assert await ended_by_itself(broker) == 1
    assert disk.failed_writes == 1
    assert load.told["STORAGE_FAILED"]


async def test_a_full_disk_refuses_appends_for_certain_while_reads_go_on_until_there_is_room(
    broker_on,
):
    broker, disk = broker_on(only=".log")
    await asyncio.to_thread(broker.start)
    # One append at a time, or a sync may meet the full disk too, and that ends the broker.
    async with under_load(broker.address, SEED, producers=1) as load:
        await load.until_more(Outcome.ACKED, 50)
        disk.fail_writes("ENOSPC")
        await load.until_more(Outcome.REFUSED, 10)
        logs = await read_everything(load.world)
        assert sum(map(len, logs.values())) == load.seen[Outcome.ACKED]
        assert load.told.keys() == {"STORAGE_FULL"}
        disk.heal()
        await load.until_more(Outcome.ACKED, 50)
        assert load.told.keys() == {"STORAGE_FULL"}
        broker.kill9()
    assert disk.failed_writes > 1
    # What was refused is nowhere, though half of it was in the write-ahead log.
    assert not list(summary(await after_a_power_cut(broker, disk, load)))


async def test_a_disk_that_is_full_under_load_takes_nothing_that_was_acknowledged(broker_on):
    """Whether a sync meets the full disk is chance: the broker goes on, or ends and comes back."""
    broker, disk = broker_on(sync_ms=4, only=".log")
    await asyncio.to_thread(broker.start)
    async with under_load(broker.address, SEED) as load:
        for _ in range(3):
            await load.until_more(Outcome.ACKED, 50)
            disk.fail_writes("ENOSPC")
            await load.until(lambda: disk.failed_writes > 0)
            disk.heal()
            if not await goes_on(load):
                assert await ended_by_itself(broker) == 1
                cut_power(disk, Kind.DROP, random.Random(SEED))
                await asyncio.to_thread(broker.restart)
        await load.until_more(Outcome.ACKED, 50)
        broker.kill9()
    assert load.seen[Outcome.REFUSED]
    assert not list(summary(await after_a_power_cut(broker, disk, load)))


async def test_a_sync_that_takes_long_holds_up_answers_and_no_readers(broker_on):
    broker, disk = broker_on()
    await asyncio.to_thread(broker.start)
    async with under_load(broker.address, SEED) as load:
        await load.until_more(Outcome.ACKED, 20)
    async with load.world.channel() as channel:
        disk.slow_down(1000)
        record = Record(value=b"waits")
        request = ProduceRequest(topic=TOPIC, partition=OWNED, records=[record])
        began_s = time.monotonic()
        answer = asyncio.ensure_future(producers(channel).Produce(request))
        answered_at_s = []
        answer.add_done_callback(lambda _: answered_at_s.append(time.monotonic()))
        readings = []
        while not answer.done():
            logs = await read_everything(load.world)
            if not answer.done():
                readings.append(sum(map(len, logs.values())))
        await answer
    assert answered_at_s[0] - began_s >= 1
    assert len(readings) > 2
    assert set(readings) == {load.seen[Outcome.ACKED]}


async def test_without_syncs_a_power_cut_takes_what_was_acknowledged_and_the_checker_sees_it(
    broker_on,
):
    """What the disk is good for: it can lose data, and the loss is found."""
    broker, disk = broker_on()
    await asyncio.to_thread(broker.start)
    relaxed = {"fsync": "relaxed", "unclean.recovery": "accept"}
    async with under_load(broker.address, SEED, configs=relaxed) as load:
        disk.slow_down(1000)
        await load.until_more(Outcome.ACKED, 100)
        broker.kill9()
    found = await after_a_power_cut(broker, disk, load)
    lost = [anomaly for anomaly in found if anomaly.kind is Anomalous.LOST]
    assert len(lost) >= 50
    assert {anomaly.kind for anomaly in found} <= {Anomalous.LOST, Anomalous.INCONSISTENT}


@pytest.mark.parametrize("what", ["sync", "write"])
async def test_a_disk_that_fails_at_the_start_is_told_in_a_line(broker_on, what):
    broker, _ = broker_on(**{f"fail_{what}": "EIO@3"})
    with pytest.raises(AssertionError, match=r"exit code is 1"):
        await asyncio.to_thread(broker.start)
    assert "Traceback" not in broker.logs()
    (line,) = [line for line in broker.logs().splitlines() if line.startswith("riverrun-server: ")]
    assert "Input/output error" in line
