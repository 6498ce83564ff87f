"""Headers go out as they were when the record was given, whatever they were given as."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

import riverrun
import riverrun.blocking
from riverrun import NewRecord, Reason, UsageError
from riverrun._core import accumulator
from riverrun._core.headers import own_headers
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"


@asynccontextmanager
async def producing(**settings):
    broker = FakeBroker()
    broker.add_topic(TOPIC, 2)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, client, producer


async def headers_in(client) -> list:
    async with client.consumer(TOPIC, partitions=[0], stop_at_end=True) as consumer:
        return [tuple(record.headers) async for record in consumer]


def anew(headers: list, number: int) -> list:
    """Fill a list anew, as a loop does that saves making one."""
    headers[:] = [("n", b"%d" % number)]
    return headers


EACH = [(("n", b"%d" % number),) for number in range(5)]


async def test_a_list_that_is_filled_anew_for_each_record_is_sent_as_it_was_each_time():
    headers: list = []
    async with producing(linger_s=0.02) as (_, client, producer):
        for n in range(5):
            producer.send_nowait(TOPIC, b"", partition=0, headers=anew(headers, n))
        await producer.flush()
        assert await headers_in(client) == EACH


@pytest.mark.parametrize("serializer", ["bytes", "str"])
async def test_send_many_sends_a_list_that_is_filled_anew_as_it_was_each_time(serializer):
    headers: list = []
    value = "" if serializer == "str" else b""
    async with producing() as (_, client, _):
        producer = client.producer(value_serializer=serializer)
        records = (NewRecord(value, headers=anew(headers, n)) for n in range(5))
        await producer.send_many(TOPIC, records, partition=0)
        assert await headers_in(client) == EACH


async def test_what_is_appended_later_and_cannot_be_sent_harms_nobody():
    headers: list = [("n", b"0")]
    async with producing(linger_s=0.02) as (_, client, producer):
        futures = [
            producer.send_nowait(TOPIC, b"", partition=0, headers=headers),
            producer.send_nowait(TOPIC, b"", partition=0),
        ]
        headers.append(("bad", None))
        assert [(await future).offset for future in futures] == [0, 1]
        assert await headers_in(client) == [EACH[0], ()]


@pytest.mark.parametrize(
    "given",
    [
        lambda: {"a": b"1", "b": b"2"},
        lambda: zip("ab", [b"1", b"2"], strict=True),
        lambda: (pair for pair in [("a", b"1"), ("b", b"2")]),
        lambda: [["a", b"1"], ["b", b"2"]],
    ],
    ids=["mapping", "zip", "generator", "lists"],
)
async def test_whatever_gives_pairs_is_taken(given):
    async with producing() as (_, client, producer):
        await producer.send(TOPIC, b"", partition=0, headers=given())
        await producer.send_many(TOPIC, [NewRecord(b"", headers=given())], partition=0)
        assert await headers_in(client) == [(("a", b"1"), ("b", b"2"))] * 2


@pytest.mark.parametrize("wrong", [None, 5, "ab", b"ab", [("a", b"1", 2)], [None], (("a",),)])
async def test_what_is_no_pairs_is_refused_with_what_it_must_be(wrong):
    async with producing() as (_, _, producer):
        with pytest.raises(UsageError, match="must be pairs of str and bytes") as caught:
            producer.send_nowait(TOPIC, b"", headers=wrong)
        assert caught.value.reason is Reason.INVALID_REQUEST
    with pytest.raises(UsageError, match="must be pairs"):
        NewRecord(b"", headers=wrong)


async def test_a_mapping_of_anything_else_than_bytes_is_refused():
    async with producing() as (_, _, producer):
        with pytest.raises(UsageError, match="value of type str; it must be bytes: encode it"):
            producer.send_nowait(TOPIC, b"", headers={"a": "text"})


def test_pairs_that_cannot_change_are_not_copied():
    headers = (("a", b"1"), ("b", b"2"))
    assert own_headers(headers) is headers


async def test_a_batch_that_a_bug_keeps_from_being_encoded_fails_alone(monkeypatch):
    encode = accumulator.encode_rows

    def broken(rows, limit_bytes):
        if any(value == b"bad" for _, value, _, _ in rows):
            raise TypeError("the table is too short")
        return encode(rows, limit_bytes)

    monkeypatch.setattr(accumulator, "encode_rows", broken)
    told = []
    async with producing(linger_s=0.02) as (_, _, producer):
        good = producer.send_nowait(TOPIC, b"good", partition=1)
        bad = [
            producer.send_nowait(
                TOPIC, value, partition=0, on_delivery=lambda error, _: told.append(error)
            )
            for value in (b"bad", b"beside")
        ]
        await producer.flush()
        assert good.result().offset == 0
        for future in bad:
            with pytest.raises(UsageError, match="the table is too short") as caught:
                future.result()
            assert caught.value.outcome_known
        assert len(told) == 2
        assert producer.statistics().buffered_bytes == 0
        assert (await producer.send(TOPIC, b"later", partition=0)).offset == 0


def test_a_blocking_producer_copies_them_before_it_returns(real_broker, own_topic):
    headers: list = []
    with riverrun.blocking.Client(real_broker.address) as client:
        client.admin().create_topic(own_topic, partitions=1)
        with client.producer() as producer:
            for n in range(5):
                producer.send_nowait(own_topic, b"", headers=anew(headers, n))
            producer.send(own_topic, b"", headers={"a": b"1"})
        with client.consumer(own_topic, stop_at_end=True) as consumer:
            assert [tuple(record.headers) for record in consumer] == [*EACH, (("a", b"1"),)]
