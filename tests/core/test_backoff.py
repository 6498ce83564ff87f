"""Delays double up to a bound, leave alone what failed, and keep apart what failed together."""

from riverrun_server.core.backoff import Backoff


def bounds(low, high):
    """Dice that tell what they may choose from, and choose the lower end."""
    asked.append((low, high))
    return low


asked: list[tuple[float, float]] = []


def delays_of(backoff, count):
    asked.clear()
    for _ in range(count):
        backoff.next_s()
    return list(asked)


def test_delays_double_up_to_the_bound_and_half_of_each_is_chosen():
    backoff = Backoff(bounds, 1.0, 6.0)
    assert delays_of(backoff, 5) == [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (3.0, 6.0)]


def test_what_the_dice_say_is_the_delay():
    backoff = Backoff(lambda _, high: high * 0.75, 1.0, 6.0)
    assert [backoff.next_s() for _ in range(4)] == [0.75, 1.5, 3.0, 4.5]


def test_success_begins_anew():
    backoff = Backoff(bounds, 1.0, 6.0)
    delays_of(backoff, 4)
    backoff.reset()
    assert delays_of(backoff, 2) == [(0.5, 1.0), (1.0, 2.0)]
