"""Reading standard input and writing standard output beside a running event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress

import pytest

from riverrun.cli.stdin import CHUNKS_AHEAD, StandardInput
from riverrun.cli.stdout import BUFFER_BYTES, StandardOutput
from riverrun.cli.waiting import first_of


@pytest.fixture
def pipe():
    """Make a pipe, and close what the test has left open of it once nobody reads from it.

    A thread that still waited for the descriptor would read what a later test writes into the pipe
    that has got its number.
    """
    reader, writer = os.pipe()
    readers = set(threading.enumerate())
    yield reader, writer
    with suppress(OSError):
        os.close(writer)
    for thread in set(threading.enumerate()) - readers:
        if thread.name == "riverrun-stdin":
            thread.join()
    with suppress(OSError):
        os.close(reader)


async def read_all(source):
    """Join all chunks."""
    return b"".join([chunk async for chunk in source])


async def test_a_chunk_comes_before_the_end_of_the_input(pipe):
    reader, writer = pipe
    source = StandardInput(reader)
    chunks = aiter(source)
    os.write(writer, b"one\n")
    assert await anext(chunks) == b"one\n"
    os.write(writer, b"two")
    assert await anext(chunks) == b"two"
    os.close(writer)
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert source.ended


async def test_a_large_file_comes_whole(tmp_path):
    data = os.urandom(10_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    source = StandardInput(descriptor)
    assert await read_all(source) == data
    assert source.ended
    os.close(descriptor)


async def test_stop_gives_what_was_read_and_then_ends_without_the_input_ending(pipe):
    reader, writer = pipe
    source = StandardInput(reader)
    chunks = aiter(source)
    os.write(writer, b"read")
    assert await anext(chunks) == b"read"
    source.stop()
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert not source.ended


async def test_abandon_drops_what_was_read_ahead(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(5_000_000))
    descriptor = os.open(path, os.O_RDONLY)
    source = StandardInput(descriptor)
    count = 0
    async for _ in source:
        count += 1
        while source._chunks.qsize() < CHUNKS_AHEAD - 1:  # noqa: ASYNC110 - a queue tells no size
            await asyncio.sleep(0)
        source.abandon()
    assert count == 1
    assert not source.ended
    os.close(descriptor)


async def test_a_pipe_that_another_process_made_non_blocking_is_read(pipe):
    reader, writer = pipe
    os.set_blocking(reader, False)
    chunks = aiter(StandardInput(reader))
    waiting = asyncio.create_task(anext(chunks))
    await asyncio.sleep(0)
    os.write(writer, b"late")
    assert await waiting == b"late"


async def test_input_that_cannot_be_read_is_an_error(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        await read_all(StandardInput(descriptor))
    os.close(descriptor)


async def test_what_was_put_is_written_in_order_and_told_once_written(pipe):
    reader, writer = pipe
    output = StandardOutput(writer)
    told = []
    for number in range(100):
        await output.put(b"%d," % number, lambda number=number: told.append(number))
    await output.drain()
    assert told == list(range(100))
    assert os.read(reader, 10_000) == b"".join(b"%d," % number for number in range(100))


async def test_the_first_bytes_are_written_without_waiting_for_more(pipe):
    reader, writer = pipe
    output = StandardOutput(writer)
    written = asyncio.Event()
    await output.put(b"now", written.set)
    await written.wait()
    assert os.read(reader, 10) == b"now"


async def test_a_full_pipe_holds_up_the_writer_and_loses_nothing(pipe):
    reader, writer = pipe
    output = StandardOutput(writer)
    data = os.urandom(100_000)
    received = []

    async def put_all():
        for _ in range(100):
            await output.put(data, lambda: None)
        await output.drain()

    putting = asyncio.create_task(put_all())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not putting.done()
    assert output._bytes <= BUFFER_BYTES + len(data)

    def read_everything():
        while sum(map(len, received)) < 100 * len(data):
            received.append(os.read(reader, 1 << 20))

    thread = threading.Thread(target=read_everything)
    thread.start()
    await putting
    await asyncio.to_thread(thread.join)
    assert b"".join(received) == data * 100


async def test_a_pipe_that_another_process_made_non_blocking_is_written_whole(pipe):
    reader, writer = pipe
    os.set_blocking(writer, False)
    output = StandardOutput(writer)
    data = os.urandom(3_000_000)
    await output.put(data[:1_900_000], lambda: None)

    def read_everything():
        received = b""
        while len(received) < len(data):
            received += os.read(reader, 1 << 20)
        return received

    reading = asyncio.create_task(asyncio.to_thread(read_everything))
    await output.put(data[1_900_000:], lambda: None)
    await output.drain()
    assert await reading == data


async def test_a_reader_that_goes_away_is_told_and_nothing_counts_as_written(pipe):
    reader, writer = pipe
    os.close(reader)
    output = StandardOutput(writer)
    told = []

    async def put_all():
        for _ in range(10):
            await output.put(bytes(BUFFER_BYTES), lambda: told.append(1))

    with pytest.raises(BrokenPipeError):
        await put_all()
    with pytest.raises(BrokenPipeError):
        await output.drain()
    assert told == []


async def test_the_first_to_end_ends_the_others_and_its_error_counts():
    cancelled = []

    async def forever(name):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(name)

    async def fail():
        raise ValueError("first")

    async def end():
        return None

    await first_of(forever("a"), end(), forever("b"))
    assert sorted(cancelled) == ["a", "b"]
    with pytest.raises(ValueError, match="first"):
        await first_of(forever("c"), fail())
    assert "c" in cancelled
