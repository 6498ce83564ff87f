"""The guarded clock under wall clocks that drift, leap and go back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.guarded_clock import (
    LEAP_MS,
    SLEW_MAX,
    ClockLeap,
    GuardedClock,
    TimeGap,
)

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def run(clock: GuardedClock, *, seconds: int, wall_ms: float, rate: float = 1.0) -> int:
    """Let time pass second by second while the wall clock runs at a rate; return the last reading."""
    start_s = clock._monotonic_s
    now_ms = 0
    for second in range(1, seconds + 1):
        now_ms = clock.now_ms(round(wall_ms + second * 1000 * rate), start_s + second)
    return now_ms


def test_it_starts_with_the_wall_clock_and_goes_with_it():
    clock = GuardedClock(START_MS, 50.0)
    assert clock.now_ms(START_MS, 50.0) == START_MS
    assert clock.now_ms(START_MS + 60_000, 110.0) == START_MS + 60_000
    assert clock.take_leap() is None


def test_a_leap_is_reported_once_and_not_followed():
    for leap_ms in (HOUR_MS, -HOUR_MS, 365 * DAY_MS):
        clock = GuardedClock(START_MS, 0.0)
        assert clock.now_ms(START_MS + leap_ms + 1000, 1.0) == START_MS + 1000
        assert clock.not_followed_ms == leap_ms
        assert clock.take_leap() == ClockLeap(leap_ms, leap_ms)
        assert clock.take_leap() is None
        assert run(clock, seconds=600, wall_ms=START_MS + leap_ms + 1000) == START_MS + 601_000
        assert clock.take_leap() is None


def test_a_leap_there_and_back_leaves_nothing():
    clock = GuardedClock(START_MS, 0.0)
    clock.now_ms(START_MS + HOUR_MS, 1.0)
    clock.now_ms(START_MS + 2000, 2.0)
    leap = clock.take_leap()
    assert leap is not None
    assert abs(leap.behind_wall_ms) <= 1
    assert clock.now_ms(START_MS + 3000, 3.0) == START_MS + 3000


def test_leaps_between_two_reports_are_reported_as_one():
    clock = GuardedClock(START_MS, 0.0)
    clock.now_ms(START_MS + HOUR_MS, 0.0)
    clock.now_ms(START_MS + 3 * HOUR_MS, 0.0)
    assert clock.take_leap() == ClockLeap(3 * HOUR_MS, 3 * HOUR_MS)


def test_a_wall_clock_that_is_a_little_off_is_approached_at_one_percent():
    clock = GuardedClock(START_MS, 0.0)
    assert clock.now_ms(START_MS + 1500 + 1000, 1.0) == START_MS + 1000 + 10
    assert run(clock, seconds=99, wall_ms=START_MS + 2500) == START_MS + 100_000 + 1000
    assert run(clock, seconds=100, wall_ms=START_MS + 101_500) == START_MS + 200_000 + 1500
    assert clock.take_leap() is None


def test_a_wall_clock_that_drifts_is_followed():
    clock = GuardedClock(START_MS, 0.0)
    now_ms = run(clock, seconds=3600, wall_ms=START_MS, rate=1.0005)
    assert abs(now_ms - (START_MS + 3_600_000 + 1800)) <= 2


def test_a_wall_clock_that_runs_at_double_speed_is_not():
    clock = GuardedClock(START_MS, 0.0)
    now_ms = run(clock, seconds=3600, wall_ms=START_MS, rate=2.0)
    assert now_ms <= START_MS + 3_600_000 * (1 + SLEW_MAX)
    leap = clock.take_leap()
    assert leap is not None
    assert leap.behind_wall_ms > 0.9 * 3_600_000


readings = st.lists(
    st.tuples(
        st.integers(0, 100_000),  # ms that pass
        st.one_of(
            st.integers(-1500, 1500),
            st.sampled_from([HOUR_MS, -HOUR_MS, 400 * DAY_MS, -400 * DAY_MS]),
        ),  # by how much the wall clock is set meanwhile
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(readings)
def test_it_never_goes_back_and_keeps_the_monotonic_pace_within_one_percent(readings):
    clock = GuardedClock(START_MS, 0.0)
    elapsed_ms, offset_ms, before = 0, 0, START_MS
    for passed_ms, set_by_ms in readings:
        elapsed_ms += passed_ms
        offset_ms += set_by_ms
        now_ms = clock.now_ms(START_MS + elapsed_ms + offset_ms, elapsed_ms / 1000)
        assert now_ms - before <= passed_ms * (1 + SLEW_MAX) + 2
        assert now_ms - before >= passed_ms * (1 - SLEW_MAX) - 2
        before = now_ms
        leap = clock.take_leap()
        if abs(set_by_ms) > 3 * LEAP_MS:
            # It may take with it what had not been approached yet.
            assert leap is not None
            assert abs(leap.leap_ms - set_by_ms) <= LEAP_MS + 1000 * SLEW_MAX + 1
        if leap is not None:
            wall_ms = START_MS + elapsed_ms + offset_ms
            assert abs(leap.behind_wall_ms - (wall_ms - now_ms)) <= 2


def test_an_ordinary_restart_pauses_nothing():
    gap = TimeGap(START_MS, START_MS + HOUR_MS)
    assert not gap.pauses(7 * DAY_MS)
    assert gap.to_persist_ms(START_MS + 2 * HOUR_MS, 7 * DAY_MS) == START_MS + 2 * HOUR_MS


def test_a_new_store_pauses_nothing():
    assert not TimeGap(None, START_MS).pauses(1)


def test_a_gap_longer_than_the_retention_pauses_it():
    gap = TimeGap(START_MS, START_MS + 8 * DAY_MS)
    assert gap.pauses(7 * DAY_MS)
    assert not gap.pauses(8 * DAY_MS)


def test_a_gap_of_a_day_is_believed_however_short_the_retention():
    assert not TimeGap(START_MS, START_MS + DAY_MS).pauses(60_000)
    assert TimeGap(START_MS, START_MS + DAY_MS + 1).pauses(60_000)


def test_only_a_confirmation_of_this_start_ends_the_pause():
    started_ms = START_MS + 8 * DAY_MS
    assert TimeGap(START_MS, started_ms, confirmed_ms=started_ms - 1).pauses(7 * DAY_MS)
    assert not TimeGap(START_MS, started_ms, confirmed_ms=started_ms).pauses(7 * DAY_MS)


def test_a_restart_does_not_end_the_pause():
    gap = TimeGap(START_MS, START_MS + 8 * DAY_MS)
    persisted_ms = gap.to_persist_ms(gap.started_ms + HOUR_MS, 7 * DAY_MS)
    assert TimeGap(persisted_ms, gap.started_ms + 2 * HOUR_MS).pauses(7 * DAY_MS)


def test_a_clock_behind_what_was_persisted_pauses_nothing_and_shows():
    gap = TimeGap(START_MS, START_MS - DAY_MS)
    assert gap.gap_ms == -DAY_MS
    assert not gap.pauses(0)
