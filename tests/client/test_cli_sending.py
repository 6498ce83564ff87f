"""Runs of records on their way through `send_many`, with a producer that the test holds up."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from riverrun import Reason, RiverrunError, SendSummary
from riverrun.cli.inputs import Run
from riverrun.cli.sending import RUNS_AHEAD, Sender


class HeldProducer:
    """A producer that takes records, acknowledges when it is let, and fails when it is told to."""

    def __init__(self):
        self.taken = {}
        self.calls = []
        self.under_way = set()
        self.let = asyncio.Event()
        self.let.set()
        self.errors = {}

    async def send_many(self, topic, records, *, partition=None):
        """Take records by two, giving others a turn in between, and count them."""
        assert partition not in self.under_way, "calls for one place may overtake each other"
        self.under_way.add(partition)
        self.calls.append(partition)
        taken = self.taken.setdefault(partition, [])
        before = len(taken)
        records = iter(records)
        while some := list(islice(records, 2)):
            taken += some
            await asyncio.sleep(0)
        await self.let.wait()
        self.under_way.discard(partition)
        if partition in self.errors:
            raise self.errors[partition]
        count = len(taken) - before
        first = 5 + before
        return SendSummary(topic, count, 10 * count, 1, {partition or 0: (first, first + count)})


@pytest.fixture
def producer():
    return HeldProducer()


async def turns(count=50):
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_runs_of_one_partition_are_sent_in_order(producer):
    sender = Sender(producer, "t", failed=lambda: None)
    for run in (Run([b"a", b"b"]), Run([b"x"], 3), Run([b"c"]), Run([b"y"], 3)):
        await sender.send(run)
    await sender.finish()
    assert producer.taken == {None: [b"a", b"b", b"c"], 3: [b"x", b"y"]}
    assert sender.totals.records == 5
    assert sender.totals.batches == len(producer.calls)
    assert sender.totals.offsets == {0: (5, 8), 3: (5, 7)}


async def test_runs_that_come_while_a_call_encodes_belong_to_it(producer):
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"a"] * 20))
    await turns(3)
    await sender.send(Run([b"b"] * 20))
    await sender.finish()
    assert producer.calls == [None]
    assert producer.taken == {None: [b"a"] * 20 + [b"b"] * 20}


async def test_runs_that_come_while_a_call_waits_for_acknowledgement_make_the_next_one(producer):
    producer.let.clear()
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"a"]))
    await turns()
    await sender.send(Run([b"b"]))
    await sender.send(Run([b"c"]))
    await turns()
    assert producer.taken == {None: [b"a"]}
    producer.let.set()
    await sender.finish()
    assert producer.taken == {None: [b"a", b"b", b"c"]}
    assert producer.calls == [None, None]


async def test_a_run_is_taken_before_the_next_one_comes(producer):
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"a"]))
    await turns()
    assert producer.taken == {None: [b"a"]}
    await sender.cancel()


async def test_no_more_than_some_runs_wait(producer):
    producer.let.clear()
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"first"]))
    await turns()
    sent = []

    async def send_all():
        for number in range(10):
            await sender.send(Run([b"%d" % number]))
            sent.append(number)

    sending = asyncio.create_task(send_all())
    await turns()
    assert len(sent) == RUNS_AHEAD
    producer.let.set()
    await sending
    await sender.finish()
    assert producer.taken[None] == [b"first", *(b"%d" % number for number in range(10))]


async def test_after_a_failure_nothing_more_is_sent_and_the_rest_is_counted(producer):
    failures = []
    error = RiverrunError("refused", reason=Reason.BATCH_TOO_LARGE)
    error.acknowledged_records = 1
    producer.errors[7] = error
    sender = Sender(producer, "t", failed=lambda: failures.append(1))
    await sender.send(Run([b"a"] * 3))
    await sender.send(Run([b"b"] * 3, 7))
    await turns()
    assert failures == [1]
    await sender.send(Run([b"late"]))
    await sender.send(Run([b"late"], 7))
    await sender.finish()
    assert sender.error is error
    assert sender.totals.records == 3 + 1
    assert b"late" not in producer.taken[None]


async def test_an_outcome_that_nobody_knows_is_told_before_one_that_is_known(producer):
    known = RiverrunError("refused", reason=Reason.BATCH_TOO_LARGE)
    known.acknowledged_first = 1
    doubtful = RiverrunError("lost", reason=Reason.CONNECTION_LOST, outcome_known=False)
    producer.errors |= {7: known, 8: doubtful}
    producer.let.clear()
    sender = Sender(producer, "t", failed=lambda: None)
    for partition in (7, 8):
        await sender.send(Run([b"a"] * 3, partition))
    producer.let.set()
    await sender.finish()
    assert sender.error is doubtful
    assert sender.acknowledged_first is None, "there are several lanes"


async def test_what_is_acknowledged_from_the_first_on_counts_the_calls_before(producer):
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"a"] * 3))
    await turns()
    error = RiverrunError("refused", reason=Reason.BATCH_TOO_LARGE)
    error.acknowledged_records, error.acknowledged_first = 4, 2
    producer.errors[None] = error
    await sender.send(Run([b"b"] * 6))
    await sender.finish()
    assert sender.totals.records == 3 + 4
    assert sender.acknowledged_first == 3 + 2


async def test_a_failure_lets_go_of_who_waits_for_room(producer):
    error = RiverrunError("refused", reason=Reason.BATCH_TOO_LARGE)
    producer.errors[None] = error
    producer.let.clear()
    sender = Sender(producer, "t", failed=lambda: None)
    await sender.send(Run([b"first"]))
    await turns()

    async def send_all():
        for _ in range(50):
            await sender.send(Run([b"a"] * 3))

    sending = asyncio.create_task(send_all())
    await turns()
    assert not sending.done()
    producer.let.set()
    await sending
    await sender.finish()
    assert sender.error is error


async def test_an_error_that_is_not_the_librarys_is_raised_at_the_end(producer):
    failures = []
    producer.errors[7] = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
    sender = Sender(producer, "t", failed=lambda: failures.append(1))
    await sender.send(Run([b"a"] * 3))
    await sender.send(Run([b"b"] * 3, 7))
    await turns()
    assert failures == [1]
    await sender.send(Run([b"late"]))
    with pytest.raises(UnicodeEncodeError):
        await sender.finish()
    await sender.cancel()
    assert b"late" not in producer.taken[None]
