"""A broker's own metadata in another store: complete or not there, and nobody else's is touched."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.values import (
    ClusterValue,
    Id,
    PartitionValue,
    Replica,
    TopicValue,
)
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.metadata.moving import Occupied, copy, to_copy
from riverrun_server.ports.metadata import Entry, Put, Transaction, UnknownOutcome
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice

DOCUMENTS = JsonDocuments()
TOPIC_ID = Id(bytes(range(16)))
PARTITION = keys.partition(TOPIC_ID, 0)


def entry(key, value, mod_revision=7, lease=0):
    data = value if isinstance(value, bytes) else DOCUMENTS.encode(value, b"nonce")
    return Entry(key, data, 1, mod_revision, 1, lease)


def cluster(cluster_id="ours"):
    return entry(keys.CLUSTER, ClusterValue(cluster_id=cluster_id, create_time_ms=5))


def partition(**changes):
    replica = Replica(1, Id(bytes(16)))
    fields = {"leader": 1, "leader_epoch": 3, "leader_broker_epoch": 900, "partition_epoch": 4}
    value = PartitionValue(**(fields | changes), replicas=(1,), isr=(replica,))
    return entry(PARTITION, value)


def topic(partitions=1):
    value = TopicValue(topic="t", topic_id=TOPIC_ID, partitions=partitions, replication_factor=1)
    return entry(keys.topic("t"), value)


ENTRIES = (cluster(), topic(), partition(), entry(keys.PRODUCER_IDS, b"{}"))


@pytest.fixture
async def etcd():
    """Return a store with another history than the one that the entries come from."""
    disk = FakeDisk()
    async with EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice()) as store:
        yield store


async def standing(store):
    return {each.key: each.value for each in (await store.scan("")).entries}


async def put(store, key, value):
    await store.transact(Transaction((), (Put(key, value),)))


async def test_everything_is_there_but_processes_and_what_they_were_elected_by(etcd):
    given = [*ENTRIES, entry("live/1", b"{}", lease=5), entry(keys.broker(1), b"{}")]
    assert await copy(to_copy(given, DOCUMENTS), etcd)
    there = await standing(etcd)
    assert sorted(there) == sorted(each.key for each in ENTRIES)
    for each in (ENTRIES[0], ENTRIES[1], ENTRIES[3]):
        assert there[each.key] == each.value
    value = DOCUMENTS.decode(PartitionValue, await etcd.get(PARTITION))
    assert (value.leader_epoch, value.leader_broker_epoch, value.partition_epoch) == (3, 0, 4)


async def test_what_is_there_already_is_not_copied_again(etcd):
    wanted = to_copy(ENTRIES, DOCUMENTS)
    assert await copy(wanted, etcd)
    revision = (await etcd.scan("")).revision
    assert not await copy(wanted, etcd)
    assert (await etcd.scan("")).revision == revision


class Interrupted:
    """Loses the answer of one transaction, before or after it was applied."""

    def __init__(self, store, at, *, applied):
        self._store, self._left, self._applied = store, at, applied

    async def scan(self, prefix):
        return await self._store.scan(prefix)

    async def transact(self, transaction):
        self._left -= 1
        if self._left:
            return await self._store.transact(transaction)
        if self._applied:
            await self._store.transact(transaction)
        raise UnknownOutcome("the answer was lost")


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_an_interrupted_copy_is_no_cluster_and_the_next_one_is_complete(etcd, at, applied):
    many = [entry(keys.topic(f"t{number}"), b"x" * 100) for number in range(250)]
    wanted = to_copy([*ENTRIES, *many], DOCUMENTS)
    with pytest.raises(UnknownOutcome):
        await copy(wanted, Interrupted(etcd, at, applied=applied))
    last = at == 4 and applied
    assert ((await etcd.get(keys.CLUSTER)) is not None) == last
    # Meanwhile the broker went on without: a topic was deleted and another one made.
    if not last:
        del wanted[keys.topic("t0")]
        wanted[keys.topic("new")] = b"y"
    assert await copy(wanted, etcd) == (not last)
    assert await standing(etcd) == wanted


async def test_large_values_go_in_several_transactions(etcd):
    many = [entry(keys.topic(f"t{number}"), b"x" * 400_000) for number in range(7)]
    wanted = to_copy([*ENTRIES, *many], DOCUMENTS)
    assert await copy(wanted, etcd)
    assert await standing(etcd) == wanted


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([cluster("theirs")], "another cluster's metadata is there"),
        ([cluster(), topic(partitions=2), partition()], "2 keys are not as they are here"),
        (
            [cluster(), topic(), partition(leader_epoch=9), ENTRIES[3]],
            f"\\({PARTITION} is the first",
        ),
        ([*ENTRIES, entry(keys.topic("u"), b"{}")], r"1 keys are not .*topics/u"),
    ],
)
async def test_metadata_that_somebody_uses_is_not_touched(etcd, there, said):
    for key, value in to_copy(there, DOCUMENTS).items():
        await put(etcd, key, value)
    before = await standing(etcd)
    with pytest.raises(Occupied, match=said):
        await copy(to_copy(ENTRIES, DOCUMENTS), etcd)
    assert await standing(etcd) == before


async def test_a_cluster_that_is_made_meanwhile_is_not_touched(etcd):
    class Late(Interrupted):
        async def transact(self, transaction):
            await put(etcd, keys.CLUSTER, cluster("theirs").value)
            return await etcd.transact(transaction)

    with pytest.raises(Occupied, match="made there meanwhile"):
        await copy(to_copy(ENTRIES, DOCUMENTS), Late(etcd, 0, applied=True))
    assert sorted(await standing(etcd)) == [keys.CLUSTER]
