"""Who has written how far, and whether readers see every record, once and in order.

Each writer numbers its records in each partition it writes to, one by one, and the value says who and
which. A reader that goes through a partition therefore needs to remember one offset and one number for
each writer to notice a record that is lost, repeated, or out of place, however long the run is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple


class Lane(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Wrote(NamedTuple):
    """What a value says of its record."""

    writer: str
    number: int


def value_of(writer: str, number: int, padding: bytes) -> bytes:
    """Return the value of a record."""
    return b"%s/%d/" % (writer.encode(), number) + padding


def read_value(value: bytes | None) -> Wrote:
    """Return what a value says of its record.

    Raises:
        ValueError: nobody here has written it.
    """
    parts = (value or b"").split(b"/", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        raise ValueError(f"nobody has written {(value or b'')[:60]!r}")
    return Wrote(parts[0].decode(), int(parts[1]))


class Following:
    """What one reader has been given.

    Attributes:
        next_offset: of each lane, where it goes on.
        numbers: of each writer in each lane, the last number that was read.
    """

    def __init__(self, starts: dict[Lane, int], *, from_the_first: bool = False) -> None:
        """`from_the_first`: it began when nothing was written, so numbers have to begin at 0."""
        self.next_offset = dict(starts)
        self.numbers: dict[tuple[Lane, str], int] = {}
        self._from_the_first = from_the_first

    def take(self, lane: Lane, offset: int, value: bytes | None) -> list[str]:
        """Note a record; return what is wrong with it."""
        wrong: list[str] = []
        expected = self.next_offset.get(lane)
        if expected is not None and offset != expected:
            wrong.append(f"{lane} goes on at {offset}, not at {expected}")
        self.next_offset[lane] = offset + 1
        try:
            wrote = read_value(value)
        except ValueError as error:
            return [*wrong, f"{lane} at {offset}: {error}"]
        key = lane, wrote.writer
        before = self.numbers.get(key, -1 if self._from_the_first else None)
        if before is not None and wrote.number != before + 1:
            wrong.append(
                f"{lane} at {offset}: {wrote.writer} {wrote.number} follows its {before}: "
                f"{'lost' if wrote.number > before + 1 else 'repeated or out of order'}"
            )
        self.numbers[key] = wrote.number
        return wrong


class Ledger:
    """What was acknowledged, and where.

    Attributes:
        acknowledged: how many records, over all.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self._given: defaultdict[tuple[Lane, str], int] = defaultdict(int)
        self._highest: dict[tuple[Lane, str], int] = {}
        # Offsets told by one side and not yet by the other: what is on its way.
        self._told: dict[tuple[Lane, Wrote], int] = {}
        self._seen: dict[tuple[Lane, Wrote], int] = {}
        self._exact: set[str] = set()

    def number(self, lane: Lane, writer: str) -> int:
        """Return the number of the writer's next record in a lane."""
        number = self._given[lane, writer]
        self._given[lane, writer] += 1
        return number

    def exact(self, writer: str) -> None:
        """Expect that this writer is told the offset of each record."""
        self._exact.add(writer)

    def acked(self, lane: Lane, writer: str, number: int, offset: int | None = None) -> list[str]:
        """Note an acknowledgement; return what is wrong with it."""
        self.acknowledged += 1
        self._highest[lane, writer] = max(number, self._highest.get((lane, writer), -1))
        if writer not in self._exact:
            return []
        key = lane, Wrote(writer, number)
        if offset is None:
            return [f"{lane}: {writer} {number} was acknowledged without an offset"]
        return self._compare(key, offset, self._seen, self._told)

    def seen(self, lane: Lane, offset: int, value: bytes | None) -> list[str]:
        """Note what the reader that keeps up was given; return what is wrong with it."""
        try:
            wrote = read_value(value)
        except ValueError:
            return []  # the reader has said so
        if wrote.writer not in self._exact:
            return []
        return self._compare((lane, wrote), offset, self._told, self._seen)

    def lost(self, reader: Following) -> list[str]:
        """Return what was acknowledged and not given to a reader that has come to the end."""
        return [
            f"{lane}: {writer} {number} was acknowledged, the last that was read is {last}"
            for (lane, writer), number in self._highest.items()
            if (last := reader.numbers.get((lane, writer), -1)) < number
        ]

    @staticmethod
    def _compare(
        key: tuple[Lane, Wrote],
        offset: int,
        theirs: dict[tuple[Lane, Wrote], int],
        ours: dict[tuple[Lane, Wrote], int],
    ) -> list[str]:
        other = theirs.pop(key, None)
        if other is None:
            ours[key] = offset
            return []
        if other == offset:
            return []
        return [f"{key}: acknowledged at one offset and read at another: {other}, {offset}"]
