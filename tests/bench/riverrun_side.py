"""What is measured of Riverrun: by `riverrun perf`, and round trips by a client of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import uvloop

import riverrun
from tests.bench.sides import WARM_UP_S, Answered
from tests.bench.systems import System
from tests.e2e.broker_process import BrokerProcess

COMMAND = Path(sysconfig.get_path("scripts")) / "riverrun"
TIMEOUT_S = 300.0


class RiverrunSide:
    """A broker of Riverrun's, with fresh data after each start."""

    name = "riverrun"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._broker = BrokerProcess(folder)

    def version(self) -> str:
        """Return what is measured."""
        return importlib.metadata.version("riverrun")

    def start(self) -> None:
        """Start a fresh broker."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._broker.start()

    def stop(self) -> None:
        """End the broker and delete its data."""
        self._broker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_topic(self, topic: str, partitions: int, system: System) -> None:
        """Make a topic with the system's settings."""
        configs = [f for name, value in system.topic for f in ("--config", f"{name}={value}")]
        self._run("topic", "create", topic, "--partitions", str(partitions), *configs)

    def produce(self, system: System, topic: str, records: int, record_size: int) -> float:
        """Return records a second."""
        size = ("--record-size", str(record_size), "--key-size", "0")
        return self._perf("produce", topic, "--records", str(records), *size)["records_per_s"]

    def read(self, topic: str, records: int) -> float:
        """Return records a second of a reader from the beginning."""
        return self._perf("consume", topic, "--records", str(records))["records_per_s"]

    def answer(
        self, system: System, topic: str, rate: int, seconds: int, record_size: int
    ) -> Answered:
        """Return latencies of acknowledgements at a fixed rate, from when each record was due."""
        times = ("--seconds", str(seconds), "--warm-up", str(WARM_UP_S))
        load = ("--rate", str(rate), *times, "--record-size", str(record_size))
        took = self._perf("latency", topic, *load)["ack_latency_ms"]
        return Answered(took["p50"], took["p99"], took["p999"])

    def round_trip(self, topic: str, trips: int, record_size: int) -> float:
        """Return the mean of round trips in ms."""
        return uvloop.run(_round_trip(self._broker.address, topic, trips, record_size))

    def _perf(self, *arguments: str) -> Any:
        return json.loads(self._run("perf", *arguments).splitlines()[-1])

    def _run(self, *arguments: str) -> str:
        return run(self._broker.address, *arguments)


def run(bootstrap: str, *arguments: str) -> str:
    """Run the command line; return what it prints.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [COMMAND, *arguments, "--bootstrap", bootstrap],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        command = " ".join(arguments)
        raise RuntimeError(f"riverrun {command} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


async def _round_trip(address: str, topic: str, trips: int, record_size: int) -> float:
    """Do what Kafka's EndToEndLatency does: send, wait for the answer, read, and compare."""
    value = os.urandom(record_size)
    async with (
        riverrun.Client(address) as client,
        client.producer(linger_s=0) as producer,
        client.consumer(topic, from_="latest") as consumer,
    ):
        await consumer.assignment()

        async def make(count: int) -> None:
            for _ in range(count):
                await producer.send(topic, value)
                record = await anext(consumer)
                assert record.value == value, "another record was read"

        # As many that do not count as for the other side.
        await make(trips)
        began = time.perf_counter()
        await make(trips)
        return 1_000 * (time.perf_counter() - began) / trips
