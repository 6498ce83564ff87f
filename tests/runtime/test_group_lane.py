"""Commits of one group: the last one is what is found, whichever of them are tried again."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.groups.search import CoordinatorSearch
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Origin
from riverrun_server.runtime.group_lane import GroupCommit, GroupLanes
from tests.sim.loop import simulate

FULL = Refusal(Reason.LIMIT_EXCEEDED, "too much")


def commit(number, partitions=(0,)):
    records = [
        OffsetRecord("g", PartitionId(b"t" * 16, each), CommittedOffset(number, None, "", 0))
        for each in partitions
    ]
    return GroupCommit(records, Origin(), CoordinatorSearch("g", 10.0, changes=True))


class Log:
    """Stores what is tried, or not, as the dice say; some of what it stores it does not admit to."""

    def __init__(self, dice):
        self.dice = dice
        self.stored = {}
        self.tries = []

    async def try_once(self, group_id, commits, stir):
        self.tries.append([each.records[0].value.offset for each in commits])
        outcomes = []
        for each in commits:
            outcome = self.dice.choice(["stored", "stored", "moved", "doubt", "full"])
            if outcome in ("stored", "doubt"):
                self.stored.update((record.partition.partition, record) for record in each.records)
            outcomes.append(outcome)
        await asyncio.sleep(self.dice.choice([0, 0.01]))
        for each, outcome in zip(commits, outcomes, strict=True):
            if outcome == "stored":
                each.stored({})
            elif outcome == "full":
                each.failed(FULL)


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=15), st.integers())
def test_of_several_commits_the_newest_that_was_answered_well_is_found(asked, seed):
    async def run():
        dice = random.Random(seed)
        log, tasks = Log(dice), []
        lanes = GroupLanes(
            log.try_once, lambda work, _: tasks.append(asyncio.create_task(work)), len(asked)
        )
        commits = [commit(number, sorted(keys)) for number, keys in enumerate(asked)]
        newest = {}
        for each in commits:
            lanes.put("g", each)
            if dice.random() < 0.5:
                await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        for number, (each, keys) in enumerate(zip(commits, asked, strict=True)):
            assert each.done.done()
            if each.done.exception() is None:
                newest.update(dict.fromkeys(keys, number))
        for key, number in newest.items():
            assert log.stored[key].value.offset >= number
        assert all(tried == sorted(tried) for tried in log.tries)

    simulate(run(), seed % 1000)


def test_so_many_may_wait_for_a_group_and_no_more():
    async def run():
        release, tasks = asyncio.Event(), []

        async def try_once(group_id, commits, stir):
            await release.wait()
            for each in commits:
                each.stored({})

        lanes = GroupLanes(try_once, lambda work, _: tasks.append(asyncio.create_task(work)), 2)
        lanes.put("g", commit(0))
        await asyncio.sleep(0.01)
        waiting = [commit(1), commit(2)]
        for each in waiting:
            lanes.put("g", each)
        with pytest.raises(Refusal) as caught:
            lanes.put("g", commit(3))
        assert caught.value.reason is Reason.OVERLOADED
        lanes.put("h", commit(4))
        release.set()
        await asyncio.gather(*tasks)
        assert all(each.is_stored for each in waiting)

    simulate(run(), 1)


def test_a_lane_that_is_cut_off_says_of_what_was_sent_that_nobody_knows():
    async def run():
        tasks = []

        async def try_once(group_id, commits, stir):
            commits[0].is_sent = True
            await asyncio.Event().wait()

        lanes = GroupLanes(try_once, lambda work, _: tasks.append(asyncio.create_task(work)), 2)
        sent, waiting = commit(0), commit(1)
        lanes.put("g", sent)
        await asyncio.sleep(0.01)
        lanes.put("g", waiting)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sent.done.exception().reason is Reason.REQUEST_TIMED_OUT
        assert waiting.done.exception().reason is Reason.SHUTTING_DOWN

    simulate(run(), 1)
