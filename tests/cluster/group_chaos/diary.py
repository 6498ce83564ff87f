"""What a member of a group writes down while it works: one line for each event, read when everything is over.

Times are seconds of the machine's monotonic clock, which all processes on it share. A line is one write to
a file that is appended to: what was written before a SIGKILL is there after it, whole lines and perhaps
half of the last.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

UNTOLD = -1
"""In the place of what the writer does not know."""


class Joined(NamedTuple):
    """A stream speaks for the member."""

    at_s: float
    member: str
    gateway: str


class Lease(NamedTuple):
    """The member has its partitions until then, if it gives up none before."""

    at_s: float
    until_s: float


class Assigned(NamedTuple):
    """Partitions that the member reads: [partition, offset, assignment epoch], and others that are coming.

    The first of a stream names all that it has.
    """

    at_s: float
    epoch: int
    partitions: list[list[int]]
    coming: list[int]
    first: bool


class Revoking(NamedTuple):
    """Partitions that it is to give up."""

    at_s: float
    epoch: int
    partitions: list[int]


class Released(NamedTuple):
    """Partitions that it works on no more; noted before anybody is told."""

    at_s: float
    partitions: list[int]


class Lost(NamedTuple):
    """Partitions that it was told to have lost."""

    at_s: float
    partitions: list[int]


class Processed(NamedTuple):
    """Offsets of one delivery that were worked on, and the numbers in their records."""

    at_s: float
    partition: int
    assignment_epoch: int
    first: int
    next: int
    numbers: list[int]

    def records(self) -> Iterator[tuple[int, int]]:
        """Yield each offset with its record's number; nothing where numbers are not written down."""
        return zip(range(self.first, self.next), self.numbers, strict=bool(self.numbers))


class Committing(NamedTuple):
    """A commit, before it is sent: [partition, offset]."""

    at_s: float
    commit: int
    offsets: list[list[int]]


class Committed(NamedTuple):
    """What became of a commit: [partition, reason of the refusal, or 0]."""

    at_s: float
    commit: int
    results: list[list[int]]


class Ended(NamedTuple):
    """A stream has ended, and why; the member is still a member where it is resumed in time."""

    at_s: float
    why: str


class Left(NamedTuple):
    """The member has left by its own wish."""

    at_s: float


class Wrong(NamedTuple):
    """Something that must not happen at all."""

    at_s: float
    what: str


Event = (
    Joined
    | Lease
    | Assigned
    | Revoking
    | Released
    | Lost
    | Processed
    | Committing
    | Committed
    | Ended
    | Left
    | Wrong
)
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Joined, Lease, Assigned, Revoking, Released, Lost),
        *(Processed, Committing, Committed, Ended, Left, Wrong),
    )
}


@dataclass(frozen=True)
class Diary:
    """What one process of a member has written.

    Attributes:
        name: of the member, the same for all its processes.
        events: in order.
        died_s: when its process was killed; None where it ended by itself.
        is_open: whether it tells of epochs, leases and commits.
    """

    name: str
    events: list[Event]
    died_s: float | None = None
    is_open: bool = True


class Writer:
    """Writes a diary."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, event: Event) -> None:
        """Write one event."""
        line = json.dumps([type(event).__name__, *event], separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(path: Path) -> Iterator[Event]:
    """Yield what was written; half a line at the end is left out."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        kind, *values = json.loads(line)
        yield _KINDS[kind](*values)


def now_s() -> float:
    """Return the time that all processes of the machine share."""
    return time.monotonic()
