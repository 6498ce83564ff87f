"""Members of one group in Go, Node and Python: each record goes to one of them, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import json

import grpc
import pytest

import riverrun
from riverrun.v1.group_pb2 import GROUP_STATE_STABLE, DescribeGroupRequest
from riverrun.v1.group_pb2_grpc import GroupServiceStub
from tests.polyglot import toolchain
from tests.polyglot.test_clients import present

pytestmark = [pytest.mark.polyglot, toolchain.BUILDS]

PARTITIONS = 6
RECORDS = 120
WAIT_S = 30.0


@contextlib.contextmanager
def running(*processes):
    """Leave none of them behind."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def settled(groups, group, members):
    """Wait until a group has so many members, and each its share."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                found = await groups.DescribeGroup(DescribeGroupRequest(group_id=group))
                shares = [len(member.owned) for member in found.members]
                if (
                    found.state == GROUP_STATE_STABLE
                    and len(shares) == members
                    and sum(shares) == PARTITIONS
                ):
                    return found
            await asyncio.sleep(0.1)


def ended(process):
    """Have a member leave, and return what it saw."""
    said, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    return json.loads(said)


async def produce(client, topic, begin):
    async with client.producer() as producer:
        await asyncio.gather(
            *[
                producer.send(topic, b"%d" % number, partition=number % PARTITIONS)
                for number in range(begin, begin + RECORDS)
            ]
        )


async def test_members_in_any_language_share_what_there_is(shared_broker, topic):
    clients = [toolchain.client(language) for language in present()]
    group = f"{topic}-group"
    async with (
        riverrun.Client(shared_broker.address) as client,
        grpc.aio.insecure_channel(shared_broker.address) as channel,
    ):
        groups = GroupServiceStub(channel)
        await client.admin().create_topic(topic, partitions=PARTITIONS)
        others = [each.begin("member", shared_broker.address, topic) for each in clients]
        with running(*others):
            await settled(groups, group, len(others))
            mine = []
            async with client.consumer(topic, group=group, commit="auto") as consumer:
                reading = asyncio.create_task(consumer.getmany(RECORDS, timeout_s=WAIT_S))
                await settled(groups, group, len(others) + 1)
                await produce(client, topic, 0)
                mine += await reading
                while records := await consumer.getmany(RECORDS, timeout_s=2):
                    mine += records
            await settled(groups, group, len(others))
            seen = [await asyncio.to_thread(ended, each) for each in others]
        values = [int(value) for each in seen for value in each["values"]]
        values += [int(record.value) for record in mine]
        assert sorted(values) == [*range(RECORDS)]
        assert mine
        assert all(each["values"] for each in seen)
        assert sum(each["revoked"] for each in seen) > 0, "the last to come was given something"
        assert [each["refused"] for each in seen] == [0] * len(seen)
        committed = await client.admin().group_offsets(group)
        assert sum(at.offset for at in committed.values() if at) == RECORDS


async def test_what_a_killed_member_had_goes_to_the_others(shared_broker, topic):
    first, second = [toolchain.client(language) for language in (*present(), *present())][:2]
    async with (
        riverrun.Client(shared_broker.address) as client,
        grpc.aio.insecure_channel(shared_broker.address) as channel,
    ):
        await client.admin().create_topic(topic, partitions=PARTITIONS)
        members = [each.begin("member", shared_broker.address, topic) for each in (first, second)]
        groups, group = GroupServiceStub(channel), f"{topic}-group"
        with running(*members):
            await settled(groups, group, 2)
            members[0].kill()
            await produce(client, topic, 0)
            await settled(groups, group, 1)
            async with asyncio.timeout(WAIT_S):
                while True:
                    found = await client.admin().group_offsets(group)
                    if sum(at.offset for at in found.values() if at) == RECORDS:
                        break
                    await asyncio.sleep(0.1)
            seen = await asyncio.to_thread(ended, members[1])
        assert {int(value) for value in seen["values"]} <= {*range(RECORDS)}
