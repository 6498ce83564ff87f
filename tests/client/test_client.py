"""Finding brokers, losing them, and what calls say about it."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

import riverrun
from riverrun import Reason, TopicPartition
from riverrun._net.addresses import parse_bootstrap
from riverrun._net.failures import from_proto, reason_of
from riverrun.v1 import errors_pb2
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.filling import fill


def closed_port() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("h:1", ("h:1",)),
        ("a:1, b:2,a:1", ("a:1", "b:2")),
        (["a:1", "b:2,c:3"], ("a:1", "b:2", "c:3")),
        ("[::1]:7171", ("[::1]:7171",)),
        ("h", ("h:7171",)),
        ("a:1,b,[::1]", ("a:1", "b:7171", "[::1]:7171")),
        (("h", "h:7171"), ("h:7171",)),
    ],
)
def test_bootstrap_addresses_are_taken_apart(given, parsed):
    assert parse_bootstrap(given) == parsed


@pytest.mark.parametrize(
    "given",
    ["", "h:", ":1", "h:x", "h:0", "h:70000", "::1:7171", "::1", [], "a:1,:", 7171, [7171], None],
)
def test_a_bootstrap_address_that_is_none_is_refused_with_an_example(given):
    with pytest.raises(riverrun.UsageError, match="host:port"):
        riverrun.Client(given)


async def test_nobody_there_is_told_in_time_with_the_addresses_and_what_to_do():
    first, second = closed_port(), closed_port()
    client = riverrun.Client([first, second], connect_timeout_s=0.3)
    began = time.monotonic()
    calls = [client.server_info(), client.admin().cluster(), client.producer().send("t", b"")]
    calls += [anext(client.consumer("t"))]
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, riverrun.NoBrokerError)
        assert result.outcome_known
        for part in (first, second, "riverrun-server run", "RIVERRUN_BOOTSTRAP", "0.3 s"):
            assert part in str(result)
    await client.close()
    assert time.monotonic() - began < 4


async def test_an_address_where_nobody_answers_does_not_hide_the_next_one():
    broker = FakeBroker()
    async with broker.serving() as address, impatient([closed_port(), address]) as client:
        info = await client.server_info()
    assert info.endpoint == address
    assert info.limits.max_batch_bytes == 3 << 20


async def test_a_broker_that_starts_late_is_found():
    broker = FakeBroker()
    address = closed_port()
    client = riverrun.Client(address)
    asking = asyncio.create_task(client.server_info())
    await asyncio.sleep(0.05)
    async with broker.serving(int(address.rpartition(":")[2])), client:
        assert (await asking).version == "fake"


async def test_streams_move_to_another_broker_when_theirs_dies():
    broker = FakeBroker()
    broker.add_topic("t")
    async with broker.serving() as second:
        async with broker.serving() as first:
            client = impatient([first, second])
            producer, consumer = client.producer(batch_bytes=100), client.consumer("t")
            await producer.send("t", b"0")
            assert (await anext(consumer)).value == b"0"
        await producer.send_many("t", [b"%d" % n for n in range(1, 50)])
        assert [(await anext(consumer)).offset for _ in range(49)] == [*range(1, 50)]
        await client.close()
    assert broker.partition("t").values() == [b"%d" % n for n in range(50)]


async def test_calls_move_to_another_broker_when_theirs_dies():
    broker = FakeBroker()
    async with broker.serving() as second:
        async with broker.serving() as first:
            client = impatient([first, second])
            assert (await client.server_info()).endpoint == first
        assert (await client.server_info()).endpoint == second
        await client.close()


async def test_a_broker_that_restarts_is_found_again():
    broker = FakeBroker()
    broker.add_topic("t")
    client = None
    for round_ in range(3):
        port = 0 if client is None else int(address.rpartition(":")[2])  # noqa: F821
        async with broker.serving(port) as address:
            client = client or impatient(address)
            if round_ == 0:
                producer, consumer = client.producer(), client.consumer("t")
            await producer.send("t", b"%d" % round_)
            assert (await anext(consumer)).value == b"%d" % round_
    await client.close()


async def test_calls_that_do_harm_twice_are_not_made_again_when_nobody_knows():
    broker = FakeBroker()
    unknown = FakeRefusal("REQUEST_TIMED_OUT", known=False)
    broker.refuse["CreateTopic"] = [unknown, unknown]
    async with broker.serving() as address, impatient(address) as client:
        admin = client.admin()
        with pytest.raises(riverrun.TimedOutError) as caught:
            await admin.create_topic("t")
        assert not caught.value.outcome_known
        assert broker.calls.count("CreateTopic") == 1
        assert (await admin.create_topic("t", if_not_exists=True)).created
        assert broker.calls.count("CreateTopic") == 3


async def test_calls_refused_for_now_are_made_again():
    broker = FakeBroker()
    broker.refuse["CreateTopic"] = [FakeRefusal("NOT_READY", retry_safe=True, retry_after_s=0.001)]
    async with broker.serving() as address, impatient(address) as client:
        assert (await client.admin().create_topic("t")).created


async def test_admin_makes_looks_changes_and_deletes():
    broker = FakeBroker()
    async with broker.serving() as address, impatient(address) as client:
        admin = client.admin()
        made = await admin.create_topic("b", partitions=2, configs={"retention.ms": "5"})
        assert (made.name, made.partitions, made.created) == ("b", 2, True)
        with pytest.raises(riverrun.TopicExistsError):
            await admin.create_topic("b")
        assert not (await admin.create_topic("b", if_not_exists=True)).created
        for name in ("a", "c", "d", "e"):
            await admin.create_topic(name)
        assert [topic.name async for topic in admin.list_topics()] == ["a", "b", "c", "d", "e"]
        fill(broker.partition("b", 1), 7)
        described = await admin.describe_topic("b")
        assert [p.high_watermark for p in described.partitions] == [0, 7]
        assert described.configs[0].source == "default"
        altered = await admin.alter_topic("b", set={"x": "1"}, unset=["retention.ms"])
        assert altered.configs == {"x": "1"}
        assert (await admin.add_partitions("b", 3)).partitions == 3
        results = await admin.trim_topic("b", {1: 4, 9: 0})
        assert [(r.partition, r.log_start_offset, bool(r.error)) for r in results] == [
            (1, 4, False),
            (9, 0, True),
        ]
        latest = await admin.list_offsets("b", "latest")
        assert [(p.partition, p.offset) for p in latest] == [(0, 0), (1, 7), (2, 0)]
        with pytest.raises(riverrun.UsageError, match="cannot look up"):
            await admin.list_offsets("b", riverrun.Last(3))
        with pytest.raises(riverrun.TopicNotFoundError):
            await admin.delete_topic("b", topic_id=bytes(16))
        await admin.delete_topic("b", topic_id=made.topic_id)
        with pytest.raises(riverrun.TopicNotFoundError):
            await admin.describe_topic("b")
        cluster = await admin.cluster(["a"])
        assert cluster.topics[0].partitions[0].leader == 1
        with pytest.raises(riverrun.TopicNotFoundError):
            await admin.cluster(["b"])


async def test_group_offsets_are_committed_and_read():
    broker = FakeBroker()
    broker.add_topic("t", 2)
    async with broker.serving() as address, impatient(address) as client:
        admin, place = client.admin(), TopicPartition("t", 0)
        await admin.commit_group_offsets("g", {place: riverrun.CommittedOffset(5, "note")})
        found = await admin.group_offsets("g", [place, TopicPartition("t", 1)])
        assert found[place][:2] == (5, "note")
        assert found[TopicPartition("t", 1)] is None
        assert [*await admin.group_offsets("g")] == [place]
        with pytest.raises(riverrun.TopicNotFoundError, match=r"t\[9\]"):
            await admin.commit_group_offsets("g", {TopicPartition("t", 9): 1})
        with pytest.raises(riverrun.UsageError, match="group"):
            await admin.group_offsets("")
        with pytest.raises(riverrun.UsageError, match="-1"):
            await admin.commit_group_offsets("g", {place: -1})


def test_every_reason_on_the_wire_has_its_name_here():
    ours = {reason.value for reason in Reason}
    for name, number in errors_pb2.ErrorReason.items():
        if number:
            assert reason_of(number) == name.removeprefix("ERROR_REASON_")
            assert name.removeprefix("ERROR_REASON_") in ours
    assert reason_of(0) is Reason.UNKNOWN
    assert reason_of(123_456) is Reason.UNKNOWN


def test_an_error_that_says_nothing_of_its_outcome_counts_as_unknown():
    assert not from_proto(errors_pb2.Error(reason=1)).outcome_known


def test_a_reason_of_a_newer_broker_keeps_its_text_and_whether_it_may_be_tried_again():
    error = errors_pb2.Error(reason=99, message="new", retry_safe=True)  # type: ignore[arg-type]
    assert isinstance(from_proto(error), riverrun.RetriableError)
    error.retry_safe = False
    assert isinstance(from_proto(error), riverrun.FatalError)
    assert "new" in str(from_proto(error))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda c: c.producer(acks="some"), "acks"),
        (lambda c: c.producer(compression="rar"), "none, gzip, zstd"),
        (lambda c: c.producer(batch_bytes=0), "batch_bytes"),
        (lambda c: c.producer(batch_bytes=4 << 20), "batch_bytes"),
        (lambda c: c.producer(buffer_bytes=5), "at least batch_bytes"),
        (lambda c: c.producer(linger_s=-1), "linger_s"),
        (lambda c: c.producer(delivery_timeout_s=0), "delivery_timeout_s"),
        (lambda c: c.consumer(), "nothing to read"),
        (lambda c: c.consumer(""), "empty"),
        (lambda c: c.consumer(partitions=[1]), "without a topic"),
        (lambda c: c.consumer("t", partitions=[-1]), "partition is -1"),
        (lambda c: c.consumer("t", from_="committed"), "group"),
        (lambda c: c.consumer("t", from_="begin"), "no place"),
        (lambda c: c.consumer("t", from_=riverrun.Offset(-1)), "no place"),
        (lambda c: c.consumer("t", offset_reset="none"), "offset_reset"),
        (lambda c: c.consumer("t", prefetch_bytes=0), "prefetch_bytes"),
        (lambda _: riverrun.Client("h:1", connect_timeout_s=0), "connect_timeout_s"),
    ],
)
async def test_settings_out_of_range_are_refused_with_the_range(make, said):
    async with riverrun.Client("h:1") as client:
        with pytest.raises(riverrun.UsageError, match=said):
            make(client)


async def test_nothing_works_after_closing_and_closing_twice_is_fine():
    client = riverrun.Client("h:1")
    producer, consumer = client.producer(), client.consumer("t", group="g")
    await client.close()
    await client.close()
    await producer.close()
    await consumer.close()
    for call in (
        producer.send("t", b""), producer.drain(), producer.send_many("t", [b""]),
        anext(consumer), consumer.assignment(), client.server_info(),
    ):  # fmt: skip
        with pytest.raises(riverrun.ClosedError):
            await call
    for make in (client.producer, client.admin, lambda: client.consumer("t")):
        with pytest.raises(riverrun.ClosedError):
            make()


@pytest.mark.parametrize(
    ("name", "known"), [("CreateTopic", False), ("ListTopics", True), ("GetServerInfo", True)]
)
async def test_a_call_whose_client_is_closed_says_so_and_cancels_nobody(name, known):
    broker, arrived = FakeBroker(), asyncio.Event()

    async def hang(called, _):
        if called == name:
            arrived.set()
            await asyncio.Event().wait()

    broker.note = hang  # type: ignore[method-assign]
    async with broker.serving() as address:
        client = impatient(address)
        admin = client.admin()
        asking = {
            "CreateTopic": lambda: admin.create_topic("t"),
            "ListTopics": lambda: anext(admin.list_topics()),
            "GetServerInfo": client.server_info,
        }
        async with asyncio.timeout(10):
            outcome = asyncio.gather(asking[name](), return_exceptions=True)
            await arrived.wait()
            await client.close()
            [error] = await outcome
    assert isinstance(error, riverrun.ClosedError)
    assert error.outcome_known is known


async def test_configurations_take_numbers_and_refuse_what_is_no_text_with_words():
    broker = FakeBroker()
    async with broker.serving() as address, impatient(address) as client:
        admin = client.admin()
        made = await admin.create_topic("t", configs={"retention.ms": 7, "a": True, "b": "x"})
        assert made.configs == {"retention.ms": "7", "a": "true", "b": "x"}
        changed = await admin.alter_topic("t", set={"retention.ms": 8})
        assert changed.configs["retention.ms"] == "8"
        with pytest.raises(riverrun.UsageError, match=r"'retention.ms': 0.5; keys are texts"):
            await admin.create_topic("u", configs={"retention.ms": 0.5})
