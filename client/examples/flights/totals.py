"""Delays by airport, counted from events one by one; nothing here knows where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from examples.flights.events import ARRIVALS, CANCELLATIONS, DEPARTURES


@dataclass(slots=True)
class Airport:
    """What one airport has seen; delays are sums in minutes, early flights count below zero."""

    departures: int = 0
    departure_delay_min: int = 0
    arrivals: int = 0
    arrival_delay_min: int = 0
    cancellations: int = 0

    @property
    def events(self) -> int:
        """How many events there were."""
        return self.departures + self.arrivals + self.cancellations


@dataclass(slots=True)
class Totals:
    """Everything counted so far.

    Attributes:
        airports: by their code.
        events: how many events.
        latest_ms: when the latest of them happened, in ms since 1970; it does not count when totals
            are compared.
    """

    airports: dict[str, Airport] = field(default_factory=dict)
    events: int = 0
    latest_ms: int = field(default=0, compare=False)

    def count(self, topic: str, time_ms: int, value: bytes) -> None:
        """Count one event."""
        flight = json.loads(value)
        code = flight["to"] if topic == ARRIVALS else flight["from"]
        airport = self.airports.setdefault(code, Airport())
        if topic == DEPARTURES:
            airport.departures += 1
            airport.departure_delay_min += flight["delay_min"]
        elif topic == ARRIVALS:
            airport.arrivals += 1
            airport.arrival_delay_min += flight["delay_min"]
        else:
            assert topic == CANCELLATIONS, topic
            airport.cancellations += 1
        self.events += 1
        self.latest_ms = max(self.latest_ms, time_ms)

    def busiest(self, count: int) -> list[tuple[str, Airport]]:
        """Return the airports with the most events, the busiest first."""
        ranked = sorted(self.airports.items(), key=lambda item: (-item[1].events, item[0]))
        return ranked[:count]

    def sum(self) -> Airport:
        """Return all airports as one."""
        total = Airport()
        for airport in self.airports.values():
            total.departures += airport.departures
            total.departure_delay_min += airport.departure_delay_min
            total.arrivals += airport.arrivals
            total.arrival_delay_min += airport.arrival_delay_min
            total.cancellations += airport.cancellations
        return total
