"""What readers, groups and watermarks promise, checked over a history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.e2e.kill.anomalies import Anomaly, Kind, shown
from tests.e2e.kill.history import (
    Began,
    Committed,
    Committing,
    Ended,
    Event,
    Measured,
    Outcome,
    Returned,
    Written,
)


def reader_anomalies(events: Sequence[Event], ends: Mapping[int, int]) -> Iterator[Anomaly]:
    """Check every reader from each beginning on, each group's resumptions, and the watermarks.

    Args:
        events: the history.
        ends: behind the last record of each partition, when all was over.
    """
    yield from _interrupted(events, ends)
    yield from _wrongly_resumed(events)
    yield from _watermarks(events)


def _interrupted(events: Sequence[Event], ends: Mapping[int, int]) -> Iterator[Anomaly]:
    """Within one life of a reader each record follows the one before, from where it began."""
    positions: dict[tuple[str, int], int] = {}
    for event in events:
        match event:
            case Began():
                positions[event.reader, event.partition] = event.offset
            case Returned():
                position = positions.get((event.reader, event.partition), 0)
                for offset, value in event.records:
                    if offset != position:
                        kind = Kind.GAP if offset > position else Kind.REPEATED
                        what = f"given {offset} ({shown(value)}), expected {position}"
                        yield Anomaly(kind, f"{event.reader}, partition {event.partition}: {what}")
                    position = offset + 1
                positions[event.reader, event.partition] = position
            case Ended():
                position = positions.get((event.reader, event.partition), 0)
                end = ends.get(event.partition, 0)
                if position != end:
                    what = f"ended at {position}, the log at {end}"
                    yield Anomaly(
                        Kind.UNREAD, f"{event.reader}, partition {event.partition}: {what}"
                    )
            case _:
                pass


def _wrongly_resumed(events: Sequence[Event]) -> Iterator[Anomaly]:
    """A group goes on at its newest stored commit, or at a later one of unknown outcome.

    Commits of a group to one partition follow each other here, so an unknown one is settled by what
    comes after it: by the position at which somebody begins, or by the next stored commit.
    """
    possible: dict[tuple[str, int], list[int]] = {}
    for event in events:
        match event:
            case Committing():
                possible.setdefault((event.group, event.partition), [0]).append(event.offset)
            case Committed(stored=True):
                possible[event.group, event.partition] = [event.offset]
            case Began(group=str()):
                at = (event.group, event.partition)
                known = possible.get(at, [0])
                if event.offset in known:
                    possible[at] = [event.offset]
                else:
                    back = event.offset < known[0]
                    kind = Kind.COMMIT_LOST if back else Kind.COMMIT_AHEAD
                    what = f"began at {event.offset}, may have committed one of {known}"
                    yield Anomaly(kind, f"{event.group}, partition {event.partition}: {what}")
            case _:
                pass


def _watermarks(events: Sequence[Event]) -> Iterator[Anomaly]:
    """A high watermark covers all that was known to be committed when it was asked for."""
    floors: dict[int, list[tuple[int, int]]] = {}
    for index, event in enumerate(events):
        match event:
            case Measured():
                # The floor as it was when the question was asked: answers overtake each other.
                floor = next(
                    (
                        f
                        for at, f in reversed(floors.get(event.partition, []))
                        if at < event.asked_at
                    ),
                    0,
                )
                if event.high_watermark < floor:
                    what = f"{event.high_watermark} although {floor} was committed before"
                    yield Anomaly(Kind.WATERMARK_BACK, f"partition {event.partition}: {what}")
                _raise(floors, event.partition, index, event.high_watermark)
            case Returned() if event.records:
                _raise(floors, event.partition, index, event.records[-1][0] + 1)
            case Written(outcome=Outcome.ACKED, durable=True, offset=int()):
                _raise(floors, event.partition, index, event.offset + 1)
            case _:
                pass


def _raise(
    floors: dict[int, list[tuple[int, int]]], partition: int, index: int, floor: int
) -> None:
    history = floors.setdefault(partition, [])
    if not history or floor > history[-1][1]:
        history.append((index, floor))
