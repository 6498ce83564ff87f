"""The pool of slots: column families made in bulk when the store opens, one for each partition.

Making a family later would hold the interpreter lock for 0.3 s among 500 of them, and 30 s for all.
When more partitions come than there are slots, slots are shared, which costs disk writes but works.
A slot that still holds batches of a dropped partition is taken only after those that do not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping

from riverrun_server.core.log.batch import PartitionId


class SlotPool:
    """Which slot each partition occupies.

    Args:
        slots: those that there are.
        occupied: by the partitions that are stored.
        littered: slots that still hold batches of dropped partitions, or of nobody that is known.
    """

    def __init__(
        self,
        slots: Collection[int],
        occupied: Mapping[PartitionId, int],
        littered: Iterable[int] = (),
    ) -> None:
        assert slots
        self._slots = sorted(slots)
        self.size = len(self._slots)
        self._slot_of = dict(occupied)
        self._tenants = Counter(self._slot_of.values())
        self._litter = Counter(littered)
        self._free = deque(
            slot for slot in self._slots if not self._tenants[slot] and not self._litter[slot]
        )

    def __contains__(self, partition: PartitionId) -> bool:
        """Return whether a partition has a slot."""
        return partition in self._slot_of

    def __getitem__(self, partition: PartitionId) -> int:
        """Return a partition's slot."""
        return self._slot_of[partition]

    def partitions(self) -> list[PartitionId]:
        """Return all partitions that have one, in order."""
        return sorted(self._slot_of)

    @property
    def free(self) -> int:
        """How many slots no partition occupies."""
        return self.size - sum(1 for count in self._tenants.values() if count)

    @property
    def sharing(self) -> int:
        """How many partitions share their slot with another."""
        return sum(count for count in self._tenants.values() if count > 1)

    def choose(self) -> int:
        """Return the slot that the next partition should take: clean, else empty, else shared."""
        if self._free:
            return self._free[0]
        return min(self._slots, key=lambda slot: (self._tenants[slot], self._litter[slot]))

    def is_alone(self, partition: PartitionId) -> bool:
        """Return whether a partition's slot holds nothing but it."""
        slot = self._slot_of[partition]
        return self._tenants[slot] == 1 and not self._litter[slot]

    def has_clean(self) -> bool:
        """Return whether `choose` would return a slot that nobody has ever used up."""
        return bool(self._free)

    def take(self, partition: PartitionId, slot: int) -> bool:
        """Give a slot to a partition; return whether it is shared now."""
        assert partition not in self._slot_of, partition
        if slot in self._free:
            self._free.remove(slot)
        self._slot_of[partition] = slot
        self._tenants[slot] += 1
        return self._tenants[slot] > 1

    def leave(self, partition: PartitionId) -> int:
        """Take a dropped partition's slot away; its batches are litter there until `cleaned`."""
        slot = self._slot_of.pop(partition)
        self._tenants[slot] -= 1
        self._litter[slot] += 1
        return slot

    def cleaned(self, slot: int) -> None:
        """Note that the batches of one dropped partition are gone from a slot."""
        assert self._litter[slot] > 0, slot
        self._litter[slot] -= 1
        if not self._litter[slot] and not self._tenants[slot] and slot not in self._free:
            # To the end: whoever reads the old batches has time to notice.
            self._free.append(slot)
