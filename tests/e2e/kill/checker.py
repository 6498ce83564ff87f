"""Decides whether a recorded history keeps every promise; pure, and knows nothing of how it was made.

After Jepsen's checker for Kafka (jepsen/tests/kafka.clj), with what it cannot see: every log is read
to its end afterwards, so that records lost at the end show, and committed positions are checked too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.e2e.kill.anomalies import Anomaly, Kind, shown
from tests.e2e.kill.history import Dumped, Event, Failed, Outcome, Place, Returned, Written
from tests.e2e.kill.reader_checks import reader_anomalies

Logs = dict[int, dict[int, bytes]]
"""By partition and offset, as they stand in the end."""


def check(events: Sequence[Event]) -> list[Anomaly]:
    """Return everything that is wrong with a history.

    Raises:
        ValueError: it does not end in a dump of every partition that was written to, so that it
            proves nothing.
    """
    logs = _logs(events)
    written = [event for event in events if isinstance(event, Written)]
    used = {event.partition for event in events if isinstance(event, Written | Returned)}
    undumped = sorted(used - set(logs))
    if undumped or not logs:
        raise ValueError(f"nobody has read all of partitions {undumped or 'any'} in the end")
    return [
        *(Anomaly(Kind.FAILED, f"{e.who}: {e.what}") for e in events if isinstance(e, Failed)),
        *_holes(events),
        *_inconsistent(events, written),
        *_duplicates(logs),
        *_vanished(events, logs),
        *_wrongly_answered(written, logs),
        *_foreign(written, logs),
        *_reordered(written, logs),
        *reader_anomalies(events, {p: max(log, default=-1) + 1 for p, log in logs.items()}),
    ]


def _logs(events: Sequence[Event]) -> Logs:
    """Return what everybody found who read a partition in the end."""
    logs: Logs = {}
    for event in events:
        if isinstance(event, Dumped):
            found = dict(event.records)
            log = logs.setdefault(event.partition, found)
            logs[event.partition] = {o: value for o, value in log.items() if o in found}
    return logs


def _holes(events: Sequence[Event]) -> Iterator[Anomaly]:
    """A dump has every offset from 0, in order; nothing is trimmed or compacted in these runs."""
    for event in events:
        if not isinstance(event, Dumped):
            continue
        for expected, (offset, _) in enumerate(event.records):
            if offset != expected:
                where = f"{event.reader} in partition {event.partition}"
                yield Anomaly(Kind.HOLE, f"{where}: {offset} stands where {expected} should")
                break


def _readings(events: Sequence[Event]) -> Iterator[tuple[str, int, Place]]:
    for event in events:
        if isinstance(event, Returned | Dumped):
            for place in event.records:
                yield event.reader, event.partition, place


def _inconsistent(events: Sequence[Event], written: list[Written]) -> Iterator[Anomaly]:
    values: dict[tuple[int, int], set[bytes]] = {}
    for _, partition, (offset, value) in _readings(events):
        values.setdefault((partition, offset), set()).add(value)
    for record in written:
        if record.outcome is Outcome.ACKED and record.durable and record.offset is not None:
            values.setdefault((record.partition, record.offset), set()).add(record.value)
    for (partition, offset), seen in values.items():
        if len(seen) > 1:
            both = " and ".join(sorted(shown(value) for value in seen))
            yield Anomaly(Kind.INCONSISTENT, f"partition {partition}, offset {offset}: {both}")


def _duplicates(logs: Logs) -> Iterator[Anomaly]:
    places: dict[bytes, list[tuple[int, int]]] = {}
    for partition, log in logs.items():
        for offset, value in log.items():
            places.setdefault(value, []).append((partition, offset))
    for value, found in places.items():
        if len(found) > 1:
            yield Anomaly(Kind.DUPLICATE, f"{shown(value)} at (partition, offset) {found}")


def _vanished(events: Sequence[Event], logs: Logs) -> Iterator[Anomaly]:
    """What a reader has seen was committed, and stays."""
    for reader, partition, (offset, value) in _readings(events):
        if offset not in logs[partition]:
            where = f"partition {partition}, offset {offset}"
            yield Anomaly(Kind.VANISHED, f"{reader} had read {shown(value)} at {where}")


def _wrongly_answered(written: list[Written], logs: Logs) -> Iterator[Anomaly]:
    """Compare every answer with the log."""
    places: dict[tuple[int, bytes], list[int]] = {}
    for partition, log in logs.items():
        for offset, value in log.items():
            places.setdefault((partition, value), []).append(offset)
    for record in written:
        found = places.get((record.partition, record.value), [])
        told = f"{shown(record.value)} of partition {record.partition}"
        if record.outcome is Outcome.REFUSED:
            if found:
                yield Anomaly(Kind.REFUSED_VISIBLE, f"{told} stands at {found}")
        elif record.outcome is Outcome.ACKED:
            gone = not found and record.durable
            elsewhere = bool(found) and record.offset is not None and record.offset not in found
            if gone or elsewhere:
                where = f"acknowledged at {record.offset}, found at {found}"
                yield Anomaly(Kind.LOST, f"{told}: {where}")


def _foreign(written: list[Written], logs: Logs) -> Iterator[Anomaly]:
    sent = {(record.partition, record.value) for record in written}
    for partition, log in logs.items():
        for offset, value in log.items():
            if (partition, value) not in sent:
                where = f"partition {partition}, offset {offset}"
                yield Anomaly(Kind.FOREIGN, f"{where}: {shown(value)}")


def _reordered(written: list[Written], logs: Logs) -> Iterator[Anomaly]:
    sent = {record.value: record for record in written}
    for partition, log in logs.items():
        newest: dict[str, Written] = {}
        for offset in sorted(log):
            record = sent.get(log[offset])
            if record is None:
                continue
            before = newest.setdefault(record.producer, record)
            if record.number < before.number:
                pair = f"{shown(record.value)} stands at {offset}, behind {shown(before.value)}"
                yield Anomaly(Kind.REORDERED, f"partition {partition}: {pair}")
            newest[record.producer] = record
