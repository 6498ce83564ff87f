"""Room for deliveries is bounded, and nobody takes what would leave others without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.delivery_budget import DeliveryBudget

# Who, how much, and what: a step gives all back, takes one batch, or takes anything.
STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 400), st.sampled_from(["back", "batch", "more"])),
    max_size=150,
)
BATCH = 40


@given(STEPS)
def test_what_is_used_is_what_is_held_and_never_above_the_bound(steps):
    budget, held = DeliveryBudget(1000), dict.fromkeys(range(31), 0)
    for connection, size, step in steps:
        if step == "back":
            budget.release(connection, held[connection])
            held[connection] = 0
        elif budget.fits(connection, size, one_batch=step == "batch"):
            budget.take(connection, size)
            held[connection] += size
        assert budget.used_bytes == sum(held.values()) <= 1000
        assert all(budget.held_by(key) == size for key, size in held.items())


@given(STEPS)
def test_whoever_holds_nothing_finds_room_for_a_batch_until_batches_of_others_fill_the_reserve(
    steps,
):
    """A reserve of 500 has room for a batch of 40 for each of twelve."""
    budget, connections = DeliveryBudget(1000), range(31)
    for connection, size, step in steps:
        if step == "back":
            budget.release(connection, min(size, budget.held_by(connection)))
        else:
            more = min(size, BATCH) if step == "batch" else size
            if budget.fits(connection, more, one_batch=step == "batch"):
                budget.take(connection, more)
        beyond = sum(max(0, budget.held_by(each) - BATCH) for each in connections)
        assert beyond <= budget.max_bytes - budget.reserve_bytes
        holding = sum(budget.held_by(each) > 0 for each in connections)
        assert budget.fits("newcomer", BATCH, one_batch=True) or holding >= 12


@pytest.mark.parametrize("hogs", [1, 32, 33, 127])
def test_a_newcomer_gets_a_batch_beside_hogs_that_took_all_they_could(hogs):
    """The default budget of 512 MiB, and 2 MiB for a batch of 1 MiB with its message."""
    budget = DeliveryBudget(512)
    for hog in range(hogs):
        while budget.fits(hog, 2, one_batch=True):
            budget.take(hog, 2)
        assert budget.held_by(hog)
    assert budget.fits("newcomer", 2, one_batch=True)


def test_half_is_kept_for_first_batches_and_of_the_rest_each_leaves_what_it_holds():
    budget = DeliveryBudget(2400)
    for connection, most in ((1, 600), (2, 300), (3, 150)):
        while budget.fits(connection, 10):
            budget.take(connection, 10)
        assert budget.held_by(connection) == most
    assert not budget.fits(4, 80)
    assert budget.fits(4, 80, one_batch=True)
    budget.take(4, 80)
    assert not budget.fits(4, 80, one_batch=True)  # its second


def test_what_is_larger_than_everything_fits_where_nothing_else_is():
    budget = DeliveryBudget(100)
    assert budget.fits(1, 5_000)
    budget.take(1, 5_000)
    assert not budget.fits(2, 1)
    budget.release(1, 5_000)
    assert budget.fits(2, 1)
