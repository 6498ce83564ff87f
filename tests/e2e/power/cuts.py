"""What a power cut leaves of what was not synced: nothing, a beginning of it, or zeroes."""

from __future__ import annotations

import enum
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.e2e.power.disk import FaultyDisk, Unsynced

_PAGE = 4096


class Kind(enum.Enum):
    """How a power cut treats what was written and not synced."""

    DROP = "drop"
    """All of it is gone."""
    TORN = "torn"
    """A beginning of it is there, ending anywhere."""
    ZEROED = "zeroed"
    """The file is as long as it was, but pages of it, or the whole rest, are zeroes."""


class Cut(NamedTuple):
    """One power cut.

    Attributes:
        kind: of it.
        lost: bytes that were written and are not there any more, by path.
    """

    kind: Kind
    lost: dict[Path, int]

    def of(self, suffix: str) -> int:
        """Return how much was lost of the files whose names end like this."""
        return sum(size for path, size in self.lost.items() if path.name.endswith(suffix))


def cut_power(disk: FaultyDisk, kind: Kind, dice: random.Random) -> Cut:
    """Take what a power cut would from the files of a dead process; what is left is on the disk."""
    lost = {file.path: _cut(file, kind, dice) for file in disk.unsynced()}
    disk.settle()
    return Cut(kind, {path: size for path, size in lost.items() if size})


def _cut(file: Unsynced, kind: Kind, dice: random.Random) -> int:
    """Damage one file; return how many of its bytes are gone."""
    begin, end = file.dropped
    _zero(file.path, [(begin, end)] if begin < end else [])
    size = file.size
    if kind is Kind.DROP:
        size = file.synced
    elif kind is Kind.TORN:
        size = dice.randint(file.synced, max(file.synced, file.size - 1))
    os.truncate(file.path, size)
    zeroed = list(_zeroed(file, dice)) if kind is Kind.ZEROED else []
    _zero(file.path, zeroed)
    return max(0, end - begin) + file.size - size + sum(to - at for at, to in zeroed)


def _zeroed(file: Unsynced, dice: random.Random) -> Iterator[tuple[int, int]]:
    """Yield which ranges of the unsynced part are zeroes: the pages of which it says so."""
    pages = range(file.synced // _PAGE, -(-file.size // _PAGE))
    if not pages or file.synced == file.size:
        return
    chosen = {page for page in pages if dice.random() < 0.5}
    if dice.random() < 0.5:  # the size had been written, and nothing behind some page
        chosen = set(pages[dice.randrange(len(pages)) :])
    for page in sorted(chosen or {dice.choice(pages)}):
        yield max(page * _PAGE, file.synced), min((page + 1) * _PAGE, file.size)


def _zero(path: Path, ranges: list[tuple[int, int]]) -> None:
    if not ranges:
        return
    with path.open("r+b") as stored:
        for begin, end in ranges:
            stored.seek(begin)
            stored.write(bytes(end - begin))
