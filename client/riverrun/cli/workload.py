"""Records for measurements: pairs of a key and a value, taken in turn from a pool."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, cycle, islice
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
        keys: list[bytes | None] = [None] * VALUES
        if key_bytes:
            keys = [dice.randbytes(key_bytes) for _ in range(KEYS)]
        # Made beforehand: what is measured is the client, not the making of tuples.
        pairs: list[Pair] = [*zip(keys, cycle(values), strict=False)]
        self._pairs = cycle(pairs)

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
