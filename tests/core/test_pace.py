"""Small calls wait for company only where the loop is the bottleneck, and never for long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.pace import (
    AIM_CALLS_MAX,
    AIM_SHARE,
    BUSY,
    IDLE,
    WAIT_S_MAX,
    WINDOW_S,
    Pace,
)


class Loop:
    """A loop whose calls come so often, so many at a time, and take so much of its time."""

    def __init__(self):
        self.now_s, self.worked_s = 1000.0, 5.0
        self.pace = Pace(self.now_s, self.worked_s)

    def serve(self, calls, every_s, busy, groups=200):
        """Serve groups one after another; return how long the next one would wait."""
        for _ in range(groups):
            for _ in range(calls):
                self.pace.came()
            self.now_s += every_s
            self.worked_s += every_s * busy
            self.pace.closed(self.now_s, self.worked_s)
            for _ in range(calls):
                self.pace.left()
        return self.wait_s

    @property
    def wait_s(self):
        return self.pace.wait_s(self.now_s)


def test_the_first_call_does_not_wait():
    assert Loop().wait_s == 0


def test_nobody_waits_while_the_loop_has_time_to_spare_however_many_come():
    assert Loop().serve(5, 0.001, BUSY - 0.05) == 0


def test_calls_gather_where_the_loop_is_busy_until_most_of_them_are_there():
    loop = Loop()
    assert loop.serve(20, 0.005, 0.9) == pytest.approx(20 * AIM_SHARE / 4_000, rel=0.05)
    assert loop.pace.aim == 20 * AIM_SHARE


def test_calls_that_are_here_count_as_much_as_those_of_one_group():
    loop = Loop()
    for _ in range(10):
        loop.pace.came()
    loop.serve(10, 0.005, 0.9)
    assert loop.pace.aim == 20 * AIM_SHARE


@pytest.mark.parametrize("calls", [1, 2])
def test_who_is_alone_on_a_busy_loop_does_not_wait(calls):
    """Found by measuring four calls at a time: they waited for a dozen, who were not there."""
    assert Loop().serve(calls, 0.001, 0.9) == 0


def test_a_group_is_never_to_be_larger_than_is_of_use():
    loop = Loop()
    loop.serve(500, 0.01, 0.9)
    assert loop.pace.aim == AIM_CALLS_MAX


def test_that_joined_calls_take_less_time_does_not_end_the_joining():
    loop = Loop()
    assert loop.serve(4, 0.001, 0.9) > 0
    assert loop.serve(4, 0.001, (BUSY + IDLE) / 2) > 0
    assert loop.serve(4, 0.001, IDLE - 0.05) == 0


def test_when_fewer_call_fewer_are_waited_for():
    loop = Loop()
    loop.serve(40, 0.01, 0.9)
    loop.serve(4, 0.001, 0.9)
    assert loop.pace.aim == int(4 * AIM_SHARE)


def test_after_a_pause_nobody_waits():
    loop = Loop()
    loop.serve(10, 0.001, 0.9)
    assert loop.pace.wait_s(loop.now_s + 3 * WINDOW_S) == 0
    assert loop.serve(1, 1.0, 0.01, groups=1) == 0


@pytest.mark.parametrize("calls_per_s", [50, 300, 1000])
def test_calls_at_random_moments_do_not_wait_for_one_another_on_a_loop_with_time(calls_per_s):
    """Found by review: a mean of rates is ruled by pairs that happen to come together."""
    dice, loop, waited = random.Random(1), Loop(), 0
    for _ in range(2000):
        loop.serve(1, dice.expovariate(calls_per_s), 0.4, groups=1)
        waited += loop.wait_s > 0
    assert not waited


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1), st.floats(0, 1)), max_size=50))
def test_no_wait_is_longer_than_the_bound(groups):
    loop = Loop()
    for calls, passed_s, busy in groups:
        assert 0 <= loop.serve(calls, passed_s, busy, groups=1) <= WAIT_S_MAX
