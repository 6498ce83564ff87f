"""The broker's idea of the time: the wall clock at the start, then the monotonic one.

A wall clock that leaps, by a slip of an operator or of NTP, would delete a week of data or stop
timestamps for a year. So a leap is reported and not followed, and a wall clock that merely runs
faster or slower is approached by 1 % at most. What no clock within a process can tell is whether
the wall clock was right at the start; there the time that was persisted before helps (`TimeGap`).
"""

from __future__ import annotations

from dataclasses import dataclass

SLEW_MAX = 0.01
"""At most this part of the time that passes is added or left out to approach the wall clock."""

LEAP_MS = 2000.0
"""A wall clock that is this far off has leapt, or drifted too fast; a leap second is no leap."""


GAP_BELIEVED_MS = 86_400_000
"""A gap of up to a day is believed: without that, a topic that keeps minutes would wait for an
operator after every restart, and fill the disk meanwhile."""


@dataclass(frozen=True, slots=True)
class ClockLeap:
    """The wall clock was set, and the guarded clock did not follow.

    Attributes:
        leap_ms: by how much; negative is back.
        behind_wall_ms: how far the guarded clock is behind the wall clock by now.
    """

    leap_ms: int
    behind_wall_ms: int


class GuardedClock:
    """A clock in ms since 1970 that never goes back and never leaps.

    Each reading takes both clocks. Transitions:

    - the wall clock, less what was not followed before, is near: approach it, by `SLEW_MAX` of the
      time that has passed on the monotonic clock.
    - it is further off than `LEAP_MS`: go on with the monotonic clock alone, and count the
      difference as not followed; `take_leap` reports it once.

    Only a restart takes the wall clock over again.

    Args:
        wall_ms: the wall clock at the start.
        monotonic_s: the monotonic clock at the start.
    """

    __slots__ = ("_leap", "_monotonic_s", "_not_followed_ms", "_now_ms")

    def __init__(self, wall_ms: int, monotonic_s: float) -> None:
        self._now_ms = float(wall_ms)
        self._monotonic_s = monotonic_s
        self._not_followed_ms = 0.0
        self._leap: ClockLeap | None = None

    def now_ms(self, wall_ms: int, monotonic_s: float) -> int:
        """Return the time, given what the two clocks show."""
        passed_ms = max(monotonic_s - self._monotonic_s, 0.0) * 1000.0
        self._monotonic_s = max(monotonic_s, self._monotonic_s)
        now_ms = self._now_ms + passed_ms
        slew_ms = passed_ms * SLEW_MAX
        behind_ms = wall_ms - self._not_followed_ms - now_ms
        if abs(behind_ms) > LEAP_MS + slew_ms:
            self._not_followed_ms += behind_ms
            self._report(behind_ms)
            behind_ms = 0.0
        self._now_ms = now_ms + min(max(behind_ms, -slew_ms), slew_ms)
        return int(self._now_ms)

    @property
    def not_followed_ms(self) -> int:
        """How far it is behind the wall clock by leaps that it did not follow; negative is ahead."""
        return round(self._not_followed_ms)

    def take_leap(self) -> ClockLeap | None:
        """Return the leap since the last call, several as one; None where there was none."""
        leap, self._leap = self._leap, None
        return leap

    def _report(self, leap_ms: float) -> None:
        before = self._leap.leap_ms if self._leap else 0
        self._leap = ClockLeap(before + round(leap_ms), round(self._not_followed_ms))


@dataclass(frozen=True, slots=True)
class TimeGap:
    """How long a single broker was away, by clocks that nobody has compared.

    Nobody tells a broker alone whether it was down for a week or its clock is a week ahead. Where
    the gap is longer than a retention period, and than a day, everything would be deleted at once in
    the second case; so deletion by age waits until a setting confirms the time.

    Attributes:
        last_persisted_ms: the time that was persisted last before the start; None in a new store.
        started_ms: the wall clock at the start.
        confirmed_ms: the setting: wall clocks up to this time are right. A time and not a flag, so
            that a setting that is never taken back confirms nothing later.
    """

    last_persisted_ms: int | None
    started_ms: int
    confirmed_ms: int | None = None

    @property
    def gap_ms(self) -> int:
        """How long the broker was away; negative where the clock is behind what was persisted."""
        return 0 if self.last_persisted_ms is None else self.started_ms - self.last_persisted_ms

    def pauses(self, retention_ms: int) -> bool:
        """Return whether nothing may be deleted because it is older than `retention_ms`."""
        confirmed = self.confirmed_ms is not None and self.confirmed_ms >= self.started_ms
        return not confirmed and self.gap_ms > max(retention_ms, GAP_BELIEVED_MS)

    def to_persist_ms(self, now_ms: int, shortest_retention_ms: int) -> int:
        """Return the time to persist now, which the next start will compare with.

        It stands still while anything is paused: else the next start would see no gap any more, and
        a restart would do what only a confirmation may.
        """
        if self.last_persisted_ms is not None and self.pauses(shortest_retention_ms):
            return self.last_persisted_ms
        return now_ms
