"""A loop that is late is seen by the gauge and told once, not at every tick."""

from __future__ import annotations

import asyncio

import structlog.testing

from riverrun_server.runtime.clock import SystemClock
from riverrun_server.runtime.loop_lag import LOG_EVERY_S, TICK_S, WINDOW_S, LoopLag


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def wall_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now


def watch() -> tuple[LoopLag, list[float]]:
    seen: list[float] = []
    return LoopLag(FakeClock(), observe=seen.append), seen


def test_the_gauge_keeps_a_peak_for_a_window_and_the_one_after_it():
    lag, seen = watch()
    lag.measured(0.05, 100.0)
    lag.measured(0.0, 100.1)
    assert seen == [0.05, 0.05]
    lag.measured(0.0, 100.0 + WINDOW_S)
    lag.measured(0.01, 100.1 + WINDOW_S)
    assert seen[2:] == [0.05, 0.05]
    lag.measured(0.0, 100.0 + 2 * WINDOW_S)
    assert seen[-1] == 0.01


def test_a_late_loop_is_logged_with_its_lag():
    lag, _ = watch()
    with structlog.testing.capture_logs() as logs:
        lag.measured(0.099, 100.0)
        assert not logs
        lag.measured(0.2504, 101.0)
    [line] = logs
    assert (line["event"], line["lag_ms"], line["times"]) == ("event loop was late", 250, 1)


def test_lasting_overload_is_logged_in_summary():
    lag, _ = watch()
    with structlog.testing.capture_logs() as logs:
        lag.measured(0.1, 100.0)
        lag.measured(0.9, 100.5)
        lag.measured(0.3, 101.0)
        assert len(logs) == 1
        lag.measured(0.0, 100.0 + LOG_EVERY_S)
    assert (logs[1]["lag_ms"], logs[1]["times"]) == (900, 2)


async def test_it_beats_at_every_tick_until_stopped():
    beats = 0
    ticked = asyncio.Event()

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            ticked.set()

    lag = LoopLag(SystemClock(), beat=beat)
    lag.start()
    async with asyncio.timeout(100 * TICK_S):
        await ticked.wait()
    lag.stop()
    lag.stop()


async def test_a_blocked_loop_is_measured():
    clock = FakeClock()
    seen: list[float] = []
    ticked = asyncio.Event()

    def observe(seconds: float) -> None:
        seen.append(seconds)
        ticked.set()

    lag = LoopLag(clock, observe=observe)
    lag.start()
    clock.now += TICK_S + 0.09
    await ticked.wait()
    lag.stop()
    assert 0.0899 < seen[0] < 0.0901
