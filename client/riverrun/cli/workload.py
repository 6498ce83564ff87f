"""Records for measurements: every one a fresh tuple of a key and a value from small pools."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, cycle, islice, repeat
from typing import TypeAlias

VALUES = 64
KEYS = 10_000
_BLOCK = 512

Pair: TypeAlias = tuple[bytes | None, bytes]


class Workload:
    """So many records to hand out, in bulk or one by one; together they are exactly that many.

    Values are random bytes, so compression finds nothing in them but their repetition. Keys are
    taken in turn, each as often as any other.

    Attributes:
        left: how many have not been handed out.
    """

    def __init__(self, records: int, record_bytes: int, key_bytes: int) -> None:
        self.left = records
        dice = random.Random(20_260_731)  # noqa: S311 - payload; a fixed seed repeats a run
        values = [dice.randbytes(record_bytes) for _ in range(VALUES)]
        keys = [dice.randbytes(key_bytes) for _ in range(KEYS)] if key_bytes else []
        self._pairs: Iterator[Pair] = zip(
            cycle(keys) if keys else repeat(None), cycle(values), strict=False
        )

    def bulk(self) -> Iterator[Pair]:
        """Hand out what is left, made in C: the loop that makes records must not be what is slow."""
        return chain.from_iterable(self._blocks())

    def one(self) -> Pair | None:
        """Hand out one record, or None where none is left."""
        if not self.left:
            return None
        self.left -= 1
        return next(self._pairs)

    def _blocks(self) -> Iterator[Iterator[Pair]]:
        """Hand out small blocks, so that `one` may come in between."""
        while self.left:
            size = min(_BLOCK, self.left)
            self.left -= size
            yield islice(self._pairs, size)
