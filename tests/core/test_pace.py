"""Small calls wait for company only where that pays, and never for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.pace import AIM_CALLS, WAIT_S_MAX, Pace


def fed(calls, every_s, groups=60):
    pace, now_s = Pace(), 1000.0
    for _ in range(groups):
        now_s += every_s
        pace.closed(calls, now_s)
    return pace, now_s


def test_the_first_call_does_not_wait():
    assert Pace().wait_s == 0


def test_a_thousand_calls_a_second_do_not_wait():
    assert fed(1, 0.001)[0].wait_s == 0


def test_calls_that_come_faster_than_they_could_be_written_one_by_one_gather():
    assert fed(2, 0.001)[0].wait_s == WAIT_S_MAX


def test_the_faster_they_come_the_shorter_is_the_wait_for_a_dozen():
    pace, _ = fed(10, 0.001)
    assert 0.001 < pace.wait_s < 0.0014
    assert round(pace.wait_s * 10_000) == AIM_CALLS


def test_after_a_pause_nobody_waits():
    pace, now_s = fed(10, 0.001)
    pace.closed(1, now_s + 1)
    assert pace.wait_s == 0


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), max_size=50))
def test_no_wait_is_longer_than_the_bound(groups):
    pace, now_s = Pace(), 0.0
    for calls, passed_s in groups:
        now_s += passed_s
        pace.closed(calls, now_s)
        assert 0 <= pace.wait_s <= WAIT_S_MAX
