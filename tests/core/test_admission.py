"""Byte budgets and the disk gate against plain sums."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from riverrun_server.core.admission import ByteBudget, DiskGate
from riverrun_server.core.errors import Reason


def test_a_connection_has_its_own_limit():
    budget = ByteBudget(100, 10)
    assert budget.reserve("a", 10)
    assert not budget.reserve("a", 1)
    assert budget.reserve("b", 10)
    error = budget.refusal("a", 1)
    assert error.reason is Reason.OVERLOADED
    assert "this connection" in error.message


def test_all_connections_share_the_brokers_limit():
    budget = ByteBudget(15, 10)
    assert budget.reserve("a", 10)
    assert not budget.reserve("b", 10)
    assert "this broker" in budget.refusal("b", 10).message
    budget.release("a", 10)
    assert budget.reserve("b", 10)


def test_what_is_larger_than_a_budget_goes_in_when_it_is_empty():
    budget = ByteBudget(100, 10)
    assert budget.reserve("a", 500)
    assert not budget.reserve("b", 1)
    budget.release("a", 500)
    assert budget.reserve("b", 1)


def test_a_connection_that_goes_gives_everything_back():
    budget = ByteBudget(100, 100)
    budget.reserve("a", 60)
    assert budget.forget("a") == 60
    assert budget.used_bytes == 0
    budget.release("a", 60)
    assert budget.used_bytes == 0


def test_giving_back_more_than_is_held_is_a_bug():
    budget = ByteBudget(100, 100)
    budget.reserve("a", 5)
    with pytest.raises(AssertionError):
        budget.release("a", 6)


class BudgetAgainstLists(RuleBasedStateMachine):
    """Every reservation is kept in a list; sums decide."""

    broker, connection = 50, 20

    def __init__(self) -> None:
        super().__init__()
        self.budget = ByteBudget(self.broker, self.connection)
        self.held: dict[int, list[int]] = {}

    @rule(connection=st.integers(0, 4), size=st.integers(0, 60))
    def reserve(self, connection, size):
        own, used = sum(self.held.get(connection, [])), sum(map(sum, self.held.values()))
        fits = (not own or own + size <= self.connection) and (
            not used or used + size <= self.broker
        )
        assert self.budget.reserve(connection, size) == fits
        if fits:
            self.held.setdefault(connection, []).append(size)

    @rule(connection=st.integers(0, 4))
    def release(self, connection):
        if self.held.get(connection):
            self.budget.release(connection, self.held[connection].pop(0))

    @rule(connection=st.integers(0, 4))
    def forget(self, connection):
        assert self.budget.forget(connection) == sum(self.held.pop(connection, []))

    @invariant()
    def what_is_used_is_the_sum(self):
        assert self.budget.used_bytes == sum(map(sum, self.held.values())) >= 0
        for connection in range(5):
            assert self.budget.held_by(connection) == sum(self.held.get(connection, []))
        assert set(self.budget._held) == {n for n, sizes in self.held.items() if sum(sizes)}


TestBudgetAgainstLists = BudgetAgainstLists.TestCase
TestBudgetAgainstLists.settings = settings(max_examples=60, deadline=None)


def test_a_full_disk_is_told_in_gib_with_the_setting_that_decides():
    gate = DiskGate(1 << 30, 3 << 29)
    gate.observe(700 << 20)
    error = gate.refusal()
    assert error is not None
    assert "has 700.0 MiB free and appends need 1.5 GiB to go on" in error.message
    assert "storage.disk_high_water_bytes" in error.message


def test_the_gate_closes_below_low_and_opens_at_high():
    gate = DiskGate(100, 200)
    assert not gate.observe(100)
    assert gate.refusal() is None
    assert gate.observe(99)
    assert not gate.observe(199)
    error = gate.refusal()
    assert error is not None
    assert error.reason is Reason.STORAGE_FULL
    assert error.meaning.definite
    assert "199 bytes free" in error.message
    assert gate.observe(200)
    assert gate.is_open
    assert not gate.observe(100)


def test_the_gate_remembers_what_was_seen_last():
    gate = DiskGate(100, 200)
    assert (gate.free_bytes, gate.total_bytes) == (0, 0)
    gate.observe(150, 1_000)
    assert (gate.free_bytes, gate.total_bytes) == (150, 1_000)
    gate.observe(99, 2_000)
    assert (gate.free_bytes, gate.total_bytes) == (99, 2_000)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.lists(st.integers(0, 120), max_size=30))
def test_between_low_and_high_the_gate_stays_as_it_is(low, distance, readings):
    gate = DiskGate(low, low + distance)
    for free in readings:
        before = gate.is_open
        changed = gate.observe(free)
        assert changed == (before != gate.is_open)
        if free < low:
            assert not gate.is_open
        elif free >= low + distance:
            assert gate.is_open
        else:
            assert gate.is_open == before
        assert (gate.refusal() is None) == gate.is_open
