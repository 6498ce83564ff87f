"""What everybody at work in a soak shares: the broker's address, the ledger, the dice and the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import grpc.aio

from tests.e2e.soak.ledger import Lane, Ledger

BY_SIZE = "by-size"
BY_TIME = "by-time"
KEPT_BYTES = {BY_SIZE: 8 << 20}
"""How much each partition of a topic keeps."""
KEPT_MS = {BY_TIME: 30_000}
"""For how long a topic keeps records."""
TOPICS: dict[str, tuple[int, dict[str, str]]] = {
    BY_SIZE: (4, {"retention.bytes": str(KEPT_BYTES[BY_SIZE])}),
    BY_TIME: (2, {"retention.ms": str(KEPT_MS[BY_TIME])}),
}
"""Partitions and settings of the topics that live as long as the run."""
LANES = tuple(
    Lane(topic, p) for topic, (partitions, _) in TOPICS.items() for p in range(partitions)
)
CALL_TIMEOUT_S = 30.0
_FAILURES_MAX = 100


class World:
    """One run.

    Attributes:
        stop: nothing new is begun once it is set.
        ended: writers have ended; readers that keep up end where the logs do.
        ledger: what was acknowledged.
        latencies_ms: of acknowledgements since somebody took them.
        failures: what must not happen, at most a hundred of them.
        done: how often things were done, by name.
    """

    def __init__(self, address: str, seed: int) -> None:
        self.address = address
        self.stop = asyncio.Event()
        self.ended = asyncio.Event()
        self.ledger = Ledger()
        self.latencies_ms: list[float] = []
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()
        self._seed = seed

    def rng(self, name: str) -> random.Random:
        """Return the dice of one actor, so that actors do not change each other's choices."""
        return random.Random(f"{self._seed}/{name}")

    def channel(self) -> grpc.aio.Channel:
        """Return a connection of the actor's own."""
        return grpc.aio.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    async def pause(self, seconds: float) -> None:
        """Wait, but not past the end."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass

    def failed(self, who: str, *what: object) -> None:
        """Take down what must not happen."""
        room = _FAILURES_MAX - len(self.failures)
        self.failures += [f"{who}: {str(one) or repr(one)}" for one in what][:room]
