"""A disk that forgets what was not synced, a clock that is moved by hand, dice with a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from riverrun_server.ports.log import StorageError


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


class SeededDice:
    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class FakeDisk:
    """Implements ports.log.Table, and the `durable` of a flusher."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = dict(rows or {})
        self.synced_rows = dict(self.rows)
        self.writes = 0
        self.syncs = 0
        self.refusals: list[StorageError] = []
        self.sync_error: StorageError | None = None
        self.may_sync = asyncio.Event()
        self.may_sync.set()

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(row for row in self.rows.items() if row[0].startswith(prefix))

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.writes += 1
        self.rows.update(puts)
        for key in deletes:
            self.rows.pop(key, None)

    async def durable(self) -> None:
        captured = dict(self.rows)
        await asyncio.sleep(0)
        await self.may_sync.wait()
        if self.sync_error:
            raise self.sync_error
        self.syncs += 1
        self.synced_rows = captured

    def after_power_cut(self) -> FakeDisk:
        return FakeDisk(self.synced_rows)

    def after_kill(self) -> FakeDisk:
        return FakeDisk(self.rows)
