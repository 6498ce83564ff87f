"""However reading ends, it is told clearly, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

import riverrun
from riverrun import Reason, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault
from tests.client.filling import fill

TOPIC = "t"
PLACE = TopicPartition(TOPIC, 0)


def broker_with(count: int) -> FakeBroker:
    broker = FakeBroker()
    fill(broker.add_topic(TOPIC).partitions[0], count)
    return broker


@pytest.fixture
async def client():
    async with broker_with(20).serving() as address, impatient(address) as client:
        yield client


def ours() -> set[str]:
    """Return the names of the library's tasks; the fake broker has some in the same loop."""
    names = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names if name.startswith("riverrun")}


@contextlib.asynccontextmanager
async def nothing_left():
    assert ours() == set()
    yield
    assert ours() == set()


async def read_on(consumer) -> None:
    async with asyncio.timeout(20):
        async for _ in consumer:
            pass


# The brokers are gone.


@pytest.mark.parametrize("request_timeout_s", [0.4, 1.2])
async def test_reading_to_the_end_fails_where_the_broker_is_gone_for_good(request_timeout_s):
    settings = {"connect_timeout_s": 0.2, "request_timeout_s": request_timeout_s}
    async with contextlib.AsyncExitStack() as stack:
        broker = broker_with(3000)
        serving = broker.serving()
        address = await serving.__aenter__()
        client = await stack.enter_async_context(impatient(address, **settings))
        consumer = client.consumer(TOPIC, stop_at_end=True, prefetch_bytes=500)
        await anext(consumer)
        await serving.__aexit__(None, None, None)
        begun_s = time.monotonic()
        with pytest.raises(riverrun.NoBrokerError) as caught:
            await read_on(consumer)
        lasted_s = time.monotonic() - begun_s
    assert request_timeout_s - 0.1 <= lasted_s < request_timeout_s + 8
    assert str(caught.value).startswith(
        f"gave up waiting for the end after {request_timeout_s:g} s without a word from any broker "
        "(request_timeout_s): no broker answers at 127.0.0.1:"
    )
    assert caught.value.reason is Reason.NO_BROKER


async def test_reading_without_an_end_waits_for_its_broker_to_come_back():
    broker = broker_with(5)
    settings = {"connect_timeout_s": 0.1, "request_timeout_s": 0.2}
    serving = broker.serving()
    address = await serving.__aenter__()
    async with impatient(address, **settings) as client:
        consumer = client.consumer(TOPIC)
        for _ in range(5):
            await anext(consumer)
        await serving.__aexit__(None, None, None)
        assert await consumer.getmany(timeout_s=1.0) == []
        fill(broker.partition(TOPIC), 1)
        async with broker.serving(int(address.rpartition(":")[2])):
            assert (await asyncio.wait_for(anext(consumer), 10)).offset == 5


async def test_streams_that_break_before_a_word_are_no_contact():
    broker = broker_with(3000)
    async with (
        broker.serving() as address,
        impatient(address, request_timeout_s=0.5) as client,
    ):
        consumer = client.consumer(TOPIC, stop_at_end=True, prefetch_bytes=500)
        await anext(consumer)
        refusal = FakeRefusal("STORAGE_STALLED", retry_safe=True, retry_after_s=0.05)
        broker.refuse_streams = [refusal] * 10_000
        broker.plan.deliveries[broker.plan.delivery_number] = Fault.DROP_BEFORE
        with pytest.raises(riverrun.RetriableError, match="gave up waiting for the end after"):
            await read_on(consumer)


# The application leaves.


async def leave_by_break(consumer):
    async for _ in consumer:
        break


async def leave_by_exception(consumer):
    with contextlib.suppress(LookupError):
        async for _ in consumer:
            raise LookupError


async def leave_batches(consumer):
    async for _ in consumer.batches():
        break


async def leave_closing_batches(consumer):
    async with contextlib.aclosing(consumer.batches()) as batches:
        async for _ in batches:
            break


async def leave_by_cancel(consumer):
    task = asyncio.create_task(read_on(consumer))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


LEAVING = [
    leave_by_break,
    leave_by_exception,
    leave_batches,
    leave_closing_batches,
    leave_by_cancel,
]


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_loop_that_was_left_can_be_entered_again_where_it_was(client, leave):
    async with nothing_left(), client.consumer(TOPIC) as consumer:
        await leave(consumer)
        position = await consumer.position(PLACE)
        async with asyncio.timeout(5):
            while position < 20:
                assert (await anext(consumer)).offset == position
                position += 1


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_loop_that_was_left_leaves_no_task_behind(client, leave):
    async with nothing_left():
        async with contextlib.aclosing(
            client.consumer(TOPIC, group="g", commit="auto")
        ) as consumer:
            await leave(consumer)
        with pytest.raises(riverrun.ClosedError):
            await anext(consumer)


async def test_the_end_ends_every_way_of_reading_again_and_again(client):
    async with nothing_left(), client.consumer(TOPIC, stop_at_end=True) as consumer:
        assert len([record async for record in consumer]) == 20
        assert [record async for record in consumer] == []
        assert [batch async for batch in consumer.batches()] == []
        assert await consumer.getmany() == []
        assert await consumer.getmany(timeout_s=0) == []


async def waits_for_a_record(consumer):
    await anext(consumer)


async def waits_for_a_batch(consumer):
    async for _ in consumer.batches():
        pass


async def waits_for_some(consumer):
    await consumer.getmany()


async def waits_for_some_in_time(consumer):
    await consumer.getmany(timeout_s=60)


@pytest.mark.parametrize(
    "wait",
    [
        waits_for_a_record,
        waits_for_a_batch,
        waits_for_some,
        waits_for_some_in_time,
    ],
)
@pytest.mark.parametrize("commit", ["manual", "auto", "at_most_once"])
async def test_who_waits_while_another_task_closes_is_told(client, wait, commit):
    async with nothing_left():
        consumer = client.consumer(TOPIC, group="g", commit=commit, from_="latest")
        await consumer.assignment()
        waiting = asyncio.create_task(wait(consumer))
        await asyncio.sleep(0.05)
        await consumer.close()
        with pytest.raises(riverrun.ClosedError, match="was closed meanwhile"):
            await asyncio.wait_for(waiting, 5)


async def test_closing_twice_and_from_two_tasks_at_once_is_one_close(client):
    async with nothing_left():
        consumer = client.consumer(TOPIC, group="g", commit="auto")
        await anext(consumer)
        await asyncio.gather(consumer.close(), consumer.aclose())
        await consumer.close()


# The broker does not answer the last commit.


@pytest.fixture
async def stuck():
    """A broker that answers no commit."""
    broker = broker_with(20)
    answers = broker.note

    async def note(name, context):
        if name == "CommitOffset":
            await asyncio.Event().wait()
        await answers(name, context)

    broker.note = note
    async with broker.serving() as address:
        yield address


async def busy(client):
    """Return a consumer that has something to commit."""
    consumer = client.consumer(TOPIC, group="g", commit="auto")
    await consumer.getmany(5)
    await consumer.getmany(5)
    return consumer


async def test_closing_a_consumer_gives_its_last_commit_up_in_time(stuck):
    async with impatient(stuck) as client, asyncio.timeout(10):
        consumer = await busy(client)
        with pytest.raises(riverrun.TimedOutError, match=r"no answer within 0\.05 s") as caught:
            await consumer.close(timeout_s=0.05)
        assert not caught.value.outcome_known
        assert ours() == set()
        await consumer.close()


async def test_closing_a_client_gives_the_last_commits_up_in_time_and_tells_of_each(stuck, caplog):
    async with asyncio.timeout(10):
        client = impatient(stuck)
        consumers = [await busy(client), await busy(client)]
        with pytest.raises(riverrun.TimedOutError):
            await client.close(timeout_s=0.05)
        assert [consumer._closed for consumer in consumers] == [True, True]
        assert caplog.text.count("while closing: group g: the last commit was given up") == 1


async def test_an_exception_in_the_clients_block_is_not_kept_by_the_last_commits(
    stuck, caplog, monkeypatch
):
    monkeypatch.setattr("riverrun.client._HURRIED_FLUSH_S", 0.05)

    async def work():
        async with impatient(stuck) as client:
            await busy(client)
            raise LookupError

    async with asyncio.timeout(10):
        with pytest.raises(LookupError):
            await work()
    assert "the last commit was given up" in caplog.text


async def test_who_closes_a_client_that_is_closing_waits_for_that(stuck):
    async with asyncio.timeout(10):
        client = impatient(stuck)
        await busy(client)
        first = asyncio.create_task(client.close(timeout_s=0.3))
        await asyncio.sleep(0)
        await client.close(timeout_s=0.01)
        assert client._connections._channels, "its time was over first"
        await client.close()
        assert not client._connections._channels
        with pytest.raises(riverrun.TimedOutError):
            await first


@pytest.mark.parametrize("turns", [1, 2, 4])
@pytest.mark.parametrize("commit", ["auto", "at_most_once"])
async def test_a_close_that_is_cancelled_leaves_no_task_behind(stuck, turns, commit):
    async with impatient(stuck) as client, asyncio.timeout(10):
        consumer = client.consumer(TOPIC, group="g", commit=commit, commit_interval_s=0.01)
        await consumer.getmany(5, timeout_s=0.1)
        await consumer.getmany(5, timeout_s=0.1)
        closing = asyncio.create_task(consumer.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert ours() == set()
        await consumer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_asked_for_while_a_consumer_comes_to_its_end_is_read_too(client, turns):
    async with asyncio.timeout(10), client.consumer(TOPIC, stop_at_end=True) as consumer:
        first = await anext(consumer)
        looks = 0
        # That is no event: it is the moment just before the consumer's task ends.
        while not consumer._machine.ended and looks < 10_000:
            looks += 1
            await asyncio.sleep(0)
        consumer.pause()
        for _ in range(turns):
            await asyncio.sleep(0)
        consumer.resume()
        rest = [record.offset async for record in consumer]
        assert [first.offset, *rest] == list(range(20))
