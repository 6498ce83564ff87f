"""What happens in the shop: orders, and articles that are put on the shelf."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import riverrun
from examples.orders.shelf import Summary

TOPIC = "orders"
PARTITIONS = 6
ARTICLES = [f"article-{number}" for number in range(40)]
# One event in so many puts something on the shelf.
_RESTOCK_EVERY = 10
_RESTOCK_UNITS = 20


@dataclass(frozen=True, slots=True)
class Event:
    """An order of some units of an article, or, where it has no id, units that are put on the shelf."""

    article: str
    units: int
    order_id: str = ""

    @property
    def record(self) -> riverrun.NewRecord:
        """The event as a record; its key keeps everything about an article in order."""
        return riverrun.NewRecord(json.dumps(asdict(self)).encode(), key=self.article.encode())


def event_of(value: bytes) -> Event:
    """Return the event of a record's value."""
    return Event(**json.loads(value))


def made_events(orders: int, dice: random.Random) -> list[Event]:
    """Make up a day: more is ordered than there is."""
    events: list[Event] = []
    for number in range(orders):
        if number % _RESTOCK_EVERY == 0:
            events.append(Event(dice.choice(ARTICLES), _RESTOCK_UNITS))
        events.append(Event(dice.choice(ARTICLES), dice.randint(1, 5), f"order-{number}"))
    return events


def expected(events: Iterable[Event]) -> Summary:
    """Return what one worker that never dies makes of the events."""
    stock: defaultdict[str, int] = defaultdict(int)
    reserved = refused = 0
    for event in events:
        if not event.order_id:
            stock[event.article] += event.units
        elif stock[event.article] >= event.units:
            stock[event.article] -= event.units
            reserved += 1
        else:
            refused += 1
    return Summary({article: units for article, units in stock.items() if units}, reserved, refused)
