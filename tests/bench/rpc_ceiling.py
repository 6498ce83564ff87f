"""What bare grpc.aio does on this machine: the ceiling of everything that goes through it.

    .venv/bin/python tests/bench/rpc_ceiling.py

A server process that does nothing and one client: unary echo with 64 in flight, a pipelined
bidirectional stream, and a server stream, at several message sizes. Rates are medians of the rounds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import grpc.aio
import uvloop

ROUNDS = 3
IN_FLIGHT = 64
WIDE = [("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20)]


def same(data: bytes) -> bytes:
    """Serialise nothing."""
    return data


class Echo(grpc.GenericRpcHandler):
    """Answers with two bytes, whatever comes."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler of a method."""
        match details.method:
            case "/ceiling/unary":
                return grpc.unary_unary_rpc_method_handler(self.unary, same, same)
            case "/ceiling/bidi":
                return grpc.stream_stream_rpc_method_handler(self.bidi, same, same)
            case "/ceiling/stream":
                return grpc.unary_stream_rpc_method_handler(self.stream, same, same)
        return None

    async def unary(self, _: bytes, __: object) -> bytes:
        return b"ok"

    async def bidi(self, requests, _: object):
        async for _request in requests:
            yield b"ok"

    async def stream(self, request: bytes, _: object):
        count, size = map(int, request.split())
        payload = os.urandom(size)
        for _ in range(count):
            yield payload


async def serve() -> None:
    """Serve on a free port, printed first, until the pipe to standard input is closed."""
    server = grpc.aio.server(options=WIDE)
    server.add_generic_rpc_handlers((Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def unary(channel: grpc.aio.Channel, count: int, size: int) -> None:
    """Make `count` calls, 64 at a time."""
    call, payload = channel.unary_unary("/ceiling/unary", same, same), os.urandom(size)

    async def some(calls: int) -> None:
        for _ in range(calls):
            await call(payload)

    await asyncio.gather(*(some(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def bidi(channel: grpc.aio.Channel, count: int, size: int) -> None:
    """Send `count` messages over one stream, 64 of them unanswered at the most."""
    call = channel.stream_stream("/ceiling/bidi", same, same)()
    free, payload = asyncio.Semaphore(IN_FLIGHT), os.urandom(size)

    async def read() -> None:
        for _ in range(count):
            await call.read()
            free.release()

    reader = asyncio.create_task(read())
    for _ in range(count):
        await free.acquire()
        await call.write(payload)
    await reader
    await call.done_writing()


async def stream(channel: grpc.aio.Channel, count: int, size: int) -> None:
    """Receive `count` messages over one stream."""
    call = channel.unary_stream("/ceiling/stream", same, same)
    async for _ in call(b"%d %d" % (count, size)):
        pass


async def measure(port: str) -> None:
    """Print a line for each shape and size."""
    shapes: list[tuple[str, Callable[..., Awaitable[None]], int, int]] = [
        ("unary, 64 in flight", unary, 4096, 128),
        ("bidirectional stream", bidi, 8192, 128),
        ("bidirectional stream", bidi, 2048, 64_000),
        ("bidirectional stream", bidi, 512, 1_000_000),
        ("server stream", stream, 20_000, 128),
        ("server stream", stream, 4096, 64_000),
        ("server stream", stream, 512, 1_000_000),
    ]
    print(f"{'shape':24} {'bytes':>9} {'messages/s':>12} {'MB/s':>8}")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=WIDE) as channel:
        for name, run, count, size in shapes:
            rates = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                await run(channel, count, size)
                rates.append(count / (time.perf_counter() - began))
            rate = statistics.median(rates)
            print(f"{name:24} {size:9} {rate:12,.0f} {rate * size / 1e6:8.0f}", flush=True)


def main() -> None:
    """Start the server process and measure against it."""
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    command = [sys.executable, __file__, "serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            uvloop.run(measure(server.stdout.readline().strip()))
        finally:
            server.stdin.close()


if __name__ == "__main__":
    main()
