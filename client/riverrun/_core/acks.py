"""Which append a tag on a stream stands for."""

from __future__ import annotations

from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.sequences import PartitionLane
from riverrun.errors import FatalError, Reason


class TagLedger:
    """The appends of one stream that wait for their answer, by tag; tags rise from 1."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[PartitionLane | None, OutgoingBatch]] = {}
        self._last_tag = 0
        self._newest_answered = 0
        self.bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def ahead(self) -> int:
        """How many were sent behind the newest one that is answered.

        What was sent before that one, and still waits, waits for its partition and not for the stream.
        """
        return self._last_tag - self._newest_answered

    @property
    def next_tag(self) -> int:
        """The tag that the next append gets."""
        return self._last_tag + 1

    def enter(self, lane: PartitionLane, batch: OutgoingBatch) -> None:
        """Remember an append that is about to be sent under `next_tag`."""
        self._last_tag += 1
        assert batch.tag == self._last_tag, "the lane sent the batch under this tag"
        self._waiting[self._last_tag] = (lane, batch)
        self.bytes += batch.size_bytes

    def take(self, tag: int) -> tuple[PartitionLane, OutgoingBatch] | None:
        """Return what a tag stands for, once; None where it was given up in the meantime.

        Raises:
            FatalError: no append has this tag, or it was answered before.
        """
        try:
            lane, batch = self._waiting.pop(tag)
        except KeyError:
            raise FatalError(
                f"the broker answers tag {tag} on a produce stream, which is not waiting for an "
                f"answer (tags so far: 1 to {self._last_tag}); the stream is given up",
                reason=Reason.PROTOCOL_BROKEN,
                outcome_known=False,
            ) from None
        self.bytes -= batch.size_bytes
        self._newest_answered = max(self._newest_answered, tag)
        return (lane, batch) if lane is not None and batch.tag == tag else None

    def disown(self, lane: PartitionLane) -> None:
        """Let answers for a lane, which has gone to another stream, mean nothing any more.

        Its batches have tags of that stream by then, which may be the same numbers.
        """
        for tag, (waiting, batch) in self._waiting.items():
            if waiting is lane:
                self._waiting[tag] = (None, batch)
