"""The checker finds each anomaly in histories made by hand, and nothing in a good one."""

from __future__ import annotations

import random

import pytest

from tests.e2e.kill.anomalies import Kind, summary
from tests.e2e.kill.checker import check
from tests.e2e.kill.history import (
    Began,
    Committed,
    Committing,
    Dumped,
    Ended,
    Failed,
    Killed,
    Measured,
    Outcome,
    Recorder,
    Returned,
    Written,
)

ACKED, REFUSED, UNKNOWN = Outcome


def good():
    """Two producers, one refusal, a crash, a group that goes on, a reader that sees everything."""
    return [
        Began("tail", 0, 0),
        Written("p", 0, 0, b"p0", ACKED, 0),
        Written("q", 0, 0, b"q0", ACKED, 1),
        Measured(3, 0, 2),
        Written("q", 0, 1, b"q1", REFUSED),
        Began("g.1", 0, 0, "g"),
        Returned("g.1", 0, [(0, b"p0"), (1, b"q0")]),
        Committing("g", 0, 2),
        Committed("g", 0, 2, stored=True),
        Returned("tail", 0, [(0, b"p0"), (1, b"q0")]),
        Killed("under load", {"p": 2}),
        Written("p", 0, 1, b"p1", ACKED, 2),
        Written("q", 0, 2, b"q2", UNKNOWN),
        Written("q", 0, 3, b"q3", UNKNOWN),
        Written("n", 0, 0, b"n0", ACKED, 3, durable=False),
        Began("g.2", 0, 2, "g"),
        Returned("g.2", 0, [(2, b"p1")]),
        Committing("g", 0, 3),
        Committed("g", 0, 3, stored=False),
        Began("g.3", 0, 3, "g"),
        Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
        Written("p", 0, 2, b"p2", ACKED, 4),
        Measured(22, 0, 5),
        Ended("tail", 0),
        Dumped("batches", 0, [(0, b"p0"), (1, b"q0"), (2, b"p1"), (3, b"q2"), (4, b"p2")]),
        Dumped("records", 0, [(0, b"p0"), (1, b"q0"), (2, b"p1"), (3, b"q2"), (4, b"p2")]),
    ]


def with_log(*values):
    """The good history with another log in the end."""
    log = list(enumerate(values))
    return [e._replace(records=log) if isinstance(e, Dumped) else e for e in good()]


def with_event(old, new):
    """The good history with one event in another's place."""
    assert old in good()
    return [new if event == old else event for event in good()]


def kinds(events):
    return {anomaly.kind for anomaly in check(events)}


def test_a_good_history_has_nothing_wrong():
    assert check(good()) == []


BAD = {
    "an acknowledged record at the end of the log is gone": (
        [*with_log(b"p0", b"q0", b"p1", b"q2")],
        {Kind.LOST, Kind.VANISHED, Kind.UNREAD},
    ),
    "an acknowledged record is gone and another has its offset": (
        with_log(b"p0", b"q0", b"q3", b"q2", b"p2"),
        {Kind.LOST, Kind.INCONSISTENT, Kind.REORDERED},
    ),
    "an acknowledged record stands elsewhere": (
        with_event(
            Written("p", 0, 2, b"p2", ACKED, 4),
            Written("p", 0, 2, b"p2", ACKED, 5),
        ),
        {Kind.LOST, Kind.WATERMARK_BACK},
    ),
    "a record acknowledged without an offset is gone": (
        [*good(), Written("p", 0, 3, b"p3", ACKED)],
        {Kind.LOST},
    ),
    "two records were acknowledged at one offset": (
        [*good(), Written("p", 0, 3, b"p3", ACKED, 4)],
        {Kind.LOST, Kind.INCONSISTENT},
    ),
    "a record stands twice": (
        with_log(b"p0", b"q0", b"p1", b"q2", b"p2", b"p2"),
        {Kind.DUPLICATE, Kind.UNREAD},
    ),
    "a record stands in two partitions": (
        [*good(), Dumped("batches", 1, [(0, b"p0")])],
        {Kind.DUPLICATE, Kind.FOREIGN},
    ),
    "two readers saw different values at one offset": (
        with_event(
            Returned("g.2", 0, [(2, b"p1")]),
            Returned("g.2", 0, [(2, b"q3")]),
        ),
        {Kind.INCONSISTENT},
    ),
    "two ways of reading the log differ": (
        [*good()[:-1], Dumped("records", 0, [*enumerate([b"p0", b"q0", b"p1", b"q3", b"p2"])])],
        {Kind.INCONSISTENT},
    ),
    "one way of reading the log finds less": (
        [*good()[:-1], Dumped("records", 0, [*enumerate([b"p0", b"q0", b"p1", b"q2"])])],
        {Kind.LOST, Kind.VANISHED, Kind.UNREAD},
    ),
    "a refused record can be read": (
        with_log(b"p0", b"q0", b"p1", b"q2", b"p2", b"q1"),
        {Kind.REFUSED_VISIBLE, Kind.UNREAD, Kind.REORDERED},
    ),
    "something that nobody sent can be read": (
        with_log(b"p0", b"q0", b"p1", b"q2", b"p2", b"\0\0"),
        {Kind.FOREIGN, Kind.UNREAD},
    ),
    "the log skips an offset": (
        [
            *good()[:-2],
            Dumped("batches", 0, [(0, b"p0"), (1, b"q0"), (2, b"p1"), (4, b"p2")]),
        ],
        {Kind.HOLE, Kind.VANISHED},
    ),
    "a producer's records stand in another order": (
        with_log(b"p0", b"q0", b"p1", b"q3", b"p2", b"q2"),
        {Kind.REORDERED, Kind.INCONSISTENT, Kind.UNREAD},
    ),
    "a reader misses a record": (
        with_event(
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
            Returned("tail", 0, [(2, b"p1"), (4, b"p2")]),
        ),
        {Kind.GAP},
    ),
    "a reader misses records between two deliveries": (
        with_event(
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
            Returned("tail", 0, [(3, b"q2"), (4, b"p2")]),
        ),
        {Kind.GAP},
    ),
    "a reader goes back": (
        with_event(
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
            Returned("tail", 0, [(1, b"q0"), (2, b"p1"), (3, b"q2"), (4, b"p2")]),
        ),
        {Kind.REPEATED},
    ),
    "a reader is never given the end": (
        with_event(
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
            Returned("tail", 0, [(2, b"p1"), (3, b"q2")]),
        ),
        {Kind.UNREAD},
    ),
    "a reader is given what is not in the log": (
        with_event(
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2")]),
            Returned("tail", 0, [(2, b"p1"), (3, b"q2"), (4, b"p2"), (5, b"q3")]),
        ),
        {Kind.VANISHED, Kind.UNREAD, Kind.WATERMARK_BACK},
    ),
    "a group reads again what it has committed": (
        with_event(Began("g.2", 0, 2, "g"), Began("g.2", 0, 0, "g")),
        {Kind.COMMIT_LOST, Kind.GAP},
    ),
    "a group skips what it has not committed": (
        with_event(Began("g.2", 0, 2, "g"), Began("g.2", 0, 3, "g")),
        {Kind.COMMIT_AHEAD, Kind.REPEATED},
    ),
    "a group begins elsewhere although it has committed nothing": (
        with_event(Began("g.1", 0, 0, "g"), Began("g.1", 0, 1, "g")),
        {Kind.COMMIT_AHEAD, Kind.REPEATED},
    ),
    "a commit of unknown outcome counted and then did not": (
        [*good(), Began("g.4", 0, 2, "g")],
        {Kind.COMMIT_LOST},
    ),
    "a high watermark is below what was acknowledged": (
        with_event(Measured(22, 0, 5), Measured(22, 0, 4)),
        {Kind.WATERMARK_BACK},
    ),
    "a high watermark is below an earlier one": (
        [*good(), Measured(26, 0, 6), Measured(27, 0, 5)],
        {Kind.WATERMARK_BACK},
    ),
    "somebody was told what must not happen": (
        [*good(), Failed("p", "OUT_OF_ORDER_SEQUENCE")],
        {Kind.FAILED},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_the_checker_finds_that(case):
    events, expected = BAD[case]
    assert kinds(events) == expected


def test_every_kind_of_anomaly_is_found_somewhere():
    assert set().union(*(expected for _, expected in BAD.values())) == set(Kind)


GOOD = {
    "an acknowledged record may vanish where durability was not asked for": good(),
    "it may also stay": [
        e._replace(records=[*e.records, (5, b"n0")]) if isinstance(e, Dumped) else e
        for e in [*good()[:-3], *good()[-2:]]
        if e != Written("n", 0, 0, b"n0", ACKED, 3, durable=False)
    ]
    + [Written("n", 0, 0, b"n0", ACKED, 5, durable=False)],
    "a record of unknown outcome may be there or not": with_event(
        Written("q", 0, 2, b"q2", UNKNOWN), Written("q", 0, 2, b"q2", ACKED, 3)
    ),
    "a watermark that was asked for before an acknowledgement may be below it": with_event(
        Measured(22, 0, 5), Measured(10, 0, 2)
    ),
    "a commit of unknown outcome may count": [
        *good()[:19],
        *good()[20:],
        Began("g.3", 0, 3, "g"),
        Committing("g", 0, 5),
        Committed("g", 0, 5, stored=False),
        Began("g.4", 0, 5, "g"),
    ],
    "or not": [
        *good(),
        Committing("g", 0, 5),
        Committed("g", 0, 5, stored=False),
        Began("g.4", 0, 3, "g"),
    ],
}


@pytest.mark.parametrize("case", GOOD)
def test_the_checker_accepts_that(case):
    assert check(GOOD[case]) == []


@pytest.mark.parametrize("events", [good()[:-2], []], ids=["no dump", "nothing"])
def test_a_history_that_proves_nothing_is_refused(events):
    with pytest.raises(ValueError, match="read all"):
        check(events)


@pytest.mark.parametrize("seed", range(20))
def test_a_record_taken_from_anywhere_in_the_log_is_missed(seed):
    rng = random.Random(seed)
    log = [b"%d" % n for n in range(100)]
    sent = [Written("p", 0, n, value, ACKED, n) for n, value in enumerate(log)]
    del log[rng.randrange(100)]
    assert Kind.LOST in kinds([*sent, Dumped("batches", 0, list(enumerate(log)))])


def test_the_summary_names_each_kind_with_a_few_witnesses():
    lines = list(summary(check(with_log(b"p0", b"q0", b"p1", b"q2")), each=1))
    assert lines[0].startswith("VANISHED (1): a record that was read")
    assert "tail had read b'p2' at partition 0, offset 4" in lines[1]
    assert len(lines) == 6


def test_a_recorder_counts_what_is_not_answered():
    recorder = Recorder()
    assert [recorder.sending("p", 0), recorder.sending("p", 0), recorder.sending("p", 1)] == [
        0,
        1,
        0,
    ]
    recorder.written(Written("p", 0, 0, b"x", ACKED, 0))
    recorder.returned("tail", 0, [(0, b"".join([b"x"]))])
    assert recorder.unanswered == {"p": 2}
    assert recorder.events == [Written("p", 0, 0, b"x", ACKED, 0), Returned("tail", 0, [(0, b"x")])]
