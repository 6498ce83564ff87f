"""What is measured of Kafka, by its own tools."""

from __future__ import annotations

import random
import string
from pathlib import Path

from tests.bench.kafka_output import Produced, consumed, produced, round_trip_ms
from tests.bench.kafka_process import KafkaProcess, fetch, version
from tests.bench.sides import WARM_UP_S, Answered
from tests.bench.systems import System

_TOOLS = "org.apache.kafka.tools."
_VALUES = 64
# Records that do not count: the machine code of producers is made meanwhile.
WARM_UP_SHARE = 0.25


class KafkaSide:
    """A broker of Kafka's, with fresh data after each start."""

    name = "kafka"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._broker = KafkaProcess(folder)

    def version(self) -> str:
        """Return what is measured, fetched first.

        Raises:
            Missing: it cannot be fetched or run here.
        """
        fetch()
        return version()

    def start(self) -> None:
        """Start a fresh broker."""
        self._broker.start()

    def stop(self) -> None:
        """End the broker and delete its data."""
        self._broker.stop()

    def create_topic(self, topic: str, partitions: int, system: System) -> None:
        """Make a topic with the system's settings."""
        configs = [f for name, value in system.topic for f in ("--config", f"{name}={value}")]
        where = ("--bootstrap-server", self._broker.address, "--create", "--topic", topic)
        self._tool("TopicCommand", *where, "--partitions", str(partitions), *configs)

    def produce(self, system: System, topic: str, records: int, record_size: int) -> float:
        """Return records a second, after a quarter more that warmed the producer up."""
        warm_up = int(records * WARM_UP_SHARE)
        return self._produce(system, topic, records, warm_up, record_size, -1).records_per_s

    def read(self, topic: str, records: int) -> float:
        """Return records a second of a reader from the beginning."""
        where = ("--bootstrap-server", self._broker.address, "--topic", topic)
        output = self._tool("ConsumerPerformance", *where, "--num-records", str(records))
        return consumed(output, records)

    def answer(
        self, system: System, topic: str, rate: int, seconds: int, record_size: int
    ) -> Answered:
        """Return latencies of acknowledgements at a fixed rate, after a warm-up."""
        warm_up = rate * WARM_UP_S
        found = self._produce(system, topic, rate * seconds, warm_up, record_size, rate)
        return Answered(found.p50_ms, found.p99_ms, found.p999_ms)

    def round_trip(self, topic: str, trips: int, record_size: int) -> float:
        """Return the mean of round trips in ms, after as many that warmed the tool up."""
        output = ""
        for _ in range(2):
            output = self._tool(
                "EndToEndLatency",
                *("--bootstrap-server", self._broker.address, "--topic", topic),
                *("--num-records", str(trips), "--producer-acks", "all"),
                *("--record-size", str(record_size)),
            )
        return round_trip_ms(output)

    def _produce(
        self, system: System, topic: str, records: int, warm_up: int, record_size: int, rate: int
    ) -> Produced:
        output = self._tool(
            "ProducerPerformance",
            *("--bootstrap-server", self._broker.address, "--topic", topic),
            *("--num-records", str(records + warm_up), "--warmup-records", str(warm_up)),
            *("--payload-file", str(self._values(record_size)), "--throughput", str(rate)),
            *("--command-property", "acks=all", *system.producer),
        )
        return produced(output)

    def _values(self, record_size: int) -> Path:
        """Return a file of values: the tool would spend more on making them than on sending them."""
        path = self._folder / f"values-{record_size}"
        if not path.exists():
            dice = random.Random(record_size)
            letters = string.ascii_letters + string.digits
            path.write_text(
                "\n".join("".join(dice.choices(letters, k=record_size)) for _ in range(_VALUES))
            )
        return path

    def _tool(self, main: str, *arguments: str) -> str:
        return self._broker.tool(_TOOLS + main, *arguments)
