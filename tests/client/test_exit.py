"""However a program ends, nothing is left pending and nothing is complained about."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.client.fake_broker import FakeBroker

PROGRAM = """
import asyncio, itertools, sys
import riverrun

async def produce(client):
    async with client.producer(batch_bytes=1000) as producer:
        for number in itertools.count():
            await producer.send("t", b"%d" % number)

async def produce_many(client):
    async with client.producer(batch_bytes=1000) as producer:
        await producer.send_many("t", (b"%d" % n for n in itertools.count()))

async def consume(client):
    async with client.consumer("t") as consumer:
        async for record in consumer:
            pass

async def consume_batches(client):
    consumer = client.consumer("t")
    async for batch in consumer.batches():
        pass

async def consume_committing(client):
    async with client.consumer("t", group="g", commit="auto", commit_interval_s=0.01) as consumer:
        async for record in consumer:
            pass

async def leave(client):
    await client.producer().send_many("t", [b"v"] * 9)
    for mode in "manual", "auto", "at_most_once":
        async with client.consumer("t", group=mode, commit=mode, value_deserializer="str") as consumer:
            async for record in consumer:
                break
            async for batch in consumer.batches():
                break

async def finish(client):
    producer, consumer = client.producer(), client.consumer("t")
    await producer.send("t", b"v")
    await anext(consumer)

async def main(address, names):
    async with riverrun.Client(address) as client, asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(globals()[name](client))
        if names not in (["finish"], ["leave"]):
            await asyncio.sleep(0.3)
            print("ready", flush=True)

async def careless(address):
    await finish(riverrun.Client(address))

try:
    address, *names = sys.argv[1:]
    asyncio.run(careless(address) if names == ["careless"] else main(address, names), debug=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


async def start(address: str, *names: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, address, *names),
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end_of(program: asyncio.subprocess.Process) -> tuple[str, list[str]]:
    """Return what it says at its end, and its complaints: debug mode's slow callbacks are none."""
    async with asyncio.timeout(30):
        output, errors = await program.communicate()
    lines = errors.decode().splitlines()
    return output.decode(), [line for line in lines if not line.startswith("Executing <")]


@pytest.fixture
async def address():
    broker = FakeBroker()
    broker.add_topic("t")
    async with broker.serving() as address:
        yield address


@pytest.mark.parametrize("name", ["finish", "leave", "careless"])
async def test_a_program_that_comes_to_its_end_says_nothing(address, name):
    program = await start(address, name)
    assert await end_of(program) == ("", [])
    assert program.returncode == 0


@pytest.mark.parametrize(
    "names",
    [
        ["produce"],
        ["produce_many"],
        ["consume"],
        ["consume_batches"],
        ["consume_committing"],
        ["produce", "produce_many", "consume", "consume_batches"],
    ],
    ids="+".join,
)
async def test_an_interrupt_ends_everything_quietly(address, names):
    program = await start(address, *names)
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"
    program.send_signal(signal.SIGINT)
    assert await end_of(program) == ("interrupted\n", [])
    assert program.returncode == 0
