"""What to clean up next, from a list of tables: no disk here, only the choice.

Tables whose batches all lie below the log start, or belong to a dropped partition, can go as a
whole. Small tables that lie side by side are joined once there are very many: 256 partitions
written in turn make tables of half a MiB, and every table costs memory and a descriptor.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

from riverrun_server.storage import keys
from riverrun_server.storage.rocks import File

_MIB: Final = 1 << 20
STEP_BYTES: Final = 64 * _MIB
_SMALL_BYTES: Final = 8 * _MIB
_RUN_MIN: Final = 16
TABLES_MANY: Final = 1000


class Purpose(enum.Enum):
    """Why a range of a slot is worked on."""

    DROPPED = "dropped"
    TRIMMED = "trimmed"
    JOIN = "join"


class Tenancy(NamedTuple):
    """A partition in its slot."""

    slot: int
    log_start_offset: int


@dataclass(frozen=True, slots=True)
class Job:
    """One range of one partition's batches in one slot.

    Attributes:
        purpose: what for.
        slot: where.
        prefix: the partition's.
        first: key.
        last: key, included.
        tables: that it is about; a job is not done twice for them. None means whatever is there.
    """

    purpose: Purpose
    slot: int
    prefix: bytes
    first: bytes
    last: bytes
    tables: frozenset[str] = frozenset()

    @property
    def ends_drop(self) -> bool:
        """Whether nothing is left of a dropped partition when this is done."""
        return self.purpose is Purpose.DROPPED and not self.tables


def jobs(
    tables: Sequence[File],
    live: Mapping[bytes, Tenancy],
    dropped: Sequence[tuple[int, bytes]],
    tried: AbstractSet[str],
    *,
    many: int = TABLES_MANY,
) -> Iterator[Job]:
    """Yield what there is to be done, the most useful first.

    Args:
        tables: of the database.
        live: partitions by their prefix.
        dropped: (slot, prefix) of partitions whose batches are still there.
        tried: tables that were worked on in vain.
        many: tables from which on small ones are joined.
    """
    mine: defaultdict[bytes, list[File]] = defaultdict(list)
    for table in sorted(tables, key=lambda table: table.first_key):
        prefix = table.first_key[: keys.PREFIX_BYTES]
        if table.last_key.startswith(prefix) and table.name not in tried:
            mine[prefix].append(table)
    for slot, prefix in dropped:
        # Table by table, or compaction would rewrite what one step leaves of a table; last, all. Of a
        # log that was renewed nobody can tell which tables stand in the slot that it has left.
        if prefix not in live and (own := mine.pop(prefix, [])):
            yield _job(Purpose.DROPPED, slot, prefix, _until_full(own))
        yield Job(Purpose.DROPPED, slot, prefix, prefix, keys.batches_end(prefix))
    mine = defaultdict(list, {prefix: own for prefix, own in mine.items() if prefix in live})
    for prefix, own in mine.items():
        slot, start = live[prefix]
        dead = _until_full([each for each in own if each.last_key < keys.batch(prefix, start)])
        if dead:
            yield _job(Purpose.TRIMMED, slot, prefix, dead)
    if len(tables) >= many:
        for prefix, own in mine.items():
            for run in _small_runs(own):
                yield _job(Purpose.JOIN, live[prefix].slot, prefix, run)


def _job(purpose: Purpose, slot: int, prefix: bytes, tables: Sequence[File]) -> Job:
    last = max(table.last_key for table in tables)
    names = frozenset(table.name for table in tables)
    return Job(purpose, slot, prefix, tables[0].first_key, last, names)


def _until_full(tables: Sequence[File]) -> list[File]:
    """Return the first tables, about as many as one step may read."""
    chosen: list[File] = []
    size = 0
    for table in tables:
        if chosen and size + table.size > STEP_BYTES:
            break
        chosen.append(table)
        size += table.size
    return chosen


def _small_runs(tables: Sequence[File]) -> Iterator[list[File]]:
    """Yield runs of small tables that lie side by side, below the level that flushes fill."""
    run: list[File] = []
    for table in [*tables, None]:
        if table is not None and table.level > 0 and table.size < _SMALL_BYTES:
            run.append(table)
            if len(run) < _RUN_MIN * 4:
                continue
        if len(run) >= _RUN_MIN:
            yield _until_full(run)
        run = []
