"""How far replicas are behind is told by whoever answers; who does not keeps nobody waiting."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.rpc import replica_lags
from riverrun_server.rpc.replica_lags import lags_of
from tests.rpc.fake_partitions import FakePartition


def partition(number, lags):
    made = FakePartition("t", PartitionId(b"t" * 16, number))
    made.lags = lags
    return made


async def test_each_leader_tells_of_its_followers():
    told = await lags_of([partition(0, {2: 0, 3: 7}), None, partition(2, {1: 5})])
    assert told == [{2: 0, 3: 7}, {}, {1: 5}]


async def test_of_one_that_cannot_be_asked_nothing_is_told():
    broken = partition(0, {2: 1})
    broken.broken = Refusal(Reason.LEADER_NOT_AVAILABLE, "nobody answers")
    assert await lags_of([broken, partition(1, {3: 2})]) == [{}, {3: 2}]


async def test_one_that_does_not_answer_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(replica_lags, "_WITHIN_S", 0.05)
    silent = partition(0, {2: 1})
    silent.watermarks = asyncio.Event().wait
    async with asyncio.timeout(5):
        assert await lags_of([silent, partition(1, {3: 2})]) == [{}, {3: 2}]


async def test_whoever_is_gone_leaves_no_question_behind():
    silent, before = partition(0, {}), asyncio.all_tasks()
    silent.watermarks = asyncio.Event().wait
    asking = asyncio.create_task(lags_of([silent]))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() == before
