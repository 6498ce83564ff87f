"""A call's search for its coordinator: tried again only where that helps and does no harm."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import OffsetsUnreadable
from riverrun_server.core.groups.search import MAX_PAUSE_S, CoordinatorSearch, InDoubt

HERE, THERE, LATER = (1, 1, True), (2, 1, False), (3, 2, False)
MOVED = Refusal(Reason.NOT_LEADER, "it moved")
DOUBT = InDoubt(Reason.REQUEST_TIMED_OUT, "the stream ended")
UNKNOWN = Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "who knows")


def search(deadline=10.0, *, changes=True):
    return CoordinatorSearch("g", deadline, changes=changes)


def told(attempt):
    """Return the refusal that the caller is told by an attempt."""
    with pytest.raises(Refusal) as caught:
        attempt()
    return caught.value


def test_whoever_leads_is_asked_at_once():
    assert search().pause_s(THERE, 0.0) == 0.0


def test_where_nobody_leads_it_waits_for_news_and_then_says_so():
    one = search()
    assert one.pause_s(None, 4.0) == 6.0
    assert one.pause_s(THERE, 5.0) == 0.0
    refusal = told(lambda: search().pause_s(None, 10.0))
    assert refusal.reason is Reason.COORDINATOR_LOADING
    assert refusal.meaning.definite


def test_who_has_moved_is_asked_again_after_a_pause_that_grows_and_another_one_at_once():
    one, now, pauses = search(), 0.0, []
    for _ in range(10):
        one.asked(THERE)
        one.refused(MOVED, now, alone=False)
        pauses.append(one.pause_s(THERE, now))
        assert one.pause_s(LATER, now) == 0.0
        now += pauses[-1]
        assert one.pause_s(THERE, now) == 0.0
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1] == MAX_PAUSE_S


def test_news_end_a_pause():
    one = search()
    one.asked(THERE)
    one.refused(MOVED, 0.0, alone=False)
    assert one.pause_s(THERE, 0.0) > 0.0
    one.hurry()
    assert one.pause_s(THERE, 0.0) == 0.0


def test_a_commit_that_is_in_doubt_with_its_coordinator_is_asked_again_of_another_leadership_only():
    one = search()
    one.asked(THERE)
    one.refused(UNKNOWN, 0.0, alone=False)
    one.hurry()
    assert one.pause_s(THERE, 5.0) == 5.0
    assert one.needs_other(THERE)
    assert not one.needs_other(LATER)
    assert one.pause_s(LATER, 5.0) == 0.0
    one.asked(LATER)
    one.refused(MOVED, 5.0, alone=False)
    assert not one.needs_other(LATER)


def test_a_commit_whose_stream_ended_is_asked_again_of_the_same_one():
    one = search()
    one.asked(THERE)
    one.refused(DOUBT, 0.0, alone=False)
    assert one.pause_s(THERE, MAX_PAUSE_S) == 0.0


def test_a_question_is_asked_again_whatever_became_of_it():
    one = search(changes=False)
    for refusal in (UNKNOWN, DOUBT, MOVED):
        one.asked(THERE)
        one.refused(refusal, 0.0, alone=False)
        assert 0.0 < one.pause_s(THERE, 0.0) <= MAX_PAUSE_S
    assert told(lambda: one.pause_s(None, 10.0)).meaning.definite


def test_once_in_doubt_nothing_makes_the_outcome_definite_again():
    one = search()
    one.asked(THERE)
    one.refused(DOUBT, 0.0, alone=False)
    one.asked(THERE)
    full = Refusal(Reason.LIMIT_EXCEEDED, "too much")
    assert told(lambda: one.refused(full, 1.0, alone=False)) is DOUBT
    assert told(lambda: one.refused(MOVED, 10.0, alone=False)) is DOUBT


def test_what_is_wrong_with_the_call_itself_is_told_at_once():
    full = Refusal(Reason.LIMIT_EXCEEDED, "too much")
    one = search()
    one.asked(THERE)
    assert told(lambda: one.refused(full, 0.0, alone=False)) is full


def test_what_only_an_election_can_mend_is_waited_for_only_where_there_can_be_one():
    trouble = OffsetsUnreadable(Reason.COORDINATOR_LOADING, "damaged")
    for refusal in (trouble, Refusal(Reason.PARTITION_OFFLINE, "damaged")):
        one = search()
        one.asked(HERE)
        assert (
            told(lambda one=one, refusal=refusal: one.refused(refusal, 0.0, alone=True)) is refusal
        )
        one.refused(refusal, 0.0, alone=False)


REFUSALS = st.sampled_from(
    [MOVED, DOUBT, UNKNOWN]
    + [
        Refusal(reason, reason.name)
        for reason in Reason
        if reason not in (Reason.NOT_LEADER, Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
    ]
)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 3.0), REFUSALS, st.sampled_from([None, HERE, THERE, LATER])),
        max_size=30,
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_search_ends_in_time_and_says_whether_the_outcome_is_known(steps, changes, alone):
    one, now, in_doubt, asked, end = search(changes=changes), 0.0, False, None, None
    try:
        for passed_s, refusal, leadership in steps:
            now += passed_s
            pause_s = one.pause_s(leadership, now)
            assert 0.0 <= pause_s <= max(0.0, 10.0 - now)
            if pause_s > 0.0:
                continue
            assert leadership is not None
            assert not one.needs_other(leadership)
            one.asked(leadership)
            asked = leadership
            in_doubt |= changes and not refusal.meaning.definite
            one.refused(refusal, now, alone=alone)
            assert now < 10.0
    except Refusal as refusal:
        end = refusal
    if end is not None:
        assert end.meaning.definite is not in_doubt
        assert asked is not None or end.reason is Reason.COORDINATOR_LOADING
