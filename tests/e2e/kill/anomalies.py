"""What a history can have wrong, one kind for each promise that it breaks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Kind(enum.Enum):
    """Which promise is broken."""

    LOST = "an acknowledged record is not where it was acknowledged"
    VANISHED = "a record that was read is not in the log any more"
    DUPLICATE = "a record stands at more than one offset"
    INCONSISTENT = "an offset has had more than one value"
    REFUSED_VISIBLE = "a record of which nothing was to be written is in the log"
    FOREIGN = "a value that nobody sent is in the log"
    HOLE = "the log skips offsets"
    REORDERED = "a producer's records stand in another order than they were sent"
    GAP = "a reader was not given records between two that it was given"
    REPEATED = "a reader was given a record again, or an earlier one"
    UNREAD = "a reader has stopped before the end of the log"
    COMMIT_LOST = "a group goes on before the position that it has committed"
    COMMIT_AHEAD = "a group goes on behind everything that it has committed"
    WATERMARK_BACK = "a high watermark below what was known to be committed"
    FAILED = "somebody was told what must not happen"


class Anomaly(NamedTuple):
    """One broken promise and its witness."""

    kind: Kind
    witness: str

    def __str__(self) -> str:
        """Say both on one line."""
        return f"{self.kind.name}: {self.kind.value}: {self.witness}"


def shown(value: bytes) -> str:
    """Return the telling part of a value: what stands before its padding."""
    return repr(value[:40].rstrip(b"."))


def summary(anomalies: Iterable[Anomaly], *, each: int = 3) -> Iterator[str]:
    """Say how many there are of each kind, with a few witnesses of each."""
    by_kind: dict[Kind, list[str]] = {}
    for anomaly in anomalies:
        by_kind.setdefault(anomaly.kind, []).append(anomaly.witness)
    for kind, witnesses in by_kind.items():
        yield f"{kind.name} ({len(witnesses)}): {kind.value}"
        for witness in witnesses[:each]:
            yield f"  {witness}"
