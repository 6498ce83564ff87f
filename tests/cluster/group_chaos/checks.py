"""What the diaries of all members and the writer's book must show; nothing here knows how they came about."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tests.cluster.group_chaos.diary import (
    UNTOLD,
    Assigned,
    Committed,
    Committing,
    Diary,
    Ended,
    Joined,
    Lease,
    Left,
    Lost,
    Processed,
    Released,
    Wrong,
)

_SHOWN = 5


class Acknowledged(NamedTuple):
    """A record that the writer was told to be stored."""

    partition: int
    offset: int
    number: int


class Look(NamedTuple):
    """What somebody who asked was told of how far the group has come in a partition; -1 is nothing."""

    asked_s: float
    told_s: float
    partition: int
    offset: int


class Hold(NamedTuple):
    """For how long a member had a partition, as it could know itself."""

    partition: int
    from_s: float
    until_s: float
    member: str
    assignment_epoch: int


class Commit(NamedTuple):
    """A commit of one partition that was taken."""

    sent_s: float
    told_s: float
    partition: int
    offset: int
    who: str


@dataclass(frozen=True)
class History:
    """Everything that was written down in one run.

    Attributes:
        diaries: one for each process of a member.
        acknowledged: what the writer was told to be stored.
        looks: what was told of committed offsets meanwhile, in the order of asking.
        ends: of each partition's log, when all was over.
        committed: what the group had committed when all was over.
    """

    diaries: Sequence[Diary]
    acknowledged: Sequence[Acknowledged]
    looks: Sequence[Look] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    committed: Mapping[int, int] = field(default_factory=dict)


def anomalies(history: History) -> list[str]:
    """Return what is wrong with a history; nothing where nothing is."""
    open_ones = [diary for diary in history.diaries if diary.is_open]
    holds = [hold for diary in open_ones for hold in holds_of(diary)]
    commits = [commit for diary in open_ones for commit in _taken(diary)]
    return [
        *_complaints(history.diaries),
        *_undelivered(history),
        *_shared_epochs(open_ones),
        *_overlaps(holds),
        *_outside(open_ones),
        *_runs(history.diaries),
        *_backwards(commits, history.looks),
        *_ahead(history, commits),
        *_unfinished(history),
        *_useless(history, commits),
    ]


def holds_of(diary: Diary) -> list[Hold]:
    """Return the times for which a process had partitions: never longer than its lease, or than it lived."""
    holds: list[Hold] = []
    having: dict[int, tuple[float, int]] = {}
    lease_s, member = 0.0, ""

    def end(partitions: Iterable[int], at_s: float) -> None:
        for partition in partitions:
            if partition in having:
                from_s, epoch = having.pop(partition)
                until_s = min(at_s, max(lease_s, from_s))
                holds.append(Hold(partition, from_s, until_s, member, epoch))

    for event in diary.events:
        match event:
            case Joined():
                if event.member != member:
                    end(list(having), event.at_s)
                member = event.member
            case Lease():
                lease_s = max(lease_s, event.until_s)
            case Assigned():
                given = {partition: epoch for partition, _, epoch in event.partitions}
                if event.first:
                    end(having.keys() - given.keys() - set(event.coming), event.at_s)
                end([p for p, e in given.items() if p in having and having[p][1] != e], event.at_s)
                for partition, epoch in given.items():
                    having.setdefault(partition, (event.at_s, epoch))
            case Released() | Lost():
                end(event.partitions, event.at_s)
            case Left():
                end(list(having), event.at_s)
    end(list(having), float("inf") if diary.died_s is None else diary.died_s)
    return holds


def _complaints(diaries: Sequence[Diary]) -> Iterator[str]:
    for diary in diaries:
        for event in diary.events:
            if isinstance(event, Wrong):
                yield f"WRONG {diary.name} at {event.at_s:.3f}: {event.what}"


def _undelivered(history: History) -> Iterator[str]:
    """Each acknowledged record was worked on at least once, at its offset."""
    seen: dict[int, dict[int, int]] = defaultdict(dict)
    delivered: dict[int, set[int]] = defaultdict(set)
    for diary in history.diaries:
        for event in diary.events:
            if isinstance(event, Processed):
                delivered[event.partition].update(range(event.first, event.next))
                for offset, number in event.records():
                    known = seen[event.partition].setdefault(offset, number)
                    if known != number:
                        yield (
                            f"DIFFERENT {event.partition}@{offset} is record {known} for one member "
                            f"and record {number} for {diary.name}"
                        )
    missing = [a for a in history.acknowledged if a.offset not in delivered[a.partition]]
    yield from _some("UNDELIVERED", [f"{a.partition}@{a.offset}" for a in missing])
    other = [
        a for a in history.acknowledged if seen[a.partition].get(a.offset, a.number) != a.number
    ]
    yield from _some("ELSEWHERE", [f"{a.partition}@{a.offset}" for a in other])


def _shared_epochs(diaries: Sequence[Diary]) -> Iterator[str]:
    """In one assignment epoch a partition is worked on by one member."""
    who: dict[tuple[int, int], str] = {}
    for diary in diaries:
        member = ""
        for event in diary.events:
            if isinstance(event, Joined):
                member = event.member
            elif isinstance(event, Processed):
                key = (event.partition, event.assignment_epoch)
                other = who.setdefault(key, member)
                if other != member:
                    yield (
                        f"SHARED partition {event.partition} in epoch {event.assignment_epoch} by "
                        f"{other} and {member}"
                    )
                    who[key] = member


def _overlaps(holds: Sequence[Hold]) -> Iterator[str]:
    """Nobody has a partition while another member may still have it."""
    by_partition: dict[int, list[Hold]] = defaultdict(list)
    for hold in holds:
        if hold.until_s > hold.from_s:
            by_partition[hold.partition].append(hold)
    for partition, those in sorted(by_partition.items()):
        last: Hold | None = None
        for hold in sorted(those, key=lambda each: each.from_s):
            if last is not None and hold.member != last.member and hold.from_s < last.until_s:
                yield (
                    f"OVERLAP partition {partition}: {last.member} until {last.until_s:.3f}, "
                    f"{hold.member} from {hold.from_s:.3f}"
                )
            if last is None or hold.until_s > last.until_s:
                last = hold


def _outside(diaries: Sequence[Diary]) -> Iterator[str]:
    """Nothing is worked on by somebody who does not have its partition, in the epoch of which it says so."""
    for diary in diaries:
        held: dict[tuple[int, int], list[Hold]] = defaultdict(list)
        for hold in holds_of(diary):
            held[hold.partition, hold.assignment_epoch].append(hold)
        bad = [
            f"{event.partition}@{event.first} by {diary.name} at {event.at_s:.3f}"
            for event in diary.events
            if isinstance(event, Processed)
            and not any(
                hold.from_s <= event.at_s <= hold.until_s
                for hold in held[event.partition, event.assignment_epoch]
            )
        ]
        yield from _some("OUTSIDE", bad)


def _runs(diaries: Sequence[Diary]) -> Iterator[str]:
    """Each delivery of a partition goes on where the last one ended, or where it was said to begin.

    A new stream of a stub begins where it is told; a client goes on where it was.
    """
    for diary in diaries:
        expected: dict[int, int] = {}
        gaps: list[str] = []
        for event in diary.events:
            match event:
                case Assigned():
                    expected |= {partition: offset for partition, offset, _ in event.partitions}
                case Processed():
                    at = expected.get(event.partition)
                    if at not in (event.first, UNTOLD):
                        gaps.append(f"{event.partition}@{event.first}, not {at}, for {diary.name}")
                    expected[event.partition] = event.next
                case Released() | Lost():
                    for partition in event.partitions:
                        expected.pop(partition, None)
                case Ended():
                    expected.clear()
        yield from _some("GAP", gaps)


def _taken(diary: Diary) -> Iterator[Commit]:
    """Yield the commits of a process that were taken, by partition."""
    sent: dict[int, Committing] = {}
    for event in diary.events:
        if isinstance(event, Committing):
            sent[event.commit] = event
        elif isinstance(event, Committed):
            begun = sent.pop(event.commit)
            refused = {partition for partition, reason in event.results if reason}
            for partition, offset in begun.offsets:
                if partition not in refused:
                    yield Commit(begun.at_s, event.at_s, partition, offset, diary.name)


def _backwards(commits: Sequence[Commit], looks: Sequence[Look]) -> Iterator[str]:
    """What was committed, or told to be, is never followed by less."""
    known = [(c.sent_s, c.told_s, c.partition, c.offset, f"a commit of {c.who}") for c in commits]
    known += [(look.asked_s, look.told_s, look.partition, look.offset, "a look") for look in looks]
    by_partition: dict[int, list[tuple[float, float, int, str]]] = defaultdict(list)
    for begun_s, told_s, partition, offset, what in known:
        by_partition[partition].append((begun_s, told_s, offset, what))
    for partition, facts in sorted(by_partition.items()):
        told = sorted((told_s, offset, what) for _, told_s, offset, what in facts)
        # The most that had been told by then, in step with the times in `told`.
        most: list[tuple[int, str]] = []
        for _, offset, what in told:
            most.append(max(most[-1], (offset, what)) if most else (offset, what))
        times = [told_s for told_s, _, _ in told]
        back = []
        for begun_s, _, offset, what in sorted(facts):
            before = bisect_right(times, begun_s) - 1
            # At the very moment nobody can say which was first.
            while before >= 0 and times[before] == begun_s:
                before -= 1
            if before >= 0 and most[before][0] > offset:
                back.append(
                    f"partition {partition}: {what} has {offset} at {begun_s:.3f}, after "
                    f"{most[before][1]} with {most[before][0]}"
                )
        yield from _some("BACK", back)


def _ahead(history: History, commits: Sequence[Commit]) -> Iterator[str]:
    """What is committed had been worked on before the commit was sent, or before somebody saw it."""
    seen = [
        Commit(look.told_s, look.told_s, look.partition, look.offset, "a look")
        for look in history.looks
        if look.offset > 0
    ]
    when: dict[int, dict[int, float]] = defaultdict(dict)
    for diary in history.diaries:
        for event in diary.events:
            if isinstance(event, Processed):
                times = when[event.partition]
                for offset in range(event.first, event.next):
                    times[offset] = min(times.get(offset, event.at_s), event.at_s)
    # The time by which everything below an offset had been worked on.
    below: dict[int, list[float]] = {}
    for partition, times in when.items():
        latest, line = 0.0, [0.0]
        for offset in range(max(times) + 1):
            latest = max(latest, times.get(offset, float("inf")))
            line.append(latest)
        below[partition] = line
    yield from _some(
        "AHEAD",
        [
            f"{c.partition}@{c.offset} by {c.who} at {c.sent_s:.3f}"
            for c in (*commits, *seen)
            if c.offset >= len(below.get(c.partition, [0.0]))
            or below.get(c.partition, [0.0])[c.offset] > c.sent_s
        ],
    )


def _unfinished(history: History) -> Iterator[str]:
    """In the end the group has come to the end of each log."""
    for partition, end in sorted(history.ends.items()):
        got = history.committed.get(partition, 0)
        if got != end:
            yield f"UNFINISHED partition {partition}: committed {got}, its log ends at {end}"


def _useless(history: History, commits: Sequence[Commit]) -> Iterator[str]:
    """A run in which nothing happened shows nothing."""
    if not history.acknowledged:
        yield "USELESS nothing was acknowledged to the writer"
    if not commits:
        yield "USELESS no commit was taken"


def _some(kind: str, found: Sequence[str]) -> Iterator[str]:
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield f"{kind} ({len(found)}) {'; '.join(found[:_SHOWN])}{more}"


class Silence(NamedTuple):
    """A time in which nothing of a partition was worked on."""

    seconds: float
    partition: int
    from_s: float


def longest_silence(diaries: Sequence[Diary], begin_s: float, end_s: float) -> Silence:
    """Return for how long at most nothing of a partition was worked on between two moments."""
    times: dict[int, list[float]] = defaultdict(list)
    for diary in diaries:
        for event in diary.events:
            if isinstance(event, Processed) and begin_s <= event.at_s <= end_s:
                times[event.partition].append(event.at_s)
    return max(
        Silence(after - before, partition, before)
        for partition, each in times.items()
        for before, after in pairwise([begin_s, *sorted(each), end_s])
    )
