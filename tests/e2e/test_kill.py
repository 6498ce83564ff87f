"""A broker that is killed under load keeps what it has promised; `make torture` does it for longer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import grpc
import pytest

import riverrun
from riverrun.v1 import errors_pb2 as errors
from riverrun.v1.consumer_pb2 import FetchRequest, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from tests.e2e.broker_process import SERVER
from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.checker import check
from tests.e2e.kill.evidence import weigh
from tests.e2e.kill.rig import Rig
from tests.e2e.power.cuts import Kind
from tests.e2e.power.disk import NoCompiler

# Drained, and then killed: while starting, while draining, and under load. The power goes in three.
ROUNDS = 5
CUTS = (None, *Kind)
SEED = int(os.environ.get("KILL_SEED", "0")) or int.from_bytes(os.urandom(4))


@pytest.mark.timeout(180)
async def test_a_killed_broker_keeps_its_promises(tmp_path):
    sys.stdout.write(f"KILL_SEED={SEED} makes the same choices again\n")
    try:
        rig = Rig(tmp_path, SEED, cuts=CUTS)
    except NoCompiler as missing:
        pytest.skip(str(missing))
    try:
        events = await rig.run(ROUNDS)
    finally:
        rig.broker.stop()
        sys.stdout.write(rig.broker.logs())
    evidence = weigh(events)
    sys.stdout.write(f"{evidence}\n")
    assert not list(summary(check(events)))
    # It was put to the test: work was under way, and people had to ask again.
    assert evidence.kills.total() >= ROUNDS
    assert evidence.cuts.keys() == {kind.value for kind in Kind}
    # An unknown outcome takes a producer without idempotence that a kill catches in the open, and a
    # cut takes something only where a sync was under way: a few rounds do not always have that, a
    # hundred have it by the thousands.
    rare = {f"no power cut of the kind {kind.value} has taken anything" for kind in Kind}
    assert set(evidence.missing()) <= rare
    assert any(evidence.biting.values())


async def written(client, topic, count):
    async with client.producer() as producer:
        return await producer.send_many(topic, [b"%d" % n for n in range(count)])


async def values(client, topic):
    async with client.consumer(topic, stop_at_end=True) as consumer:
        return [record.value async for record in consumer]


def fetch_error(address, topic):
    with grpc.insecure_channel(address) as channel:
        request = FetchRequest(positions=[StartPosition(topic=topic)])
        response = ConsumerServiceStub(channel).Fetch(request, timeout=20)
    (failed,) = response.errors
    return failed.error


async def test_a_relaxed_topic_waits_after_a_crash_until_its_loss_is_accepted(broker):
    relaxed = {"fsync": "relaxed"}
    async with riverrun.Client(broker.address) as client:
        admin = client.admin()
        await admin.create_topic("kept")
        await admin.create_topic("waiting", configs=relaxed)
        await admin.create_topic("accepting", configs=relaxed | {"unclean.recovery": "accept"})
        for topic in ("kept", "waiting", "accepting"):
            await written(client, topic, 50)
    # An orderly end leaves nothing to doubt.
    await asyncio.to_thread(broker.term)
    await asyncio.to_thread(broker.restart)
    everything = [b"%d" % n for n in range(50)]
    async with riverrun.Client(broker.address) as client:
        assert await values(client, "waiting") == everything
    await asyncio.to_thread(broker.kill9)
    await asyncio.to_thread(broker.restart)
    async with riverrun.Client(broker.address) as client:
        assert await values(client, "kept") == everything
        # The kernel has kept what it was given; a power cut could have taken some of the end.
        assert await values(client, "accepting") == everything
    refusal = await asyncio.to_thread(fetch_error, broker.address, "waiting")
    assert refusal.reason == errors.ERROR_REASON_PARTITION_OFFLINE
    assert "--accept-loss" in refusal.message
    await asyncio.to_thread(broker.term)
    place = ["--data-dir", broker.data_dir, "--topic", "waiting", "--partition", "0"]
    recover = [SERVER, "recover", *place, "--accept-loss"]
    await asyncio.to_thread(subprocess.run, recover, check=True, timeout=60)
    await asyncio.to_thread(broker.restart)
    async with riverrun.Client(broker.address) as client:
        assert await values(client, "waiting") == everything
        await written(client, "waiting", 1)
