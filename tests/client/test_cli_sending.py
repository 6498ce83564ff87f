"""Runs of records on their way through `send_many`, with a producer that the test holds up."""

from __future__ import annotations

import asyncio

import pytest

from riverrun import Reason, RiverrunError, SendSummary
from riverrun.cli.inputs import Run
from riverrun.cli.sending import RUNS_IN_FLIGHT_MAX, Sender


class HeldProducer:
    """A producer that takes records at once and acknowledges when it is told to."""

    def __init__(self):
        self.taken = []
        self.calls = []

    async def send_many(self, topic, records, *, partition=None):
        """Take everything, then wait for the test's word."""
        values = list(records)
        self.taken += values
        word = asyncio.get_running_loop().create_future()
        self.calls.append((word, partition))
        await word
        count = len(values)
        where = partition or 0
        return SendSummary(topic, count, 10 * count, 1, {where: (0, count)})


@pytest.fixture
def producer():
    return HeldProducer()


async def turns(count=20):
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_run_is_taken_while_the_one_before_is_not_acknowledged(producer):
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"a", b"b"]))
    await sender.send(Run([b"c"], 3))
    assert producer.taken == [b"a", b"b", b"c"]
    assert [partition for _, partition in producer.calls] == [None, 3]
    assert sender.totals.records == 0
    for word, _ in producer.calls:
        word.set_result(None)
    await sender.finish()
    assert sender.totals.records == 3
    assert sender.totals.offsets == {0: (0, 2), 3: (0, 1)}


async def test_no_more_than_so_many_runs_are_under_way(producer):
    sender = Sender(producer, "t", failed=lambda: None)

    async def send_all():
        for number in range(RUNS_IN_FLIGHT_MAX + 5):
            await sender.send(Run([b"%d" % number]))

    sending = asyncio.create_task(send_all())
    await turns(200)
    assert len(producer.calls) == RUNS_IN_FLIGHT_MAX
    producer.calls[0][0].set_result(None)
    await turns()
    assert len(producer.calls) == RUNS_IN_FLIGHT_MAX + 1
    sending.cancel()
    await sender.cancel()


async def test_after_a_failure_nothing_more_is_sent_and_the_rest_is_counted(producer):
    failures = []
    sender = Sender(producer, "t", failed=lambda: failures.append(1))
    for value in (b"a", b"b", b"c"):
        await sender.send(Run([value] * 5))
    error = RiverrunError("refused", reason=Reason.BATCH_TOO_LARGE)
    error.acknowledged_records = 2
    producer.calls[0][0].set_exception(error)
    later = RiverrunError("behind it", reason=Reason.BATCH_FAILED_BEFORE)
    producer.calls[1][0].set_exception(later)
    await turns()
    await sender.send(Run([b"late"]))
    assert b"late" not in producer.taken
    producer.calls[2][0].set_result(None)
    await sender.finish()
    assert sender.error is error
    assert failures == [1]
    assert sender.totals.records == 2 + 5
