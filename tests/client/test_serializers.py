"""Keys and values of any kind become bytes; what cannot be fails its record alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

import riverrun
from riverrun import NewRecord, Reason, Record, UsageError
from riverrun.serializers import serialize_json, serialize_protobuf, serialize_str
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"
ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def producing(**settings):
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, producer


def stored(broker):
    """Return keys and values; None where a record has none."""
    return [
        (
            record.key if record.HasField("key") else None,
            record.value if record.HasField("value") else None,
        )
        for record in broker.partition(TOPIC).records()
    ]


@pytest.mark.parametrize(
    ("serializer", "given", "data"),
    [
        ("bytes", b"\xff", b"\xff"),
        ("str", "grüße", "grüße".encode()),
        ("json", {"b": [1, None], "a": "ü"}, '{"b":[1,null],"a":"ü"}'.encode()),
        ("json", False, b"false"),
        ("json", "", b'""'),
        ("protobuf", StringValue(value="x"), b"\n\x01x"),
        (serialize_str, "x", b"x"),
        (lambda number: b"%d" % number, 7, b"7"),
    ],
)
async def test_every_way_of_sending_serializes(serializer, given, data):
    both = {"key_serializer": serializer, "value_serializer": serializer}
    async with producing(**both) as (broker, producer):
        await producer.send(TOPIC, given, key=given)
        await producer.send_nowait(TOPIC, given, key=given)
        old = Record("other", 0, 5, 1_000, given, given, (("h", b"x"),))
        await producer.send_many(TOPIC, [given, (given, given), NewRecord(given, given), old])
    pair = (data, data)
    if isinstance(given, dict):
        pair = ('{"a":"ü","b":[1,null]}'.encode(), data)
    assert stored(broker) == [pair, pair, (None, data), pair, pair, pair]
    last = broker.partition(TOPIC).records()[-1]
    assert (last.timestamp_ms, last.headers[0].key) == (1_000, "h")


@pytest.mark.parametrize("serializer", ["bytes", "str", "json", "protobuf", lambda _: b"never"])
async def test_none_stays_none(serializer):
    both = {"key_serializer": serializer, "value_serializer": serializer}
    async with producing(**both) as (broker, producer):
        await producer.send(TOPIC, None)
        await producer.send_many(TOPIC, [None, (None, None), NewRecord(None)])
    assert stored(broker) == [(None, None)] * 4


def test_equal_json_keys_and_equal_messages_are_equal_bytes():
    one = {f"key-{n}": n for n in range(200)}
    other = dict(reversed(one.items()))
    assert serialize_json(one, sort_keys=True) == serialize_json(other, sort_keys=True)
    first, second = Struct(), Struct()
    first.update(one)
    second.update(other)
    assert serialize_protobuf(first) == serialize_protobuf(second)


def broken(_):
    raise LookupError("no schema")


@pytest.mark.parametrize(
    ("serializer", "given", "told"),
    [
        ("bytes", "text", "is of type str"),
        ("str", b"x", 'of type bytes, cannot be serialized by "str": TypeError: it is a bytes'),
        ("str", "\ud800", "surrogates not allowed. Expected is a str"),
        ("json", {"at": Timestamp()}, 'of type dict, cannot be serialized by "json"'),
        ("json", float("nan"), "Out of range float values are not JSON compliant"),
        ("protobuf", "x", "Expected is a protobuf message with its required fields set"),
        ("protobuf", StringValue, "of type MessageMeta, cannot"),
        (broken, 1, "cannot be serialized by broken: LookupError: no schema"),
        (str, 1, "cannot be serialized by str: it returned a str and no bytes"),
        (bytearray, b"1", "it returned a bytearray and no bytes"),
    ],
)
async def test_what_cannot_be_serialized_fails_its_record_alone(serializer, given, told):
    good = {"bytes": b"x", "str": "x", "json": "x", "protobuf": StringValue(value="x")}
    good_one = good.get(serializer)
    async with producing(value_serializer=serializer) as (broker, producer):
        before = producer.send_nowait(TOPIC, good_one)
        with pytest.raises(UsageError) as nowait:
            producer.send_nowait(TOPIC, given)
        with pytest.raises(UsageError) as waited:
            await producer.send(TOPIC, given)
        with pytest.raises(UsageError) as many:
            await producer.send_many(TOPIC, [good_one, good_one, given, good_one])
        await before
    assert len(stored(broker)) == 3
    assert many.value.acknowledged_records == 2
    for caught in (nowait, waited, many):
        assert told in caught.value.message
        assert caught.value.outcome_known
    if serializer != "bytes":
        assert waited.value.reason is Reason.INVALID_RECORD
        assert waited.value.message.startswith("topic t: the value, of type ")
        assert many.value.message.startswith("record 2 of send_many: topic t: the value")


async def test_the_field_that_cannot_be_serialized_is_named():
    async with producing(key_serializer="str") as (_, producer):
        with pytest.raises(UsageError, match=r"topic t: the key, of type int, cannot"):
            await producer.send(TOPIC, b"", key=7)
        with pytest.raises(UsageError, match=r"record 1 of send_many: topic t: the key"):
            await producer.send_many(TOPIC, [("a", b""), (7, b"")])


async def test_a_value_that_is_a_tuple_of_three_is_refused_as_no_pair():
    async with producing(value_serializer="json") as (broker, producer):
        with pytest.raises(UsageError, match=r"record 0 of send_many is of type tuple"):
            await producer.send_many(TOPIC, [(1, 2, 3)])
        await producer.send_many(TOPIC, [NewRecord((1, 2))])
    assert stored(broker) == [(None, b"[1,2]")]


async def test_partitioners_see_what_is_stored():
    seen = []
    both = {"key_serializer": "str", "value_serializer": "json"}
    async with producing(**both, partitioner=lambda *given: seen.append(given) or 0) as (_, p):
        await p.send(TOPIC, 1, key="k")
        await p.send_many(TOPIC, [("l", 2)])
    assert seen == [(TOPIC, b"k", b"1", 1), (TOPIC, b"l", b"2", 1)]


async def test_many_are_batched_as_bytes_are():
    async with producing(value_serializer="json") as (broker, producer):
        await producer.send_many(TOPIC, ({"n": n} for n in range(20_000)))
    values = broker.partition(TOPIC).values()
    assert [json.loads(value)["n"] for value in values] == [*range(20_000)]
    assert len(broker.partition(TOPIC).batches) < 10


async def test_what_an_async_iterable_yields_is_serialized():
    async def orders():
        for n in range(3):
            yield str(n)
            await asyncio.sleep(0.001)

    async with producing(value_serializer="str") as (broker, producer):
        await producer.send_many(TOPIC, orders())
    assert broker.partition(TOPIC).values() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("field", ["key_serializer", "value_serializer"])
def test_a_serializer_that_there_is_not_is_refused_with_those_that_there_are(field):
    with pytest.raises(UsageError, match=rf'{field} is \'xml\'; .*"bytes", "str", "json", "proto'):
        riverrun.Client("127.0.0.1:1").producer(**{field: "xml"})


USES = """
from typing import Any, assert_type
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
import riverrun
from riverrun import NewRecord, Producer
from riverrun.serializers import serialize_json, serialize_protobuf, serialize_str

async def right(client: riverrun.Client) -> None:
    plain = client.producer(acks="all", partitioner="murmur2")
    assert_type(plain, Producer[bytes, bytes])
    assert_type(plain, Producer)
    await plain.send("t", b"", key=None)
    record = NewRecord(b"v")
    await plain.send_many("t", [b"", (b"k", b"v"), (None, b""), record, NewRecord(b"v"), None])
    await plain.send_many("t", (b"%d" % n for n in range(3)))
    both = client.producer(key_serializer=serialize_str, value_serializer=serialize_protobuf)
    assert_type(both, Producer[str, Message])
    await both.send("t", StringValue(value="x"), key="k")
    await both.send_many("t", [("k", StringValue()), NewRecord(StringValue(), "k")])
    assert_type(client.producer(key_serializer=serialize_str), Producer[str, bytes])
    texts = client.producer(value_serializer=serialize_str)
    assert_type(texts, Producer[bytes, str])
    named = client.producer(value_serializer="json", linger_s=0.1)
    assert_type(named, Producer[Any, Any])
    await client.producer(value_serializer=serialize_json).send("t", {"a": [1]})

async def wrong(client: riverrun.Client) -> None:
    plain = client.producer()
    texts = client.producer(value_serializer=serialize_str)
    await plain.send("t", "text")  # wrong
    await plain.send_many("t", ["text"])  # wrong
    await plain.send_many("t", [NewRecord("text")])  # wrong
    await texts.send("t", b"bytes")  # wrong
    await texts.send("t", "text", key="text")  # wrong
    client.producer(partitioner="random")  # wrong
    client.producer(value_serializer="xml")  # wrong
    client.producer(bogus=1)  # wrong
"""


def test_a_strict_type_checker_knows_what_each_producer_takes(tmp_path):
    uses = tmp_path / "uses.py"
    uses.write_text(USES)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", uses],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        check=False,
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    wrong = {n for n, line in enumerate(USES.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_what_is_changed_and_yielded_again_is_sent_as_it_was_each_time(kind):
    reading = {}

    def readings():
        for number in range(50):
            reading["n"] = number
            yield reading

    async def readings_async():
        for each in readings():
            yield each

    async with producing(value_serializer="json") as (broker, producer):
        await producer.send_many(TOPIC, readings() if kind == "iterable" else readings_async())
    assert [value for _, value in stored(broker)] == [b'{"n":%d}' % number for number in range(50)]


async def test_a_message_class_is_no_serializer_and_the_name_is_told():
    async with riverrun.Client("127.0.0.1:1") as client:
        with pytest.raises(
            riverrun.UsageError, match='is the message class Struct; use "protobuf"'
        ):
            client.producer(value_serializer=Struct)
