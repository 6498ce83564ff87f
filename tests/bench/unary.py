"""Unary Produce of one record at a time, beside a bare grpc.aio echo of the same message.

    .venv/bin/python -m tests.bench.unary [--rounds N] [--calls N] [--record-size BYTES] [--json FILE]

This process is the only client: 64 calls in flight, the same request and the same stub for each
contender. The echo is a server process that answers the bytes of a Produce answer without looking at
what came. Contenders take turns within a round, so that whatever else the machine does meets all of
them; each figure is the median of the rounds, after one that does not count. Ratios are to the echo
of the same round: of rates, echo is 1; of latencies, below 1 is slower than the echo.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import uvloop

import riverrun
from riverrun.v1.producer_pb2 import ProduceRequest, ProduceResponse, ProduceResult
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record
from tests.e2e.broker_process import BrokerProcess

IN_FLIGHT = 64
ECHO = "echo"
TOPICS: dict[str, dict[str, str]] = {"produce": {}, "produce, fsync=relaxed": {"fsync": "relaxed"}}
_METHOD = "/riverrun.v1.ProducerService/Produce"
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Echo(grpc.GenericRpcHandler):
    """Answers every Produce with the same bytes."""

    def __init__(self) -> None:
        result = ProduceResult(
            topic="unary",
            topic_id=bytes(range(16)),
            partition=0,
            base_offset=1_000_000,
            record_count=1,
        )
        self._answer = ProduceResponse(results=[result]).SerializeToString()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler of a method."""
        return (
            grpc.unary_unary_rpc_method_handler(self._echo) if details.method == _METHOD else None
        )

    async def _echo(self, _: bytes, __: object) -> bytes:
        return self._answer


async def serve() -> None:
    """Serve on a free port, printed first, until the pipe to standard input is closed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


@contextlib.contextmanager
def echo_process() -> Iterator[str]:
    """Run the echo and tell its address."""
    command = [sys.executable, "-m", "tests.bench.unary", "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.stdin.close()


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is called, and with what."""

    name: str
    stub: ProducerServiceStub
    request: ProduceRequest


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one contender gave: calls a second, and latencies in ms."""

    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def turn_of(latencies_s: Sequence[float], took_s: float) -> Turn:
    """Return a turn's figures from the latency of each of its calls."""
    ordered = sorted(latencies_s)
    p50, p99, p999 = (
        1_000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]
        for share in (0.5, 0.99, 0.999)
    )
    return Turn(len(ordered) / took_s, p50, p99, p999)


async def take_turn(contender: Contender, calls: int) -> Turn:
    """Make `calls` calls, 64 at a time."""
    latencies: list[float] = []
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            response = await contender.stub.Produce(contender.request, timeout=30)
            latencies.append(time.perf_counter() - began)
            assert response.results[0].HasField("base_offset"), response

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return turn_of(latencies, time.perf_counter() - began)


async def measure(echo: str, broker: str, options: argparse.Namespace) -> dict[str, list[Turn]]:
    """Return the turns of each contender, after one each that does not count."""
    await make_topics(broker)
    record = Record(value=os.urandom(options.record_size))
    async with contextlib.AsyncExitStack() as open_channels:
        contenders = []
        for name in (ECHO, *TOPICS):
            address = echo if name == ECHO else broker
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            await open_channels.enter_async_context(channel)
            request = ProduceRequest(topic=topic_of(name), partition=0, records=[record])
            contenders.append(Contender(name, ProducerServiceStub(channel), request))
        turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
        for number in range(options.rounds + 1):
            for contender in contenders:
                turn = await take_turn(contender, options.calls)
                if number:
                    turns[contender.name].append(turn)
    return turns


def topic_of(name: str) -> str:
    """Return the topic of a contender; the names of topics are equally long."""
    return f"unary-{(ECHO, *TOPICS).index(name)}"


async def make_topics(broker: str) -> None:
    """Make a topic for each way to produce."""
    async with riverrun.Client(broker) as client:
        for name, configs in TOPICS.items():
            await client.admin().create_topic(topic_of(name), partitions=1, configs=configs)


def rows_of(turns: dict[str, list[Turn]]) -> list[dict[str, object]]:
    """Return a row for each contender: medians, the rate's extremes, and its ratio to the echo."""
    rows: list[dict[str, object]] = []
    for name, own in turns.items():
        rates = [turn.rate for turn in own]
        shares = [turn.rate / echo.rate for turn, echo in zip(own, turns[ECHO], strict=True)]
        rows.append(
            {
                "contender": name,
                "median": statistics.median(rates),
                "min": min(rates),
                "max": max(rates),
                "unit": "calls/s",
                "ratio": statistics.median(shares),
                **{
                    f"{which}_ms": statistics.median(getattr(turn, f"{which}_ms") for turn in own)
                    for which in ("p50", "p99", "p999")
                },
            }
        )
    return rows


def tell(rows: list[dict[str, object]]) -> None:
    """Print a line for each row."""
    print(
        f"{'':24} {'calls/s':>9} {'min':>7} {'max':>7} {'of echo':>8} {'p50 ms':>8} {'p99':>7} {'p99.9':>7}"
    )
    for row in rows:
        print(
            f"{row['contender']:24} {row['median']:9,.0f} {row['min']:7,.0f} {row['max']:7,.0f} "
            f"{row['ratio']:8.2f} {row['p50_ms']:8.1f} {row['p99_ms']:7.1f} {row['p999_ms']:7.1f}"
        )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.unary", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender that count")
    parser.add_argument("--calls", type=int, default=10_000, help="calls in a turn")
    parser.add_argument("--record-size", type=int, default=100, help="bytes of the one value")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument(
        "--folder", type=Path, default=Path("data/bench"), help="for the broker's data"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Start both servers, measure, tell."""
    options = arguments()
    if options.serve:
        uvloop.run(serve())
        return
    folder = options.folder / "unary"
    shutil.rmtree(folder, ignore_errors=True)
    broker = BrokerProcess(folder)
    try:
        with echo_process() as echo:
            broker.start()
            rows = rows_of(uvloop.run(measure(echo, broker.address, options)))
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
    tell(rows)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
