"""Small calls wait for company only where the loop is the bottleneck, and never for long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.pace import AIM_CALLS, BUSY, IDLE, WAIT_S_MAX, WINDOW_S, Pace


class Loop:
    """A loop whose calls come so often and take so much of its time."""

    def __init__(self):
        self.now_s, self.worked_s = 1000.0, 5.0
        self.pace = Pace(self.now_s, self.worked_s)

    def serve(self, calls, every_s, busy, groups=200):
        for _ in range(groups):
            self.now_s += every_s
            self.worked_s += every_s * busy
            self.pace.closed(calls, self.now_s, self.worked_s)
        return self.wait_s

    @property
    def wait_s(self):
        return self.pace.wait_s(self.now_s)


def test_the_first_call_does_not_wait():
    assert Loop().wait_s == 0


def test_nobody_waits_while_the_loop_has_time_to_spare_however_many_come():
    assert Loop().serve(5, 0.001, BUSY - 0.05) == 0


def test_calls_gather_where_the_loop_is_busy():
    assert Loop().serve(2, 0.001, 0.9) == WAIT_S_MAX


def test_a_busy_loop_with_few_calls_lets_nobody_wait():
    assert Loop().serve(1, 0.004, 0.9) == 0


def test_the_faster_they_come_the_shorter_is_the_wait_for_a_dozen():
    assert Loop().serve(10, 0.001, 0.9) == pytest.approx(AIM_CALLS / 10_000, rel=0.05)


def test_that_joined_calls_take_less_time_does_not_end_the_joining():
    loop = Loop()
    assert loop.serve(2, 0.001, 0.9) > 0
    assert loop.serve(2, 0.001, (BUSY + IDLE) / 2) > 0
    assert loop.serve(2, 0.001, IDLE - 0.05) == 0


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
