"""Deadlines that are put off and dropped: always the next one of those that count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.groups.deadlines import Deadlines

KEYS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 30)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("due"), st.just(""), st.integers(0, 30)),
        st.tuples(st.just("next"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_they_are_what_a_dict_of_times_says(steps):
    deadlines, model = Deadlines(), {}
    for what, key, at in steps:
        match what:
            case "set":
                deadlines.set(key, at)
                model[key] = at
            case "drop":
                deadlines.drop(key)
                model.pop(key, None)
            case "due":
                due = deadlines.take_due(at)
                assert sorted(due) == sorted(each for each, when in model.items() if when <= at)
                times = [model.pop(each) for each in due]
                assert times == sorted(times)
            case "next":
                assert deadlines.next_ms() == min(model.values(), default=None)
        assert len(deadlines) == len(model)
        assert all(deadlines.get(each) == model.get(each) for each in "abcde")


def test_those_that_are_due_come_in_order():
    deadlines = Deadlines()
    for key, at in (("late", 9), ("first", 1), ("second", 2), ("not yet", 10)):
        deadlines.set(key, at)
    assert deadlines.take_due(9) == ["first", "second", "late"]
    assert deadlines.next_ms() == 10


@pytest.mark.parametrize("how", ["put off", "dropped"])
def test_what_does_not_count_any_more_does_not_stay_in_memory(how):
    deadlines = Deadlines()
    for number in range(50_000):
        deadlines.set(number if how == "dropped" else "same", number)
        if how == "dropped":
            deadlines.drop(number)
    assert len(deadlines._heap) <= 1_001
