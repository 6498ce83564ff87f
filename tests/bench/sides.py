"""What a broker that is measured has to offer: the same measurements, each by its own tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tests.bench.systems import System

WARM_UP_S = 3
"""How long records are written at a rate before latencies count."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Latencies of acknowledgements, in ms."""

    p50_ms: float
    p99_ms: float
    p999_ms: float


class Side(Protocol):
    """One broker, started afresh for each turn. Every method blocks, and raises where it fails."""

    name: str

    def version(self) -> str:
        """Return what is measured; raises Missing where it cannot be."""

    def start(self) -> None:
        """Start a broker with fresh data."""

    def stop(self) -> None:
        """End the broker and delete its data; nothing where it does not run."""

    def create_topic(self, topic: str, partitions: int, system: System) -> None:
        """Make a topic with the system's settings."""

    def produce(self, system: System, topic: str, records: int, record_size: int) -> float:
        """Write records without keys as fast as it goes; return records a second."""

    def read(self, topic: str, records: int) -> float:
        """Read records from the beginning as fast as it goes; return records a second."""

    def answer(
        self, system: System, topic: str, rate: int, seconds: int, record_size: int
    ) -> Answered:
        """Write records at a fixed rate; return how long acknowledgements took."""

    def round_trip(self, topic: str, trips: int, record_size: int) -> float:
        """Write a record, read it, and only then the next; return the mean in ms."""
