"""What is tried again, for how long, and what is said when that was in vain."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import riverrun
from riverrun import Reason, TimedOutError, TopicPartition
from riverrun._core.backoff import Backoff
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.sequences import PartitionLane
from riverrun._net.failures import from_proto
from riverrun.v1 import errors_pb2 as pb
from riverrun_server.core.errors import MEANINGS
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan

TOPIC = "t"
PLACE = TopicPartition(TOPIC, 0)
STUCK = dict.fromkeys(range(100_000), Fault.DROP_BEFORE)

# Answers about sequences and order, not about the batch; they have tests of their own.
ABOUT_ORDER = {
    "OUT_OF_ORDER_SEQUENCE",
    "UNKNOWN_PRODUCER",
    "PRODUCER_FENCED",
    "PRECEDING_FAILED",
}
REASONS = [reason for reason in MEANINGS if reason.name not in ABOUT_ORDER]


def lane_with_one_batch(idempotent=True, uniform=lambda: 0.0, deadline_s=10.0):
    lane = PartitionLane(
        PLACE, idempotent=idempotent, window=5, backoff=Backoff(uniform), split=lambda _: None
    )
    batch = OutgoingBatch(PLACE, b"x", 1, 0, 0, deadline_s, 1, None)
    lane.add(batch)
    return lane, batch


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_what_the_broker_says_of_an_error_decides_whether_it_is_retried(reason, idempotent):
    meaning = MEANINGS[reason]
    said = from_proto(
        pb.Error(
            reason=pb.ErrorReason.ValueType(reason),
            outcome=pb.OUTCOME_NOTHING_HAPPENED if meaning.definite else pb.OUTCOME_UNKNOWN,
            retry_safe=meaning.retry_safe,
        )
    )
    lane, batch = lane_with_one_batch(idempotent)
    lane.send(1, 0.0)
    resolutions = lane.answered(batch, None, said, 0.0)
    if meaning.retry_safe if meaning.definite else idempotent:
        assert resolutions == []
        assert lane.sendable(0.1)
    else:
        ((_, _, error),) = resolutions
        assert error.reason is Reason(reason.name)
        assert error.outcome_known is meaning.definite
        assert ("the outcome is unknown" in str(error)) is not meaning.definite
        assert not lane.unresolved, "nothing of it is sent again"


@given(
    dice=st.lists(st.floats(0, 1, exclude_max=True), min_size=1),
    after_s=st.none() | st.floats(0, 100),
    deadline_s=st.floats(0.01, 30),
    unknown=st.booleans(),
)
def test_a_batch_is_given_up_at_its_deadline_whatever_it_waits_for(
    dice, after_s, deadline_s, unknown
):
    rolled = iter(dice * 1_000)
    lane, batch = lane_with_one_batch(True, lambda: next(rolled, 0.5), deadline_s)
    reason = Reason.REQUEST_TIMED_OUT if unknown else Reason.STORAGE_STALLED
    now_s, attempts = 0.0, 0
    while lane.unresolved and attempts < 900:
        assert lane.next_deadline_s() == deadline_s
        if lane.sendable(now_s):
            lane.send(1, now_s)
            attempts += 1
            refusal = riverrun.RetriableError(
                "not now", reason=reason, outcome_known=not unknown, retry_after_s=after_s
            )
            assert lane.answered(batch, None, refusal, now_s) == []
            assert now_s <= lane.hold_until_s <= now_s + (after_s or 0) + 2.0
        # What a driver does: it wakes at whichever comes first.
        now_s = min(max(lane.hold_until_s, now_s + 1e-3), deadline_s)
        if now_s >= deadline_s:
            ((_, _, error),) = lane.expired(now_s, "too late")
            assert isinstance(error, TimedOutError)
            assert error.outcome_known is not unknown
            assert "the broker's last answer was: not now" in error.message
    assert attempts


async def test_waiting_for_room_ends_with_the_delivery_timeout():
    broker = FakeBroker(Plan(STUCK))
    broker.add_topic(TOPIC)
    settings = {"batch_bytes": 1_000, "buffer_bytes": 1_000, "delivery_timeout_s": 0.3}
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        sent = [producer.send(TOPIC, bytes(900)) for _ in range(20)]
        sent.append(producer.send_many(TOPIC, [bytes(900)]))
        failures = await asyncio.gather(*sent, return_exceptions=True)
        # One after the other, each would have waited for all before it: for 21 times 0.3 s.
        assert loop.time() - began_s < 3
        assert {type(failure) for failure in failures} == {TimedOutError}
        waited = [failure for failure in failures if "found no room" in failure.message]
        assert len(waited) >= 15
        assert all(failure.outcome_known for failure in waited)
        broker.plan.appends.clear()
        await producer.send(TOPIC, b"and there is room again")
        assert producer.statistics().buffered_bytes == 0


async def test_a_call_that_is_made_again_ends_with_the_request_timeout_though_nobody_answers():
    broker = FakeBroker()
    async with broker.serving() as address:
        client = impatient(address, request_timeout_s=0.5, connect_timeout_s=60)
        await client.server_info()
    # The broker has gone.
    async with client:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(riverrun.RetriableError) as caught:
            await client.server_info()
        assert loop.time() - began_s < 10
    assert not isinstance(caught.value, riverrun.NoBrokerError)
    assert "the connection failed" in caught.value.message


async def test_finding_a_broker_at_first_takes_nothing_from_the_request_timeout():
    broker = FakeBroker()
    noted = broker.note

    async def note(name, context):
        if name == "DescribeTopic":
            await asyncio.sleep(0.1)  # What it takes: a call without any time left would fail.
        await noted(name, context)

    broker.note = note
    broker.add_topic(TOPIC)
    async with broker.serving() as address:
        pass
    port = int(address.rpartition(":")[2])
    async with impatient(address, request_timeout_s=0.5, connect_timeout_s=60) as client:
        asking = asyncio.create_task(client.admin().describe_topic(TOPIC))
        done, _ = await asyncio.wait({asking}, timeout=1.0)
        assert not done, "nobody answers yet"
        async with broker.serving(port):
            assert (await asking).topic.name == TOPIC


async def test_a_definite_refusal_is_raised_by_the_first_answer():
    for reason in ("INVALID_RECORD", "LIMIT_EXCEEDED", "TOPIC_RESERVED", "INTERNAL"):
        broker = FakeBroker(Plan(dict.fromkeys(range(9), FakeRefusal(reason, "never"))))
        broker.add_topic(TOPIC)
        async with (
            broker.serving() as address,
            impatient(address) as client,
            client.producer() as producer,
        ):
            with pytest.raises(riverrun.RiverrunError, match="never") as caught:
                await producer.send(TOPIC, b"v")
        assert caught.value.reason is Reason(reason)
        assert caught.value.outcome_known
        assert broker.plan.append_number == 1
        assert producer.statistics().retries == 0
