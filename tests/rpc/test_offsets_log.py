"""Committed offsets on their log, in virtual time: loading, ordering, rewriting, crashes."""

import asyncio
import random
import zlib

import pytest

from riverrun.v1.records_pb2 import Record
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.groups.offsets import OffsetsLimits
from riverrun_server.runtime.coordination_peers import Peers
from riverrun_server.runtime.offsets import GroupOffsetsSettings
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from riverrun_server.wire.v1.internal_records_pb2 import (
    OFFSETS_TOPIC_KIND_GROUP,
    GroupValue,
    OffsetsTopicKey,
)
from tests.rpc.fake_partitions import FakeDirectory, FakePartition, batch_of
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

STALLED = Refusal(Reason.STORAGE_STALLED, "behind")
REWRITES = OffsetsLogSettings(
    limits=OffsetsLimits(rewrite_records_min=20, rewrite_factor=2), batch_bytes=300
)


def settings(log=None, **fields):
    return GroupOffsetsSettings(
        **{
            "partitions": 1,
            "coordinator_wait_s": 10.0,
            "log": log or OffsetsLogSettings(),
            **fields,
        }
    )


def simulated(scenario):
    """Run a scenario with a directory that has topic `t` and one partition for offsets."""

    def test():
        async def run():
            directory = FakeDirectory()
            directory.create("t", 4)
            for access in directory.topics["t"]:
                access.append(*[b"x"] * 1000)
            (offsets,) = directory.create(OFFSETS_TOPIC, 1)
            await scenario(directory, offsets)

        for seed in range(5):
            simulate(run(), seed)

    test.__name__ = scenario.__name__
    return test


def world_of(directory, log=None, *, peers=None, **fields):
    return World(directory, offsets_settings=settings(log, **fields), peers=peers)


def commit(offset, partition=0, **fields):
    return OffsetCommit("t", b"", partition, offset, **fields)


async def store(world, *commits, group="g"):
    """Commit and return the refusals."""
    return [each.refusal for each in await world.offsets.commit(group, commits)]


async def offsets_of(world, group="g"):
    committed = await world.offsets.committed(group)
    return {key.partition: value.offset for key, value in committed.items()}


@simulated
async def test_what_was_committed_is_there_after_a_restart(directory, log):
    async with world_of(directory) as world:
        assert await store(world, commit(5), commit(7, 1, leader_epoch=3, metadata="m")) == [
            None,
            None,
        ]
    async with world_of(directory) as world:
        await asyncio.sleep(1)
        committed = await world.offsets.committed("g")
        value = committed[directory.topics["t"][1].id]
        assert (value.offset, value.leader_epoch, value.metadata) == (7, 3, "m")
        assert await offsets_of(world) == {0: 5, 1: 7}


@simulated
async def test_a_commit_is_answered_only_when_it_is_committed_in_the_log(directory, log):
    log.commits_at_once = False
    async with world_of(directory) as world:
        committing = asyncio.create_task(store(world, commit(5)))
        await asyncio.sleep(1)
        assert not committing.done()
        assert await offsets_of(world) == {}
        log.commit()
        assert await committing == [None]
        assert await offsets_of(world) == {0: 5}


@simulated
async def test_one_commit_call_is_one_batch(directory, log):
    async with world_of(directory) as world:
        await store(world, *[commit(n, n % 4) for n in range(8)])
    assert len(log.batches) == 1
    assert log.log_end_offset == 8


@simulated
async def test_while_one_batch_is_on_its_way_the_next_commits_gather(directory, log):
    log.commits_at_once = False
    async with world_of(directory) as world:
        committing = [asyncio.create_task(store(world, commit(n))) for n in range(50)]
        for _ in range(3):
            await asyncio.sleep(1)
            log.commit()
        assert [await each for each in committing] == [[None]] * 50
    assert log.submitted <= 3


@simulated
async def test_until_everything_is_loaded_nobody_is_told_that_there_is_no_offset(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
    log.high_watermark = 0
    async with world_of(directory) as world:
        await asyncio.sleep(5)
        with pytest.raises(Refusal) as caught:
            await offsets_of(world)
        assert caught.value.reason is Reason.COORDINATOR_LOADING
        (refusal,) = await store(world, commit(6))
        assert refusal.reason is Reason.COORDINATOR_LOADING
        log.commit()
        await asyncio.sleep(1)
        assert await offsets_of(world) == {0: 5}


@simulated
async def test_a_call_waits_a_little_for_offsets_that_are_being_loaded(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
    log.cold = True
    async with world_of(directory, coordinator_wait_s=2) as world:
        assert await offsets_of(world) == {0: 5}


@simulated
async def test_a_group_whose_offsets_are_offline_is_told_why_and_at_once(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
    log.broken = Refusal(Reason.PARTITION_OFFLINE, "it is offline, run this command")
    async with world_of(directory, coordinator_wait_s=2) as world:
        await asyncio.sleep(0.1)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Refusal, match="it is offline, run this command") as caught:
            await offsets_of(world)
        assert caught.value.reason is Reason.COORDINATOR_LOADING
        (refusal,) = await store(world, commit(6))
        assert "it is offline, run this command" in refusal.message
        assert asyncio.get_running_loop().time() == began_s
        log.broken = None
        await asyncio.sleep(OffsetsLogSettings().reload_max_s)
        assert await offsets_of(world) == {0: 5}


@simulated
async def test_loading_is_tried_again_until_the_partition_can_be_read(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
    log.broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    async with world_of(directory) as world:
        await asyncio.sleep(5)
        log.broken = None
        await asyncio.sleep(OffsetsLogSettings().reload_max_s)
        assert await offsets_of(world) == {0: 5}


KEY = OffsetsTopicKey(group_id="other", kind=OFFSETS_TOPIC_KIND_GROUP)
NOT_KNOWN = {
    "a kind": Record(key=OffsetsTopicKey(group_id="other", kind=99).SerializeToString()),
    "a field of a key": Record(key=KEY.SerializeToString() + b"\x78\x01"),
    "a version of a value": Record(
        key=KEY.SerializeToString(), value=GroupValue(version=99).SerializeToString()
    ),
}


@pytest.mark.parametrize("what", NOT_KNOWN)
def test_a_coordinator_that_does_not_know_all_that_is_said_serves_nobody_and_drops_nothing(what):
    async def scenario():
        directory = FakeDirectory()
        for access in directory.create("t", 4):
            access.append(*[b"x"] * 1000)
        (log,) = directory.create(OFFSETS_TOPIC, 1)
        async with world_of(directory) as world:
            # Enough to be rewritten as soon as it is loaded.
            for n in range(60):
                await store(world, commit(n))
        unknown = log.store(batch_of([NOT_KNOWN[what]]))
        end, batches = log.log_end_offset, list(log.batches)
        async with world_of(directory, REWRITES) as world:
            await asyncio.sleep(OffsetsLogSettings().reload_max_s)
            with pytest.raises(Refusal, match=f"record at offset {unknown} ") as caught:
                await offsets_of(world)
            assert caught.value.reason is Reason.COORDINATOR_LOADING
            (refusal,) = await store(world, commit(6))
            assert refusal.reason is Reason.COORDINATOR_LOADING
            assert f"record at offset {unknown} " in refusal.message
            await asyncio.sleep(100)
        assert (log.log_start_offset, log.log_end_offset, log.batches) == (0, end, batches)

    simulate(scenario(), 0)


@simulated
async def test_the_offsets_topic_is_made_with_the_first_commit_and_not_before(directory, log):
    directory.delete(OFFSETS_TOPIC)
    async with world_of(directory, partitions=16, coordinator_wait_s=1) as world:
        assert await offsets_of(world) == {}
        assert directory.made == []
        results = await asyncio.gather(*[store(world, commit(n), group=f"g{n}") for n in range(9)])
        assert results == [[None]] * 9
        ((name, partitions, configs),) = directory.made
        assert (name, partitions, configs["retention.ms"]) == (OFFSETS_TOPIC, 16, "-1")
        for n in range(9):
            assert await offsets_of(world, f"g{n}") == {0: n}
            home = directory.topics[OFFSETS_TOPIC][zlib.crc32(b"g%d" % n) % 16]
            assert home.log_end_offset > 0


@simulated
async def test_a_topic_made_anew_starts_without_offsets(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
        directory.delete("t")
        directory.create("t", 4)
        committed = await world.offsets.committed("g")
        assert directory.topics["t"][0].id not in committed
        (refusal,) = await store(world, OffsetCommit("t", b"\0" * 15 + b"\1", 0, 1))
        assert refusal.reason is Reason.TOPIC_ID_MISMATCH


@simulated
async def test_what_cannot_be_committed_is_told_beside_what_can(directory, log):
    async with world_of(directory) as world:
        refusals = await store(
            world, commit(5), commit(1001), commit(-1), commit(0, 9), commit(1000, 1)
        )
        assert [each and each.reason for each in refusals] == [
            None,
            Reason.OFFSET_OUT_OF_RANGE,
            Reason.INVALID_REQUEST,
            Reason.PARTITION_NOT_FOUND,
            None,
        ]
        assert await offsets_of(world) == {0: 5, 1: 1000}


@simulated
async def test_a_partition_that_is_offline_does_not_keep_its_group_from_committing(directory, log):
    directory.topics["t"][0].broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    async with world_of(directory) as world:
        assert await store(world, commit(5)) == [None]


@simulated
async def test_a_disk_that_is_behind_is_waited_for_and_no_later_commit_overtakes(directory, log):
    log.answers = [STALLED, STALLED]
    async with world_of(directory) as world:
        first = asyncio.create_task(store(world, commit(5)))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(store(world, commit(6)))
        assert (await first, await second) == ([None], [None])
        assert await offsets_of(world) == {0: 6}


@simulated
async def test_a_disk_that_stays_behind_fails_the_commit_and_changes_nothing(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
        log.answers = [STALLED] * 7
        (refusal,) = await store(world, commit(6))
        assert refusal.reason is Reason.STORAGE_STALLED
        assert await offsets_of(world) == {0: 5}
        assert await store(world, commit(7)) == [None]


@simulated
async def test_an_append_of_unknown_outcome_is_looked_up_in_the_log(directory, log):
    async with world_of(directory, coordinator_wait_s=1) as world:
        await store(world, commit(5))
        log.answers = [Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "who knows")]
        (refusal,) = await store(world, commit(6))
        assert not refusal.meaning.definite
        assert await offsets_of(world) == {0: 6}


@simulated
async def test_memory_is_bounded(directory, log):
    few = OffsetsLogSettings(limits=OffsetsLimits(entries_max=3))
    async with world_of(directory, few) as world:
        results = await asyncio.gather(*[store(world, commit(1), group=f"g{n}") for n in range(5)])
        reasons = [each and each.reason for (each,) in results]
        assert reasons.count(None) == 3
        assert reasons.count(Reason.LIMIT_EXCEEDED) == 2


@simulated
async def test_so_many_commits_may_wait_and_no_more(directory, log):
    log.commits_at_once = False
    async with world_of(directory, OffsetsLogSettings(waiting_max=10)) as world:
        committing = [asyncio.create_task(store(world, commit(n))) for n in range(30)]
        await asyncio.sleep(1)
        refused = [each.result()[0] for each in committing if each.done()]
        assert {each.reason for each in refused} == {Reason.OVERLOADED}
        log.commits_at_once = True
        log.commit()
        await asyncio.sleep(1)
        assert all(each.done() for each in committing)


@simulated
async def test_a_commit_larger_than_a_batch_is_refused(directory, log):
    log.max_batch_bytes = 1000
    async with world_of(directory) as world:
        (refusal,) = await store(world, commit(1, metadata="x" * 2000))
        assert refusal.reason is Reason.LIMIT_EXCEEDED
        assert "split" in refusal.message


@simulated
async def test_a_caller_that_is_gone_disturbs_nobody(directory, log):
    log.commits_at_once = False
    async with world_of(directory) as world:
        gone = asyncio.create_task(store(world, commit(5)))
        await asyncio.sleep(1)
        gone.cancel()
        other = asyncio.create_task(store(world, commit(6)))
        await asyncio.sleep(1)
        log.commits_at_once = True
        log.commit()
        assert await other == [None]


@simulated
async def test_a_broker_that_shuts_down_says_whether_it_stored(directory, log):
    log.commits_at_once = False
    async with world_of(directory) as world:
        written = asyncio.create_task(store(world, commit(5)))
        await asyncio.sleep(1)
        waiting = asyncio.create_task(store(world, commit(6)))
        await asyncio.sleep(1)
    assert [each.reason for each in await written] == [Reason.REQUEST_TIMED_OUT]
    assert [each.reason for each in await waiting] == [Reason.SHUTTING_DOWN]
    with pytest.raises(Refusal) as caught:
        await offsets_of(world)
    assert caught.value.reason is Reason.NOT_READY


@simulated
async def test_a_long_log_is_shortened_and_says_the_same(directory, log):
    async with world_of(directory, REWRITES) as world:
        for n in range(100):
            await store(world, commit(n, n % 4), group=f"g{n % 3}")
        await asyncio.sleep(1)
        assert log.log_end_offset - log.log_start_offset <= 45
        expected = [await offsets_of(world, f"g{n}") for n in range(3)]
    async with world_of(directory, REWRITES) as world:
        await asyncio.sleep(1)
        assert [await offsets_of(world, f"g{n}") for n in range(3)] == expected


@simulated
async def test_a_rewrite_drops_the_offsets_of_deleted_topics(directory, log):
    directory.create("gone", 1)[0].append(b"x")
    async with world_of(directory, REWRITES) as world:
        await store(world, OffsetCommit("gone", b"", 0, 1))
        directory.delete("gone")
        for n in range(60):
            await store(world, commit(n))
        await asyncio.sleep(1)
        assert world.offsets.coordinator.entries == 1


@simulated
async def test_a_rewrite_keeps_offsets_of_topics_that_it_may_only_not_have_heard_of(directory, log):
    directory.create("new", 1)[0].append(b"x")
    behind = True

    async def caught_up():
        if behind:
            raise Refusal(Reason.NOT_READY, "the metadata store does not answer")

    async with world_of(directory, REWRITES, peers=Peers(caught_up=caught_up)) as world:
        await store(world, OffsetCommit("new", b"", 0, 1))
        hidden = directory.topics.pop("new")
        for n in range(60):
            await store(world, commit(n))
        await asyncio.sleep(1)
        assert log.log_start_offset > 0
        directory.topics["new"] = hidden
        assert hidden[0].id in await world.offsets.committed("g")
        directory.delete("new")
        behind = False
        for n in range(60):
            await store(world, commit(n))
        await asyncio.sleep(1)
        assert world.offsets.coordinator.entries == 1


@simulated
async def test_without_an_offsets_topic_there_is_none_only_once_the_metadata_say_so(directory, log):
    kept = directory.topics[OFFSETS_TOPIC]
    answers = [Refusal(Reason.NOT_READY, "the metadata store does not answer"), kept, None]

    async def caught_up():
        answer = answers.pop(0)
        if isinstance(answer, Refusal):
            raise answer
        if answer is not None:
            directory.topics[OFFSETS_TOPIC] = answer

    async with world_of(directory) as world:
        await store(world, commit(5))
    del directory.topics[OFFSETS_TOPIC]
    async with world_of(directory, peers=Peers(caught_up=caught_up)) as world:
        with pytest.raises(Refusal) as caught:
            await offsets_of(world)
        assert caught.value.reason is Reason.NOT_READY
        # Another broker has made it.
        assert await offsets_of(world) == {0: 5}
        del directory.topics[OFFSETS_TOPIC]
        assert await offsets_of(world) == {}


@simulated
async def test_a_partition_that_is_opened_later_is_loaded_then(directory, log):
    async with world_of(directory) as world:
        await store(world, commit(5))
    offline = FakePartition(OFFSETS_TOPIC, log.id)
    offline.broken = Refusal(Reason.STORAGE_FULL, "it could not be opened yet")
    directory.topics[OFFSETS_TOPIC] = [offline]
    async with world_of(directory) as world:
        with pytest.raises(Refusal, match="could not be opened yet"):
            await offsets_of(world)
        directory.topics[OFFSETS_TOPIC] = [log]
        assert await offsets_of(world) == {0: 5}


@simulated
async def test_a_rewrite_that_fails_is_left_alone_for_a_while(directory, log):
    async with world_of(directory, REWRITES) as world:
        for n in range(20):
            await store(world, commit(n))
        log.answers = [None, Refusal(Reason.STORAGE_FULL, "full")]
        await store(world, commit(21))
        await asyncio.sleep(30)
        assert log.log_start_offset == 0
        before = log.submitted
        await store(world, commit(22))
        assert log.submitted == before + 1
        await asyncio.sleep(100)
        await store(world, commit(23))
        await asyncio.sleep(1)
        assert log.log_start_offset > 0
        assert await offsets_of(world) == {0: 23}


def test_no_crash_at_any_point_loses_an_acknowledged_commit():
    """Commits, rewrites and trims under a high watermark that lags, cut off at random moments."""

    async def run(dice):
        directory = FakeDirectory()
        for access in directory.create("t", 4):
            access.append(*[b"x"] * 10_000)
        (log,) = directory.create(OFFSETS_TOPIC, 1)
        acked, asked = {}, {}
        count = 0
        for _ in range(6):
            log.commits_at_once = False
            async with world_of(directory, REWRITES, coordinator_wait_s=5) as world:
                await recovered(world, acked, asked)

                async def client(name, world=world):
                    nonlocal count
                    while True:
                        partition = dice.randrange(4)
                        count += 1
                        key, value = (name, partition), count
                        asked.setdefault(key, []).append(value)
                        (refusal,) = await store(world, commit(value, partition), group=name)
                        if refusal is None:
                            acked[key] = value
                        await asyncio.sleep(dice.choice([0, 0.01]))

                async def disk():
                    while True:
                        await asyncio.sleep(dice.choice([0.001, 0.02]))
                        log.commit()

                tasks = [asyncio.create_task(client(f"g{n}")) for n in range(3)]
                tasks.append(asyncio.create_task(disk()))
                await asyncio.sleep(dice.uniform(0.05, 1.5))
                log.crash()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return log.log_start_offset

    async def recovered(world, acked, asked):
        for (group, partition), value in acked.items():
            found = (await offsets_of(world, group)).get(partition)
            later = [each for each in asked[group, partition] if each >= value]
            assert found in later, (group, partition, value, found)
            asked[group, partition] = [each for each in later if each >= found]
            acked[group, partition] = found

    trimmed = [simulate(run(random.Random(seed)), seed) for seed in range(10)]
    assert all(trimmed), "every run rewrote and trimmed"
