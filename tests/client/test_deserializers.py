"""Records whose keys and values are more than bytes, and those that are not what they should be."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys

import pytest
from google.protobuf.struct_pb2 import Struct

import riverrun
from riverrun import DeserializationError, Reason, TopicPartition
from riverrun.deserializers import deserializer
from riverrun.v1.records_pb2 import Header
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.filling import fill

TOPIC = "t"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


@pytest.fixture
async def broker():
    broker = FakeBroker()
    broker.add_topic(TOPIC, 2)
    return broker


@pytest.fixture
async def client(broker):
    async with broker.serving() as address, impatient(address) as client:
        yield client


async def send(client, *values: bytes | None, key: bytes | None = None, partition: int = 0):
    async with client.producer() as producer:
        await producer.send_many(
            TOPIC, [riverrun.NewRecord(value, key) for value in values], partition=partition
        )


def reading(client, **settings):
    return client.consumer(TOPIC, **({"stop_at_end": True} | settings))


def even(data: bytes) -> int:
    """Return an even number."""
    number = int(data)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@pytest.mark.parametrize(
    ("wanted", "sent", "got"),
    [
        ("bytes", b"\xff\x00", b"\xff\x00"),
        ("str", "é".encode(), "é"),
        ("str", b"", ""),
        ("json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("json", b"null", None),
        ("json", '"é"'.encode("utf-16"), "é"),
        (Struct, Struct(fields={}).SerializeToString(), Struct()),
        (Header, Header(key="k", value=b"v").SerializeToString(), Header(key="k", value=b"v")),
        (int, b"17", 17),
        (lambda data: data[::-1], b"abc", b"cba"),
    ],
)
async def test_keys_and_values_are_what_was_asked_for(client, wanted, sent, got):
    await send(client, sent, key=sent)
    async with reading(client, value_deserializer=wanted) as consumer:
        record = await anext(consumer)
    assert (record.key, record.value) == (sent, got)
    async with reading(client, key_deserializer=wanted) as consumer:
        (record,) = await consumer.getmany(timeout_s=5)
    assert (record.key, record.value) == (got, sent)
    assert isinstance(record, riverrun.Record)
    assert (record.topic_partition, record.offset) == (PLACE, 0)


async def test_what_is_not_there_stays_none(client):
    await send(client, None)
    async with reading(client, key_deserializer="json", value_deserializer=even) as consumer:
        record = await anext(consumer)
    assert (record.key, record.value) == (None, None)


async def test_batches_stay_as_they_are(client):
    await send(client, b"1", b"2")
    async with reading(client, value_deserializer=even) as consumer:
        assert [batch.values() async for batch in consumer.batches()] == [[b"1", b"2"]]


@pytest.mark.parametrize("way", ["one", "many"])
async def test_a_record_that_is_not_what_it_should_be_is_told_once_behind_those_before_it(
    client, way
):
    await send(client, b"0", b"2", b"3", b"4")
    async with reading(client, value_deserializer=even) as consumer:
        if way == "one":
            seen = [(await anext(consumer)).value for _ in range(2)]
        else:
            seen = [record.value for record in await consumer.getmany(timeout_s=5)]
        assert seen == [0, 2]
        with pytest.raises(DeserializationError) as caught:
            await (anext(consumer) if way == "one" else consumer.getmany())
        error = caught.value
        assert (error.partition, error.offset, error.part) == (PLACE, 2, "value")
        assert (error.reason, error.record.value) == (Reason.DESERIALIZATION_FAILED, b"3")
        assert "t[0]: the value of the record at offset 2 cannot be deserialized: " in str(error)
        assert "ValueError: 3 is odd" in str(error)
        assert isinstance(error.__cause__, ValueError)
        assert await consumer.position(PLACE) == 2
        assert consumer.statistics().records == 2


async def test_an_error_that_waits_for_the_next_call_is_dropped_by_a_seek(client):
    await send(client, b"0", b"2")
    await send(client, b"3", b"4")
    async with reading(client, value_deserializer=even) as consumer:
        await all_there(consumer, 4)
        assert [record.value for record in await consumer.getmany()] == [0, 2]
        await consumer.seek(PLACE, 3)
        assert [record.value for record in await consumer.getmany()] == [4]


async def test_an_error_that_waits_for_the_next_call_is_told_where_a_pause_ends(client):
    await send(client, b"0", b"2")
    await send(client, b"3", b"4")
    async with reading(client, value_deserializer=even) as consumer:
        await all_there(consumer, 4)
        assert [record.value for record in await consumer.getmany()] == [0, 2]
        consumer.pause([PLACE])
        consumer.resume([PLACE])
        with pytest.raises(DeserializationError):
            await consumer.getmany()


async def all_there(consumer, end):
    """Wait until everything has been read ahead."""
    await consumer.assignment()
    async with asyncio.timeout(5):
        while consumer._machine.readers[PLACE].expected < end:
            await consumer._loop.change()


async def test_the_other_partitions_go_on_and_the_end_is_not_reached_quietly(client):
    await send(client, b"1")
    await send(client, b"2", b"4", partition=1)
    async with reading(client, value_deserializer=even) as consumer:
        seen, errors = [], 0
        while len(seen) < 2:
            try:
                seen.append((await anext(consumer)).value)
            except DeserializationError:
                errors += 1
        assert (seen, errors) == ([2, 4], 1)
        for _ in range(2):
            with pytest.raises(DeserializationError):
                await anext(consumer)
        assert await consumer.positions() == {PLACE: 0, OTHER: 2}


async def test_a_seek_steps_over_it(client):
    await send(client, b"0", b"1", b"2", b"3", b"5", b"6")
    seen = []
    async with reading(client, value_deserializer=even) as consumer:
        while True:
            try:
                while True:
                    seen.append((await anext(consumer)).value)
            except StopAsyncIteration:
                break
            except DeserializationError as error:
                await consumer.seek(error.partition, error.offset + 1)
    assert seen == [0, 2, 6]


async def test_a_seek_to_it_reads_it_again_raw_or_with_another_try(client):
    broken = True

    def sometimes(data: bytes) -> bytes:
        if broken and data == b"1":
            raise LookupError("the registry is away")
        return data

    await send(client, b"0", b"1", b"2")
    async with reading(client, value_deserializer=sometimes) as consumer:
        assert (await anext(consumer)).value == b"0"
        with pytest.raises(DeserializationError) as caught:
            await anext(consumer)
        # What it advises can be typed.
        advice = f"consumer.seek(riverrun.TopicPartition({PLACE.topic!r}, {PLACE.partition}), 2);"
        assert advice in caught.value.message
        await consumer.seek(PLACE, 1)
        assert (await anext(consumer.batches())).values() == [b"1", b"2"]
        await consumer.seek(PLACE, 1)
        with pytest.raises(DeserializationError):
            await anext(consumer)
        broken = False
        await consumer.seek(PLACE, 1)
        assert [record.value async for record in consumer] == [b"1", b"2"]


async def test_it_is_not_committed(client, broker):
    await send(client, b"0", b"1")
    consumer = reading(client, group="g", commit="auto", value_deserializer=even)
    await anext(consumer)
    with pytest.raises(DeserializationError):
        await anext(consumer)
    await consumer.close()
    assert broker.commits["g", TOPIC, 0][0] == 1


async def test_large_batches_are_deserialized_as_they_are_asked_for(client, broker):
    made = []
    fill(broker.partition(TOPIC), 2000, batch=1000)
    async with reading(client, value_deserializer=lambda data: made.append(data) or data) as c:
        await anext(c)
        assert len(made) < 1000
        assert len([record async for record in c]) == 1999
        assert len(made) == 2000, "some were deserialized twice"


async def test_records_taken_one_by_one_and_some_at_a_time_are_deserialized_once(client, broker):
    fill(broker.partition(TOPIC), 900, batch=450)
    numbers = []
    # Text has nothing to decode, so that whoever does it twice fails.
    async with reading(client, value_deserializer="str") as consumer:
        while some := await consumer.getmany(70):
            numbers += [record.value for record in some]
            record = await anext(consumer, None)
            numbers += [record.value] if record else []
    assert numbers == [str(number) for number in range(900)]


def test_the_error_can_be_copied_and_pickled():
    record = riverrun.Record("t", 0, 5, 1, None, b"x", ())
    error = DeserializationError("no", record=record, part="value")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (other.record, other.part, str(other)) == (record, "value", str(error))


@pytest.mark.parametrize("wanted", ["utf-8", 5, None])
async def test_what_is_no_deserializer_is_refused(client, wanted):
    with pytest.raises(riverrun.UsageError, match='use "bytes", "str", "json", a protobuf'):
        client.consumer(TOPIC, value_deserializer=wanted)
    with pytest.raises(riverrun.UsageError, match="is no deserializer"):
        deserializer(wanted)


TYPED = """
from typing import Any, assert_type
import riverrun
from google.protobuf.struct_pb2 import Struct

def number(data: bytes) -> int:
    return int(data)

async def work(client: riverrun.Client) -> None:
    plain = client.consumer("t", group="g", commit="auto")
    assert_type(plain, riverrun.Consumer[bytes, bytes])
    async for record in plain:
        assert_type(record, riverrun.Record[bytes, bytes])
        assert_type(record.value, bytes | None)
    texts = client.consumer("t", key_deserializer="str", value_deserializer=number)
    for other in await texts.getmany():
        assert_type(other.key, str | None)
        assert_type(other.value, int | None)
    assert_type(client.consumer("t", value_deserializer=Struct), riverrun.Consumer[bytes, Struct])
    assert_type(client.consumer("t", value_deserializer="str"), riverrun.Consumer[bytes, str])
    json = client.consumer("t", key_deserializer=number, value_deserializer="json")
    assert_type(json, riverrun.Consumer[int, Any])
    async with texts as same:
        assert_type(same, riverrun.Consumer[str, int])

def plain(record: riverrun.Record) -> bytes | None:
    return record.value

def typed(record: riverrun.Record[str, int]) -> int | None:
    return record.value

client = riverrun.Client()
client.consumer("t", value_deserializer="utf-8")  # E
client.consumer("t", groop="g")  # E
"""


def test_type_checkers_know_what_keys_and_values_are(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "-O", "json", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = {found["line"] for found in told if found["severity"] == "error"}
    expected = {at for at, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# E")}
    assert wrong == expected, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [str, bool, list, dict])
@pytest.mark.parametrize("part", ["key_deserializer", "value_deserializer"])
def test_a_type_that_misreads_bytes_is_refused_with_what_to_use(kind, part):
    said = 'the name "str"' if kind is str else 'use "json"'
    with pytest.raises(riverrun.UsageError, match=said):
        riverrun.Client().consumer("t", **{part: kind})
