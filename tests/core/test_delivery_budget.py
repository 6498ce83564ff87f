"""Room for deliveries is bounded, and nobody takes what would leave others without."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.delivery_budget import DeliveryBudget

STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400), st.booleans()), max_size=80)


@given(STEPS)
def test_what_is_used_is_what_is_held_and_never_above_the_bound(steps):
    budget, held = DeliveryBudget(1000), dict.fromkeys(range(6), 0)
    for connection, size, takes in steps:
        if not takes:
            budget.release(connection, held[connection])
            held[connection] = 0
        elif budget.fits(connection, size):
            budget.take(connection, size)
            held[connection] += size
        assert budget.used_bytes == sum(held.values()) <= 1000
        assert all(budget.held_by(key) == size for key, size in held.items())


def test_one_connection_takes_half_and_the_next_a_third():
    budget = DeliveryBudget(1200)
    for connection, most in ((1, 600), (2, 300), (3, 150)):
        while budget.fits(connection, 10):
            budget.take(connection, 10)
        assert budget.held_by(connection) == most


def test_what_is_larger_than_everything_fits_where_nothing_else_is():
    budget = DeliveryBudget(100)
    assert budget.fits(1, 5_000)
    budget.take(1, 5_000)
    assert not budget.fits(2, 1)
    budget.release(1, 5_000)
    assert budget.fits(2, 1)
