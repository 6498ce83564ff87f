"""Choose the partition of a record: the one named, else by its key, else one for the batch.

Equal keys go to equal partitions from every language: CRC-32 of the key modulo partitions, which is
librdkafka's "consistent". Records without a key stay together while a batch fills, then move on to
the next partition: one full batch costs less than many small ones (KIP-480).
"""

from __future__ import annotations

from zlib import crc32


def partition_for_key(key: bytes, partitions: int) -> int:
    """Return where records with this key go."""
    return crc32(key) % partitions


class StickyPartitioner:
    """The partition that records without a key go to just now.

    Args:
        partitions: how many the topic has.
        first: where to begin; different producers should begin at different ones.
    """

    def __init__(self, partitions: int, first: int = 0) -> None:
        assert partitions > 0, "a topic has partitions"
        self.partitions = partitions
        self._current = first % partitions

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
