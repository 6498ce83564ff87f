"""What is on the shelf and what became of each order, with the place in the log that it is as of: one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.orders.events import Event

_BUSY_S = 30.0
_TABLES = """
CREATE TABLE IF NOT EXISTS stock (article TEXT PRIMARY KEY, units INTEGER NOT NULL CHECK (units >= 0));
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, article TEXT, units INTEGER, reserved INTEGER);
CREATE TABLE IF NOT EXISTS places (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Summary:
    """What is left of each article, and how many orders were reserved and refused."""

    stock: dict[str, int]
    reserved: int
    refused: int


class Shelf:
    """The shop's database; any number of processes may have it open.

    The place of a partition says which of its events are in here already. It changes in the transaction
    that has their effects, so whoever comes back after a crash, or is not yet aware that another worker has
    taken over, does nothing twice and leaves nothing out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as database:
            database.executescript(_TABLES)

    def places(self) -> dict[int, int]:
        """Return the offset that is next in each partition that has come to any."""
        with self._transaction() as database:
            return dict(database.execute("SELECT partition, next_offset FROM places"))

    def apply(self, partition: int, events: Iterable[tuple[int, Event]]) -> int:
        """Take in events of a partition with their offsets, those that are new; return how many were.

        Raises:
            ValueError: some are missing before them.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT next_offset FROM places WHERE partition = ?", (partition,)
            ).fetchone()
            begin = place = row[0] if row else 0
            for offset, event in events:
                if offset < place:
                    continue  # it is in here already
                if offset > place:
                    raise ValueError(
                        f"offset {offset} of partition {partition} comes after {place - 1}"
                    )
                _take(database, event)
                place = offset + 1
            database.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (partition, place))
        return place - begin

    def summary(self) -> Summary:
        """Return what has become of everything."""
        with self._transaction() as database:
            stock = dict(database.execute("SELECT article, units FROM stock WHERE units > 0"))
            counts = dict(
                database.execute("SELECT reserved, count(*) FROM orders GROUP BY reserved")
            )
        return Summary(stock, counts.get(1, 0), counts.get(0, 0))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            # Nobody else writes from here on: what is read now is what is changed.
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.commit()
        finally:
            database.close()


def _take(database: sqlite3.Connection, event: Event) -> None:
    """Put units on the shelf, or take them where there are so many. An order comes once, or this fails."""
    if not event.order_id:
        database.execute(
            "INSERT INTO stock VALUES (?, ?) "
            "ON CONFLICT (article) DO UPDATE SET units = units + excluded.units",
            (event.article, event.units),
        )
        return
    taken = database.execute(
        "UPDATE stock SET units = units - ?1 WHERE article = ?2 AND units >= ?1",
        (event.units, event.article),
    )
    database.execute(
        "INSERT INTO orders VALUES (?, ?, ?, ?)",
        (event.order_id, event.article, event.units, taken.rowcount),
    )
