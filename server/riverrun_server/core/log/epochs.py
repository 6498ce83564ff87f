"""Where each leader epoch begins in a partition: how replicas and readers find where logs differ.

A record is known by (leader epoch, offset): two logs that have the same epoch at an offset have the
same records up to it. So the place where they part is found by comparing epochs, never by comparing
high watermarks (KIP-101, KIP-279), and a reader that says which epoch it read last is told when the
log below its position was replaced (KIP-320).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from riverrun_server.core.errors import Reason, Refusal

# What was lost may have been written in epochs of which nothing is left here, up to one for each
# start since the data that is: a backup was put back, or the metadata was lost with the records. An
# epoch that had been used would tell readers of what is gone that all of it is still there. So an
# election that accepts a loss skips this many, and by that it is known.
EPOCHS_LOST_MAX: Final = 1_000


class EpochEntry(NamedTuple):
    """Where a leader epoch begins."""

    leader_epoch: int
    start_offset: int


class EpochEnd(NamedTuple):
    """Where a leader epoch ends: the offset behind its last record."""

    leader_epoch: int
    end_offset: int


class EpochMap:
    """The epochs of one log, strictly increasing in epoch and in start offset.

    Args:
        entries: as stored, in order. One that a later one replaced may still be among them.
    """

    __slots__ = ("_epochs", "_starts")

    def __init__(self, entries: Iterable[EpochEntry] = ()) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for entry in entries:
            self.begin(*entry)

    @property
    def latest(self) -> EpochEntry | None:
        """The newest entry."""
        return EpochEntry(self._epochs[-1], self._starts[-1]) if self._epochs else None

    def entries(self) -> list[EpochEntry]:
        """Return all entries in order."""
        return list(map(EpochEntry, self._epochs, self._starts))

    def entries_below(self, offset: int) -> list[EpochEntry]:
        """Return the entries that a truncation from `offset` on would leave."""
        return self.entries()[: bisect_left(self._starts, offset)]

    def begin(self, leader_epoch: int, start_offset: int) -> bool:
        """Let an epoch begin at the log end; return False where it has begun already.

        An epoch in which nothing was written has the same start as the next and gives way to it.
        """
        if self._epochs and leader_epoch == self._epochs[-1]:
            assert start_offset >= self._starts[-1], (leader_epoch, start_offset, self.latest)
            return False
        assert not self._epochs or leader_epoch > self._epochs[-1], (leader_epoch, self.latest)
        assert not self._starts or start_offset >= self._starts[-1], (start_offset, self.latest)
        if self._starts and start_offset == self._starts[-1]:
            self._epochs.pop()
            self._starts.pop()
        self._epochs.append(leader_epoch)
        self._starts.append(start_offset)
        return True

    def obstacle(self, leader_epoch: int) -> str | None:
        """Return why a leader epoch cannot begin here, for a person; None where it can."""
        if not self._epochs or self._epochs[-1] < leader_epoch:
            return None
        return (
            f"its log has leader epoch {self._epochs[-1]} and the metadata says {leader_epoch}: the "
            "metadata is older than the data"
        )

    def end_offset_for(self, leader_epoch: int, log_end: int) -> EpochEnd:
        """Return the largest epoch that is at most `leader_epoch`, and where it ends.

        A follower that lacks the returned epoch truncates to the end of its own largest epoch below
        it and asks again (KIP-279). Where every epoch known is larger, the answer is the epoch asked
        for, with the start of the first one known: nothing at or behind that can be of it.
        """
        behind = bisect_right(self._epochs, leader_epoch)
        end_offset = self._starts[behind] if behind < len(self._starts) else log_end
        return EpochEnd(self._epochs[behind - 1] if behind else leader_epoch, end_offset)

    def truncate_from(self, offset: int) -> None:
        """Forget the epochs that begin at or behind `offset`; the log ends there now."""
        kept = bisect_left(self._starts, offset)
        del self._epochs[kept:], self._starts[kept:]

    def trim_to(self, log_start: int) -> None:
        """Forget the epochs that end at or before `log_start`; the one that holds it stays whole."""
        gone = max(bisect_right(self._starts, log_start) - 1, 0)
        del self._epochs[:gone], self._starts[:gone]

    def epoch_at(self, offset: int) -> int | None:
        """Return the epoch of the record at `offset`; None below everything known."""
        behind = bisect_right(self._starts, offset)
        return self._epochs[behind - 1] if behind else None

    def diverges(self, offset: int, leader_epoch: int) -> int | None:
        """Return where the log departs from what a reader saw; None where it does not.

        Args:
            offset: the reader's position.
            leader_epoch: of the record that it read just before.

        Raises:
            Refusal: UNKNOWN_LEADER_EPOCH, the reader saw a leadership newer than any known here.
        """
        if not self._epochs or leader_epoch > self._epochs[-1]:
            raise Refusal(
                Reason.UNKNOWN_LEADER_EPOCH,
                f"the record before offset {offset} was read in leader epoch {leader_epoch}, and "
                f"the newest one known here is {self._epochs[-1] if self._epochs else 'none'}; ask "
                f"again, or refresh the metadata and ask the partition's leader",
            )
        # The newest epoch is still growing; whether the position lies behind it is asked elsewhere.
        end = self.end_offset_for(leader_epoch, log_end=offset)
        if end.leader_epoch == leader_epoch and end.end_offset >= offset:
            return None
        return min(end.end_offset, offset)
