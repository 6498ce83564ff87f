"""The machine's clocks and dice, as far as the ports promise anything."""

from __future__ import annotations

from riverrun_server.runtime.broker_clock import BrokerClock
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


class Manual:
    def __init__(self):
        self.monotonic_s, self.readings = 100.0, 0

    def wall_ms(self):
        self.readings += 1
        return 1_700_000_000_000 + round((self.monotonic_s - 100.0) * 1000)

    def monotonic(self):
        return self.monotonic_s


def test_the_brokers_clock_is_read_anew_once_a_fraction_of_a_millisecond_has_passed():
    clock = Manual()
    now_ms = BrokerClock(clock)
    first, readings = now_ms(), clock.readings
    clock.monotonic_s += BrokerClock.FRESH_S / 2
    assert (now_ms(), clock.readings) == (first, readings)
    clock.monotonic_s += 0.001
    assert now_ms() == first + 1
    assert clock.readings == readings + 1
