"""What operators ask of a coordinator with members, and what it forgets and writes again, in virtual time."""

import asyncio
import random

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.offsets import OffsetsLimits
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import (
    GroupQuery,
    MemberName,
    MemberState,
)
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from tests.rpc.joined_world import LIMITS, G, Members, beating, directory_of, with_members
from tests.sim.loop import simulate

STALLED = Refusal(Reason.STORAGE_STALLED, "behind")
FULL = Refusal(Reason.STORAGE_FULL, "no room")
DOUBT = Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "too few replicas")
REWRITES = OffsetsLogSettings(
    limits=OffsetsLimits(rewrite_records_min=20, rewrite_factor=2),
    groups=LIMITS,
    batch_bytes=2000,
)


def many(world, group):
    """Return offsets of more partitions than there are, which nobody minds."""
    (one,) = world.records({0: 1}, group)
    topic_id = one.partition.topic_id
    return [one._replace(partition=PartitionId(topic_id, number)) for number in range(300)]


async def refused(awaitable):
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value.reason


# --- operators


@with_members
async def test_a_reset_waits_until_the_partitions_are_given_up_and_then_wins(world):
    a, b = await world.joined("a", "b")
    mine = a.owned[0]
    assert await a.commit({mine: 100}) == {}
    keeps = b.view
    reset = world.coordinator.reset_offsets(world.home, G, world.records({mine: 3}), 30)
    await asyncio.sleep(0.1)
    assert a.revoking == [mine]
    assert await a.commit({mine: 200}) == {}, "until it has given it up"
    assert not reset.done()
    await a.acknowledge()
    await reset
    assert await world.committed() == {mine: 3}
    await asyncio.sleep(0.1)
    assert mine in a.owned
    given_in = a.view.owned[world.part(mine)]
    assert await a.commit({mine: 300}, epoch=given_in - 1) == {mine: Reason.FENCED_MEMBER_EPOCH}
    assert b.view == keeps


@with_members
async def test_a_reset_for_which_nobody_gives_way_changes_nothing(world):
    (a,) = await world.joined("a")
    assert await a.commit({1: 100}) == {}
    reset = world.coordinator.reset_offsets(world.home, G, world.records({1: 3}), 2)
    async with beating(a):
        assert await refused(reset) is Reason.CONFLICT
        await a.acknowledge()
        await asyncio.sleep(0.1)
    assert a.owned == [0, 1, 2, 3]
    assert await world.committed() == {1: 100}


@with_members
async def test_a_reset_whose_caller_is_gone_gives_the_partitions_back(world):
    (a,) = await world.joined("a")
    reset = world.coordinator.reset_offsets(world.home, G, world.records({1: 3}), 1000)
    await asyncio.sleep(0.1)
    reset.cancel()
    await a.acknowledge()
    await asyncio.sleep(0.1)
    assert a.owned == [0, 1, 2, 3]
    assert await world.committed() == {}


@with_members
async def test_a_group_without_members_is_reset_at_once(world):
    await world.coordinator.reset_offsets(world.home, G, world.records({1: 3}), 1)
    assert await world.committed() == {1: 3}


@with_members
async def test_groups_are_listed_by_name_with_those_that_have_only_offsets(world):
    await world.joined("a")
    await world.coordinator.commit(world.home, "only", world.records({0: 1}, "only"))
    await world.coordinator.commit(world.home, "another", world.records({0: 1}, "another"))

    async def names(query):
        page = await world.coordinator.list_groups(world.home, query)
        return [(each.group_id, each.state, each.members) for each in page.groups], page.more

    empty, stable = GroupState.EMPTY, GroupState.STABLE
    assert await names(GroupQuery("", 2)) == ([("another", empty, 0), (G, stable, 1)], True)
    assert await names(GroupQuery(G, 2)) == ([("only", empty, 0)], False)
    assert await names(GroupQuery("", 2, frozenset({stable}))) == ([(G, stable, 1)], False)


@with_members
async def test_a_group_is_described_with_who_has_what_and_through_whom(world):
    a, b = await world.joined("a", "b", client_id="app")
    await a.detach()
    described = await world.coordinator.describe(world.home, G)
    assert described.state is GroupState.STABLE
    assert [each.state for each in described.members] == [
        MemberState.DETACHED,
        MemberState.ATTACHED,
    ]
    assert [each.gateway for each in described.members] == [1, 1]
    assert [each.said.client_id for each in described.members] == ["app", "app"]
    assert described.members[1].view == b.view
    assert await refused(world.coordinator.describe(world.home, "nobody")) is Reason.GROUP_NOT_FOUND


@with_members
async def test_a_member_is_removed_by_either_of_its_names(world):
    a, b = await world.joined("a", "b", session_timeout_ms=60_000)
    c = await world.stream().join("c", instance_id="three")
    await world.settled(a, b, c)
    by_instance = MemberName(instance_id="three")
    assert await world.coordinator.remove_member(world.home, G, by_instance) == "c"
    assert c.why.reason is Reason.UNKNOWN_MEMBER
    gone = world.coordinator.remove_member(world.home, G, by_instance)
    assert await refused(gone) is Reason.UNKNOWN_MEMBER


@with_members
async def test_a_group_is_deleted_with_what_it_has_committed_but_not_with_members(world):
    (a,) = await world.joined("a")
    assert await a.commit({0: 1}) == {}
    delete = world.coordinator.delete_group
    assert await refused(delete(world.home, G)) is Reason.GROUP_HAS_MEMBERS
    await a.leave()
    commits = world.coordinator.commit(world.home, G, world.records({1: 4}))
    await delete(world.home, G)
    await commits
    assert await world.committed() == {}, "what was on its way before it is deleted, too"
    assert await refused(delete(world.home, G)) is Reason.GROUP_NOT_FOUND


@with_members
async def test_a_group_with_more_offsets_than_a_batch_holds_is_deleted_all_the_same(world):
    await world.coordinator.commit(world.home, "large", many(world, "large"))
    world.log.max_batch_bytes = 4000
    await world.coordinator.delete_group(world.home, "large")
    assert await world.committed("large") == {}


# --- what is forgotten, and what is written again


EXPIRES = OffsetsLogSettings(
    groups=GroupsLimits(pause_us_per_member=0, retention_ms=3_600_000), expiry_every_s=60.0
)


@with_members(log_settings=EXPIRES)
async def test_offsets_expire_when_nobody_has_needed_them_for_long_enough(world):
    await world.coordinator.commit(world.home, "only", world.records({0: 1}, "only"))
    (a,) = await world.joined("a", session_timeout_ms=1_800_000)
    assert await a.commit({0: 1}) == {}
    async with beating(a, every_s=600):
        await asyncio.sleep(2000)
        await world.coordinator.commit(world.home, "only", world.records({1: 1}, "only"))
        await asyncio.sleep(2000)
        assert await world.committed("only") == {1: 1}
        assert await world.committed() == {0: 1}, "a live group keeps everything"
        await a.leave()
        await asyncio.sleep(3500)
        assert await world.committed("only") == {}
        assert await world.committed() == {0: 1}
    await asyncio.sleep(300)
    assert await world.committed() == {}
    assert await refused(world.coordinator.describe(world.home, G)) is Reason.GROUP_NOT_FOUND


@with_members(log_settings=EXPIRES)
async def test_more_offsets_than_a_batch_holds_expire_all_the_same(world):
    await world.coordinator.commit(world.home, "large", many(world, "large"))
    world.log.max_batch_bytes = 4000
    await asyncio.sleep(3900)
    assert await world.committed("large") == {}


KEEPS = OffsetsLogSettings(
    groups=GroupsLimits(pause_us_per_member=0, retention_ms=-1), expiry_every_s=3600.0
)


@with_members(log_settings=KEEPS)
async def test_offsets_are_kept_for_good_where_that_is_wanted(world):
    await world.coordinator.commit(world.home, "only", world.records({0: 1}, "only"))
    await asyncio.sleep(100 * 86_400)
    assert await world.committed("only") == {0: 1}


def test_a_log_that_is_written_again_says_the_same_to_another_coordinator():
    async def run(seed):
        directory = directory_of(8)
        dice = random.Random(seed)
        async with Members(directory, REWRITES) as world:
            streams = [await world.stream().join(f"m{n}") for n in range(3)]
            await world.settled(*streams)
            for round_ in range(150):
                stream = dice.choice(streams)
                await stream.commit(dict.fromkeys(stream.owned, round_))
                if dice.random() < 0.2:
                    await world.coordinator.commit(
                        world.home, "other", world.records({0: round_}, "other")
                    )
                if dice.random() < 0.1:
                    again = await world.stream().reattach(stream)
                    streams[streams.index(stream)] = again
            await asyncio.sleep(1)
            assert world.log.log_start_offset > 0, "it was shortened"
            views = {each.member: each.view.owned for each in streams}
            committed = await world.committed(), await world.committed("other")
        async with Members(directory, REWRITES) as world:
            described = await world.coordinator.describe(world.home, G)
            assert {each.member_id: each.view.owned for each in described.members} == views
            assert (await world.committed(), await world.committed("other")) == committed

    for seed in range(5):
        simulate(run(seed), seed)


def test_a_batch_that_is_larger_than_one_append_may_be_goes_in_several():
    async def run():
        directory = directory_of(200)
        async with Members(directory) as world:
            world.log.max_batch_bytes = 2000
            streams = [world.stream() for _ in range(50)]
            await asyncio.gather(*[each.join(f"member-{n:03}") for n, each in enumerate(streams)])
            await world.settled(*streams)
            assert sorted(n for each in streams for n in each.owned) == list(range(200))
            assert {len(each.owned) for each in streams} == {4}

    simulate(run(), 0)
