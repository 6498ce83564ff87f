"""Small calls wait for company only where that pays, and never for long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.pace import AIM_CALLS, WAIT_S_MAX, WINDOW_S, Pace


def fed(calls, every_s, groups=120):
    pace, now_s = Pace(1000.0), 1000.0
    for _ in range(groups):
        now_s += every_s
        pace.closed(calls, now_s)
    return pace, now_s


def wait_s(calls, every_s):
    pace, now_s = fed(calls, every_s)
    return pace.wait_s(now_s)


def test_the_first_call_does_not_wait():
    assert Pace(5.0).wait_s(5.0) == 0


def test_a_thousand_calls_a_second_do_not_wait():
    assert wait_s(1, 0.001) == 0


def test_calls_that_come_faster_than_they_could_be_written_one_by_one_gather():
    assert wait_s(2, 0.001) == WAIT_S_MAX


def test_the_faster_they_come_the_shorter_is_the_wait_for_a_dozen():
    assert wait_s(10, 0.001) == pytest.approx(AIM_CALLS / 10_000, rel=0.05)


def test_after_a_pause_nobody_waits():
    pace, now_s = fed(10, 0.001)
    assert pace.wait_s(now_s + 3 * WINDOW_S) == 0
    pace.closed(1, now_s + 1)
    assert pace.wait_s(now_s + 1) == 0


@pytest.mark.parametrize("calls_per_s", [50, 300, 1000])
def test_calls_at_random_moments_do_not_wait_for_one_another_where_they_are_few(calls_per_s):
    """Found by review: a mean of rates is ruled by pairs that happen to come together."""
    dice = random.Random(1)
    pace, now_s, waited = Pace(0.0), 0.0, 0
    for _ in range(2000):
        now_s += dice.expovariate(calls_per_s)
        waited += pace.wait_s(now_s) > 0
        pace.closed(1, now_s)
    assert waited < 20


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), max_size=50))
def test_no_wait_is_longer_than_the_bound(groups):
    pace, now_s = Pace(0.0), 0.0
    for calls, passed_s in groups:
        now_s += passed_s
        pace.closed(calls, now_s)
        assert 0 <= pace.wait_s(now_s) <= WAIT_S_MAX
