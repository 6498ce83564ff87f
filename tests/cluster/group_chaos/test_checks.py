"""What is judged of a group's history: each rule lets a good one pass, and finds what breaks it."""

from __future__ import annotations

import dataclasses

import pytest

from tests.cluster.group_chaos.checks import (
    Acknowledged,
    History,
    Look,
    anomalies,
    holds_of,
    longest_silence,
)
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
    Revoking,
    Writer,
    Wrong,
    read,
)


def before(until_s=8.0):
    """A member that has partition 0, works on two records, commits them and gives the partition up."""
    return [
        Joined(1.0, "a", "one:1"),
        Lease(1.0, 7.0),
        Assigned(1.1, 1, [], [0], True),
        Assigned(1.2, 1, [[0, 0, 1]], [], False),
        Processed(2.0, 0, 1, 0, 2, [10, 11]),
        Committing(2.1, 1, [[0, 2]]),
        Committed(2.2, 1, [[0, 0]]),
        Lease(3.0, until_s),
        Revoking(4.0, 2, [0]),
        Released(4.1, [0]),
        Left(5.0),
    ]


def after():
    """The member that gets it then, and works on the rest."""
    return [
        Joined(3.5, "b", "two:2"),
        Lease(3.5, 20.0),
        Assigned(3.6, 2, [], [], True),
        Assigned(4.2, 3, [[0, 2, 3]], [], False),
        Processed(4.3, 0, 3, 2, 3, [12]),
        Committing(4.4, 1, [[0, 3]]),
        Committed(4.5, 1, [[0, 0]]),
        Left(6.0),
    ]


def history(first=None, second=None, **changes):
    good = History(
        [Diary("a", before() if first is None else first), Diary("b", second or after())],
        [Acknowledged(0, 0, 10), Acknowledged(0, 1, 11), Acknowledged(0, 2, 12)],
        [Look(1.0, 1.1, 0, -1), Look(2.3, 2.4, 0, 2), Look(5.0, 5.1, 0, 3)],
        {0: 3},
        {0: 3},
    )
    return dataclasses.replace(good, **changes)


def kinds(judged):
    return {line.split(" ", 1)[0] for line in anomalies(judged)}


def put(events, old, *new):
    """Put events in the place of one."""
    at = events.index(old)
    return [*events[:at], *new, *events[at + 1 :]]


def test_a_good_history_passes():
    assert not anomalies(history())


def test_a_record_that_nobody_worked_on_is_missed():
    unread = [*history().acknowledged, Acknowledged(0, 3, 13), Acknowledged(1, 0, 14)]
    (line,) = anomalies(history(acknowledged=unread))
    assert line == "UNDELIVERED (2) 0@3; 1@0"


def test_a_record_with_another_number_is_found():
    assert kinds(history(acknowledged=[Acknowledged(0, 0, 99)])) == {"ELSEWHERE"}
    other = put(after(), Processed(4.3, 0, 3, 2, 3, [12]), Processed(4.3, 0, 3, 2, 3, [77]))
    assert kinds(history(second=other)) == {"ELSEWHERE"}
    again = [
        *after()[:4],
        Processed(4.25, 0, 3, 2, 3, [13]),
        Assigned(4.27, 3, [[0, 2, 3]], [], False),
        *after()[4:],
    ]
    assert kinds(history(second=again)) == {"DIFFERENT", "ELSEWHERE"}


def test_without_numbers_offsets_are_missed_all_the_same():
    unnumbered = [
        Diary(
            diary.name,
            [e._replace(numbers=[]) if isinstance(e, Processed) else e for e in diary.events],
        )
        for diary in history().diaries
    ]
    good = history(acknowledged=[Acknowledged(0, n, 99) for n in range(3)])
    assert not anomalies(dataclasses.replace(good, diaries=unnumbered))
    more = history(acknowledged=[Acknowledged(0, 3, 13)])
    assert kinds(dataclasses.replace(more, diaries=unnumbered)) == {"UNDELIVERED"}


def test_two_members_with_one_assignment_epoch_are_found():
    same = [
        event._replace(partitions=[[0, 2, 1]])
        if isinstance(event, Assigned) and event.partitions
        else event._replace(assignment_epoch=1)
        if isinstance(event, Processed)
        else event
        for event in after()
    ]
    assert kinds(history(second=same)) == {"SHARED"}


def test_a_partition_that_is_given_while_another_may_have_it_is_found():
    never_released = [each for each in before() if not isinstance(each, Released | Left)]
    (line,) = anomalies(history(first=never_released))
    assert line == "OVERLAP partition 0: a until 8.000, b from 4.200"


def test_a_lease_that_was_over_is_no_overlap():
    silent = [each for each in before(until_s=7.0) if not isinstance(each, Released | Left)]
    silent = [Lease(1.0, 4.1) if isinstance(each, Lease) else each for each in silent]
    assert not anomalies(history(first=silent))


def test_a_member_that_was_killed_has_nothing_from_then_on():
    killed = [each for each in before() if not isinstance(each, Released | Left)]
    good = history()
    dead = Diary("a", killed, died_s=4.15)
    assert not anomalies(dataclasses.replace(good, diaries=[dead, good.diaries[1]]))


def test_work_without_the_partition_is_found():
    late = [*before(), Processed(6.0, 0, 1, 2, 3, [12])]
    assert "OUTSIDE" in kinds(history(first=late))


def test_work_under_the_epoch_of_an_earlier_assignment_is_found():
    wrong = put(after(), Processed(4.3, 0, 3, 2, 3, [12]), Processed(4.3, 0, 2, 2, 3, [12]))
    assert kinds(history(second=wrong)) == {"OUTSIDE"}


def test_a_delivery_that_does_not_go_on_from_the_last_one_is_found():
    jumps = put(before(), before()[4], Processed(2.0, 0, 1, 1, 2, [11]))
    assert {"GAP", "UNDELIVERED"} <= kinds(history(first=jumps))


def test_a_new_stream_begins_where_it_is_told():
    resumed = put(
        before(),
        Committing(2.1, 1, [[0, 2]]),
        Ended(2.01, "cut"),
        Joined(2.02, "a", "two:2"),
        Assigned(2.03, 1, [], [0], True),
        Assigned(2.04, 1, [[0, 0, 1]], [], False),
        Processed(2.05, 0, 1, 0, 2, [10, 11]),
        Committing(2.1, 1, [[0, 2]]),
    )
    assert not anomalies(history(first=resumed))


def test_a_commit_that_goes_back_is_found():
    back = put(after(), Committing(4.4, 1, [[0, 3]]), Committing(4.4, 1, [[0, 1]]))
    assert "BACK" in kinds(history(second=back, looks=[]))


def test_a_look_that_sees_less_than_was_known_is_found():
    assert kinds(history(looks=[Look(2.3, 2.4, 0, 0)])) == {"BACK"}
    assert kinds(history(looks=[Look(5.0, 5.1, 0, -1)])) == {"BACK"}
    # Asked before the commit was answered: either is right.
    assert not anomalies(history(looks=[Look(2.15, 2.4, 0, -1)]))
    assert kinds(history(looks=[Look(5.0, 5.1, 0, 3), Look(5.2, 5.3, 0, 2)])) == {"BACK"}


def test_a_look_that_sees_more_than_anybody_has_worked_on_is_found():
    assert kinds(history(looks=[Look(4.0, 4.1, 0, 3)])) == {"AHEAD"}


def test_a_refused_commit_counts_for_nothing():
    refused = put(before(), Committed(2.2, 1, [[0, 0]]), Committed(2.2, 1, [[0, 77]]))
    assert not anomalies(history(first=refused, looks=[]))


def test_a_commit_of_what_nobody_has_worked_on_is_found():
    early = put(
        after(),
        Processed(4.3, 0, 3, 2, 3, [12]),
        Committing(4.25, 7, [[0, 3]]),
        Committed(4.28, 7, [[0, 0]]),
        Processed(4.3, 0, 3, 2, 3, [12]),
    )
    assert kinds(history(second=early)) == {"AHEAD"}
    beyond = put(after(), Committing(4.4, 1, [[0, 3]]), Committing(4.4, 1, [[0, 4]]))
    assert "AHEAD" in kinds(history(second=beyond, looks=[]))


def test_a_group_that_has_not_come_to_the_end_is_found():
    assert kinds(history(committed={0: 2})) == {"UNFINISHED"}
    assert kinds(history(committed={})) == {"UNFINISHED"}


def test_what_a_member_complains_of_is_told():
    assert kinds(history(first=[*before(), Wrong(5.5, "a delivery of nothing")])) == {"WRONG"}


def test_a_run_in_which_nothing_happened_is_not_a_good_one():
    (nothing, none_taken) = anomalies(History([], []))
    assert nothing.startswith("USELESS")
    assert none_taken.startswith("USELESS")


def test_a_hold_ends_with_what_ends_it_first():
    def held(*events, died_s=None):
        start = [Joined(1.0, "a", "x"), Lease(1.0, 7.0), Assigned(1.2, 1, [[0, 0, 1]], [], True)]
        return [
            (hold.from_s, hold.until_s) for hold in holds_of(Diary("a", [*start, *events], died_s))
        ]

    assert held() == [(1.2, 7.0)]
    assert held(Lost(3.0, [0])) == [(1.2, 3.0)]
    assert held(Lost(9.0, [0])) == [(1.2, 7.0)]
    assert held(Left(2.0)) == [(1.2, 2.0)]
    assert held(died_s=2.5) == [(1.2, 2.5)]
    assert held(Assigned(4.0, 2, [], [], True)) == [(1.2, 4.0)]
    assert held(Assigned(4.0, 2, [], [0], True)) == [(1.2, 7.0)]
    assert held(Assigned(4.0, 2, [[0, 5, 1]], [], True)) == [(1.2, 7.0)]
    assert held(Assigned(4.0, 2, [[0, 5, 2]], [], False)) == [(1.2, 4.0), (4.0, 7.0)]
    assert held(Joined(5.0, "other", "x")) == [(1.2, 5.0)]


def closed(*events):
    """A client, which does not tell of epochs and leases, with what it hands out."""
    return Diary("c", list(events), is_open=False)


def handed_out(offset, at_s=2.0):
    return Processed(at_s, 0, UNTOLD, offset, offset + 1, [10 + offset])


def test_a_client_goes_on_where_it_was_for_as_long_as_it_has_a_partition():
    given = Assigned(1.0, UNTOLD, [[0, UNTOLD, UNTOLD]], [], False)

    def gaps(*events):
        good = history()
        return kinds(dataclasses.replace(good, diaries=[*good.diaries, closed(given, *events)]))

    assert not gaps(handed_out(0), handed_out(1), Released(3.0, [0]), given, handed_out(0))
    assert not gaps(handed_out(1), Lost(3.0, [0]), given, handed_out(0))
    assert gaps(handed_out(0), handed_out(0)) == {"GAP"}
    assert gaps(handed_out(0), handed_out(2)) == {"GAP"}
    assert gaps(handed_out(0), Released(3.0, [0]), handed_out(1)) == {"GAP"}


def test_silence_counts_from_the_beginning_to_the_end():
    both = [Diary("a", before()), Diary("b", after())]
    assert longest_silence(both, 1.0, 9.0) == (pytest.approx(4.7), 0, 4.3)
    assert longest_silence(both, 1.0, 5.0) == (pytest.approx(2.3), 0, 2.0)


def test_a_diary_is_read_as_it_was_written_without_its_last_half_line(tmp_path):
    path = tmp_path / "a.diary"
    writer = Writer(path)
    for event in before():
        writer.note(event)
    writer.close()
    with path.open("ab") as file:
        file.write(b'["Left",')
    assert list(read(path)) == before()
