"""Shows totals while they grow: a table that stays in place on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from examples.flights.totals import Airport, Totals

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_AIRPORTS = 8
_TABLE_EVERY_S = 0.1
_LINE_EVERY_S = 1.0


class Board:
    """A view of totals; use it as a context manager, and call `show` as often as you like.

    Args:
        totals: what to show.
        events: how many there will be.
    """

    def __init__(self, totals: Totals, events: int) -> None:
        self._totals = totals
        self._events = events
        self._live: Live | None = None
        self._shown_at = -_LINE_EVERY_S

    def __enter__(self) -> Board:
        """Begin to show."""
        if sys.stdout.isatty():
            from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

            self._live = Live(self._table(), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show the last state and leave it standing."""
        self.show(last=True)
        if self._live is not None:
            self._live.stop()

    def show(self, *, last: bool = False) -> None:
        """Show how things stand, unless that was done just now."""
        now_s = time.monotonic()
        every_s = _TABLE_EVERY_S if self._live is not None else _LINE_EVERY_S
        if not last and now_s - self._shown_at < every_s:
            return
        self._shown_at = now_s
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            self.say(f"{self._headline()}: {_line(self._totals.sum())}")

    def say(self, text: str) -> None:
        """Print a line, above the table where there is one."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _headline(self) -> str:
        day = datetime.fromtimestamp(self._totals.latest_ms / 1000, UTC).date()
        shown = str(day) if self._totals.events else "no event yet"
        return f"{shown}, {self._totals.events:,} of {self._events:,} events"

    def _table(self) -> Table:
        from rich.table import Table  # noqa: PLC0415 - only a terminal needs it

        table = Table(title=self._headline(), title_justify="left")
        table.add_column("airport")
        for name in ("departures", "mean delay", "arrivals", "mean delay", "cancelled"):
            table.add_column(name, justify="right")
        for code, airport in self._totals.busiest(_AIRPORTS):
            table.add_row(code, *_cells(airport))
        table.add_section()
        table.add_row("all", *_cells(self._totals.sum()))
        return table


def _cells(airport: Airport) -> tuple[str, ...]:
    return (
        f"{airport.departures:,}",
        _mean(airport.departure_delay_min, airport.departures),
        f"{airport.arrivals:,}",
        _mean(airport.arrival_delay_min, airport.arrivals),
        f"{airport.cancellations:,}",
    )


def _line(airport: Airport) -> str:
    departures, departure_delay, arrivals, arrival_delay, cancellations = _cells(airport)
    return (
        f"{departures} departures ({departure_delay} late), {arrivals} arrivals "
        f"({arrival_delay} late), {cancellations} cancelled"
    )


def _mean(minutes: int, flights: int) -> str:
    return f"{minutes / flights:.1f} min" if flights else "-"
