"""Whatever happens to streams, a record is written once, in order, and its fate is told truly."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.lane_world import World


def run(seed: int, *, idempotent: bool, steps: int = 400) -> World:
    world = World(seed, idempotent=idempotent)
    for _ in range(steps):
        world.step()
    world.settle()
    world.check()
    return world


@given(seed=st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_with_idempotence_every_record_is_written_at_most_once_and_in_order(seed):
    run(seed, idempotent=True)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_without_idempotence_no_record_is_written_twice_and_fates_are_true(seed):
    run(seed, idempotent=False)


@pytest.mark.parametrize("idempotent", [True, False])
def test_the_worlds_are_rich_enough_to_find_something(idempotent):
    fates: Counter[str] = Counter()
    for seed in range(30):
        world = run(seed, idempotent=idempotent)
        for fate in world.fates.values():
            fates[fate.error.reason if fate.error else "written"] += 1
            fates["unknown"] += bool(fate.error and not fate.error.outcome_known)
    assert fates["written"] > 1000
    assert fates["INVALID_RECORD"] > 20
    assert fates["unknown"] > 20
    assert fates["BATCH_FAILED_BEFORE"] > 5
