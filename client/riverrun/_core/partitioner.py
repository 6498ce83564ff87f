"""Choose the partition of a record: by its key, in turn, one for the batch, or as the application says.

By default equal keys go to equal partitions from every language: CRC-32 of the key modulo partitions,
which is librdkafka's "consistent". Records without a key stay together while a batch fills, then move
on to the next partition: one full batch costs less than many small ones (KIP-480).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import index
from typing import Literal, TypeAlias, get_args
from zlib import crc32

from riverrun._core.murmur2 import murmur2_of_key
from riverrun.errors import Reason, UsageError

PartitionerName: TypeAlias = Literal["crc32", "murmur2", "round-robin", "sticky"]

Partitioner: TypeAlias = Callable[[str, bytes | None, bytes | None, int], int]
"""An application's own: given topic, key and value as they are stored, and how many partitions there
are, it returns which one. It is called on the event loop, so it must not block."""


class Route:
    """Where the records of one topic go: all of them to one partition until its batch is full.

    Args:
        partitions: how many the topic has.
        first: where to begin; different producers should begin at different ones.
    """

    def __init__(self, partitions: int, first: int = 0) -> None:
        assert partitions > 0, "a topic has partitions"
        self.partitions = partitions
        self._current = first % partitions

    def choose(self, key: bytes | None, value: bytes | None) -> int:  # noqa: ARG002
        """Return the partition of the next record.

        Raises:
            UsageError: the application's own partitioner failed, or chose none that there is.
        """
        return self._current

    def partition(self) -> int:
        """Return the current one."""
        return self._current

    def move_on(self) -> None:
        """Take the next one: a batch has been filled."""
        self._current = (self._current + 1) % self.partitions

    def grow(self, partitions: int) -> None:
        """Reckon with partitions that were added."""
        assert partitions >= self.partitions, "partitions are never taken away"
        self.partitions = partitions


class KeyRoute(Route):
    """Records with a key go by its hash, the others as in `Route`."""

    def __init__(self, hash_of: Callable[[bytes], int], partitions: int, first: int = 0) -> None:
        super().__init__(partitions, first)
        self.hash_of = hash_of

    def choose(self, key: bytes | None, value: bytes | None) -> int:  # noqa: ARG002
        """Return the partition of the next record."""
        return self._current if key is None else self.hash_of(key) % self.partitions


class RoundRobinRoute(Route):
    """Each record goes to the next partition, whatever its key."""

    def choose(self, key: bytes | None, value: bytes | None) -> int:  # noqa: ARG002
        """Return the partition of the next record."""
        return self.deal(1)

    def deal(self, records: int) -> int:
        """Return the partition of the next record, and reckon with so many of them."""
        first = self._current
        self._current = (first + records) % self.partitions
        return first

    def move_on(self) -> None:
        """Do nothing: records move on by themselves."""


class OwnRoute(Route):
    """Each record goes where the application says."""

    def __init__(
        self, partitioner: Partitioner, topic: str, partitions: int, first: int = 0
    ) -> None:
        super().__init__(partitions, first)
        self._partitioner = partitioner
        self._topic = topic

    def choose(self, key: bytes | None, value: bytes | None) -> int:
        """Ask the application for the partition of the next record."""
        try:
            chosen = self._partitioner(self._topic, key, value, self.partitions)
        except Exception as error:
            raise self._wrong(f"raised {type(error).__name__}: {error}") from error
        try:
            number = index(chosen)
        except TypeError:
            raise self._wrong(f"returned a {type(chosen).__name__}") from None
        if not 0 <= number < self.partitions:
            raise self._wrong(f"returned {number}")
        return number

    def _wrong(self, what: str) -> UsageError:
        name = getattr(self._partitioner, "__qualname__", type(self._partitioner).__name__)
        return UsageError(
            f"topic {self._topic}: the partitioner {name} {what}; it must return an int from 0 to "
            f"{self.partitions - 1}, for the topic has {self.partitions} partitions. The record was "
            "not sent",
            reason=Reason.INVALID_REQUEST,
        )


RouteMaker: TypeAlias = Callable[[str, int, int], Route]
"""Makes the route of a topic, given its name, how many partitions it has, and where to begin."""

_NAMED: dict[str, Callable[[int, int], Route]] = {
    "crc32": partial(KeyRoute, crc32),
    "murmur2": partial(KeyRoute, murmur2_of_key),
    "round-robin": RoundRobinRoute,
    "sticky": Route,
}
assert tuple(_NAMED) == get_args(PartitionerName), "each name has its route"


def route_maker(partitioner: PartitionerName | Partitioner) -> RouteMaker:
    """Return what makes the routes of a producer's topics.

    Raises:
        UsageError: there is no partitioner of this name, or it cannot be called.
    """
    if callable(partitioner):
        return partial(OwnRoute, partitioner)
    named = _NAMED.get(partitioner) if isinstance(partitioner, str) else None
    if named is None:
        raise UsageError(
            f"partitioner is {partitioner!r}; it must be one of {', '.join(map(repr, _NAMED))}, or a "
            "function of topic, key, value and the number of partitions",
            reason=Reason.INVALID_REQUEST,
        )
    return lambda _topic, partitions, first: named(partitions, first)
