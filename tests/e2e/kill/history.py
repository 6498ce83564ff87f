"""What happened in a run of the kill test: events, in the order in which this process saw them.

Times do not matter to the checker, only the order: what has been answered before something is asked
must show in its answer. A history is plain data, so that a wrong one can be written down by hand.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

Place: TypeAlias = tuple[int, bytes]
"""A record as it was read: its offset and its value."""


class Outcome(enum.Enum):
    """What the client was told of a record that it wrote."""

    ACKED = "acknowledged"
    REFUSED = "refused: nothing was written"
    UNKNOWN = "unknown"


class Written(NamedTuple):
    """A record that was sent, once it is known what became of it.

    Attributes:
        producer: who sent it.
        partition: where to.
        number: its place among what the producer sent to this partition.
        value: unlike that of any other record.
        outcome: what the producer was told.
        offset: where it stands, as far as the producer was told.
        durable: whether an acknowledgement is a promise that outlives a crash (acks is not "none").
    """

    producer: str
    partition: int
    number: int
    value: bytes
    outcome: Outcome
    offset: int | None = None
    durable: bool = True


class Recognised(NamedTuple):
    """A batch that was sent again was answered as one that is written already."""

    producer: str
    partition: int


class Began(NamedTuple):
    """A reader begins to read a partition; `group` where it asked for the group's position."""

    reader: str
    partition: int
    offset: int
    group: str | None = None


class Returned(NamedTuple):
    """A reader was given records of one partition."""

    reader: str
    partition: int
    records: Sequence[Place]


class Committing(NamedTuple):
    """A group's commit is sent."""

    group: str
    partition: int
    offset: int


class Committed(NamedTuple):
    """What became of the commit that was sent last: it is stored, or nobody knows."""

    group: str
    partition: int
    offset: int
    stored: bool


class Measured(NamedTuple):
    """Somebody asked for the high watermark when so many events had been recorded."""

    asked_at: int
    partition: int
    high_watermark: int


class Ended(NamedTuple):
    """A reader has been given everything up to the end, as far as it was told."""

    reader: str
    partition: int


class Killed(NamedTuple):
    """The broker was killed, or told to end, with so many records sent and not answered.

    Attributes:
        how: at what moment.
        unanswered: by producer.
    """

    how: str
    unanswered: dict[str, int]


class PowerCut(NamedTuple):
    """The power was cut behind a kill, or behind an end in order.

    Attributes:
        number: of the round, which may have more than one.
        kind: what became of what had not been synced.
        lost: bytes of the write-ahead log that had been written and are gone.
    """

    number: int
    kind: str
    lost: int


class Failed(NamedTuple):
    """Somebody was told what must not happen to them, crash or no crash."""

    who: str
    what: str


class Dumped(NamedTuple):
    """All of a partition, read from its beginning to its end after the last event of all others."""

    reader: str
    partition: int
    records: Sequence[Place]


Event: TypeAlias = (
    Written
    | Recognised
    | Began
    | Returned
    | Committing
    | Committed
    | Measured
    | Ended
    | Killed
    | PowerCut
    | Failed
    | Dumped
)


class Recorder:
    """Takes down a history while it happens; one event loop writes into it.

    Attributes:
        events: what has happened so far.
        unanswered: records sent whose outcome is not known yet, by producer.
        done: how many records were acknowledged, by producer, or returned, by reader.
        changed: set whenever that changes.
        broken: whether somebody was told what must not happen, so that going on proves nothing.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unanswered: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self.broken = False
        self._values: dict[bytes, bytes] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    def add(self, event: Event) -> None:
        """Take down one event."""
        self.events.append(event)
        if isinstance(event, Failed):
            self.broken = True
            self.changed.set()

    def sending(self, producer: str, partition: int) -> int:
        """Return the number of a record that is about to be sent, which is unanswered from now on."""
        number = self._numbers.get((producer, partition), 0)
        self._numbers[producer, partition] = number + 1
        self.unanswered[producer] = self.unanswered.get(producer, 0) + 1
        return number

    def written(self, record: Written) -> None:
        """Take down what became of a record."""
        producer = record.producer
        self.unanswered[producer] -= 1
        if record.outcome is Outcome.ACKED:
            self.done[producer] += 1
        self.add(record._replace(value=self._kept(record.value)))
        self.changed.set()

    def returned(self, reader: str, partition: int, records: Iterable[Place]) -> None:
        """Take down what a reader was given."""
        places = self._places(records)
        self.add(Returned(reader, partition, places))
        self.done[reader] += len(places)
        self.changed.set()

    def dumped(self, reader: str, partition: int, records: Iterable[Place]) -> None:
        """Take down all of a partition."""
        self.add(Dumped(reader, partition, self._places(records)))

    def _places(self, records: Iterable[Place]) -> list[Place]:
        return [(offset, self._kept(value)) for offset, value in records]

    def _kept(self, value: bytes) -> bytes:
        """Return one object for equal values, which come back once for every reader."""
        return self._values.setdefault(value, value)
