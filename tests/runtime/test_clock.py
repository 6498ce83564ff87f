"""The machine's clocks and dice, as far as the ports promise anything."""

from __future__ import annotations

from riverrun_server.runtime.clock import SystemClock, SystemDice


def test_the_wall_clock_counts_milliseconds_since_1970():
    assert 1_700_000_000_000 < SystemClock().wall_ms() < 10_000_000_000_000


def test_the_monotonic_clock_does_not_go_back():
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(1000)]
    assert times == sorted(times)


def test_tokens_have_their_size_and_differ():
    dice = SystemDice()
    tokens = {dice.token(16) for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {16}


def test_a_number_lies_between_its_bounds():
    dice = SystemDice()
    assert all(2.0 <= dice.uniform(2.0, 3.0) <= 3.0 for _ in range(100))
