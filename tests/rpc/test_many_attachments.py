"""What many members' streams have in common: they are forgotten when they end, and look for a coordinator as one."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.places import EARLIEST
from riverrun_server.ports.coordination import MemberName
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.leadership import Leadership
from riverrun_server.runtime.coordinator import Coordinator
from riverrun_server.runtime.coordinator_finder import CoordinatorFinder
from riverrun_server.runtime.found_coordinators import FoundCoordinators
from riverrun_server.runtime.member_stream import MemberStream
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from tests.metadata.fakes import SeededDice
from tests.rpc.joined_world import G, with_members
from tests.runtime.test_routed_partition import virtual

HOME = PartitionId(b"o" * 16, 0)
AWAY = Refusal(Reason.NOT_READY, "the broker was not reached")


class Leaders:
    """Who leads the offsets topic, as it is said."""

    def __init__(self, leadership):
        self.leadership = leadership

    def of(self, _):
        return self.leadership

    def watch(self, _, changed):
        self.changed = changed
        return lambda: None


class Finding:
    """Many who look for one coordinator, which counts how often it is asked."""

    def __init__(self):
        self.leaders = Leaders(Leadership(2, 7))
        self.finder = CoordinatorFinder(SimpleNamespace(), self.leaders, 10.0)
        self.asked = 0
        self.is_there = False

    def once(self, found, within_s):
        self.asked += 1
        done = asyncio.get_running_loop().create_future()
        if self.is_there:
            asyncio.get_running_loop().call_later(0.001, done.set_result, found)
        else:
            done.set_exception(AWAY)
        return done

    async def look(self):
        search = self.finder.search("g", changes=True)
        return await self.finder.ask_among_many("g", HOME, search, self.once)


@with_members
async def test_a_stream_that_ends_leaves_nothing_with_its_coordinator(world):
    coordination = FoundCoordinators(world.offsets, Origin)
    attachment = await coordination.attach(G, Join(topics=("t",)))
    stream = MemberStream(
        *(G, attachment, coordination, world.directory, EARLIEST, SeededDice()),
        address="",
        delivers=True,
    )
    following = asyncio.create_task(attachment.news())
    await asyncio.sleep(0.1)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert [*attachment.coordinator.attachments] == [attachment]
    stream.close()
    assert not attachment.coordinator.attachments


@virtual
async def test_a_thousand_who_look_for_a_coordinator_ask_as_often_as_a_few():
    world = Finding()
    looking = [asyncio.create_task(world.look()) for _ in range(1000)]
    await asyncio.sleep(2.0)
    assert world.asked < 40
    world.is_there = True
    found = await asyncio.gather(*looking)
    assert len(found) == 1000
    assert world.asked < 1050


@virtual
async def test_another_leadership_is_asked_at_once_by_one():
    world = Finding()
    looking = [asyncio.create_task(world.look()) for _ in range(100)]
    await asyncio.sleep(2.0)
    asked = world.asked
    world.leaders.leadership = Leadership(3, 8)
    world.finder.changed(HOME)
    await asyncio.sleep(0.001)
    assert world.asked == asked + 1
    world.is_there = True
    await asyncio.gather(*looking)


@virtual
async def test_the_one_that_asks_may_go_away():
    world = Finding()
    first, *others = [asyncio.create_task(world.look()) for _ in range(100)]
    await asyncio.sleep(1.0)
    first.cancel()
    asked = world.asked
    await asyncio.sleep(1.0)
    assert asked < world.asked < asked + 20, "another one asks in its place"
    world.is_there = True
    await asyncio.gather(*others)


@virtual
async def test_one_that_must_not_ask_the_same_leadership_again_lets_another_ask():
    world = Finding()
    in_doubt = asyncio.get_running_loop().create_future()
    in_doubt.set_exception(Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "nobody knows"))
    search = world.finder.search("g", changes=True)
    stuck = asyncio.create_task(world.finder.ask_among_many("g", HOME, search, lambda *_: in_doubt))
    await asyncio.sleep(0.1)
    world.is_there = True
    async with asyncio.timeout(1):
        assert (await world.look()).home == HOME
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)


@virtual
async def test_where_it_was_lost_with_all_that_stood_with_it_one_looks_first():
    world = Finding()
    await asyncio.sleep(1.0)
    world.finder.doubt(HOME, asyncio.get_running_loop().time())
    looking = [asyncio.create_task(world.look()) for _ in range(100)]
    await asyncio.sleep(0.01)
    assert world.asked == 1
    world.is_there = True
    await asyncio.gather(*looking)


@virtual
async def test_a_call_that_has_come_to_the_wrong_broker_is_no_news():
    news = []
    services = SimpleNamespace(changed=news.append)
    leaders = Leaders(Leadership(1, 7))
    coordinator = Coordinator(lambda: [HOME], leaders, services, OffsetsLogSettings())
    running = asyncio.create_task(coordinator.run())
    coordinator.serve()
    await asyncio.sleep(0)
    began = len(news)
    for _ in range(100):
        with contextlib.suppress(Refusal):
            coordinator.remove_member(HOME, "g", MemberName(member_id="m"))
    assert len(news) <= began + 1
    leaders.leadership = Leadership(2, 8)
    with pytest.raises(Refusal, match="broker 2"):
        coordinator.remove_member(HOME, "g", MemberName(member_id="m"))
    assert len(news) <= began + 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
