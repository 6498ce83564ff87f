"""Lines a second: the first pass, the others are counted once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.line_budget import LineBudget


def test_what_was_left_out_is_told_once():
    budget = LineBudget(2)
    assert [budget.admit(0.0) for _ in range(5)] == [0, 0, None, None, None]
    assert [budget.admit(1.0) for _ in range(3)] == [3, 0, None]
    assert budget.admit(9.0) == 1


def test_a_budget_of_none_lets_none_pass():
    budget = LineBudget(0)
    assert [budget.admit(float(second)) for second in range(5)] == [None] * 5


@given(st.integers(0, 5), st.lists(st.floats(0, 3), max_size=100))
def test_every_call_is_either_written_or_counted_and_no_second_has_too_many(per_s, waits):
    budget, now_s, written, told = LineBudget(per_s), 0.0, [], 0
    for wait_s in waits:
        now_s += wait_s
        left_out = budget.admit(now_s)
        if left_out is not None:
            written.append(now_s)
            told += left_out
    assert len(written) + told + budget._left_out == len(waits)
    # A window begins with a line, so no two lines that are `per_s` apart stand within one second.
    for first, last in zip(written, written[2 * per_s :], strict=False):
        assert last - first >= 1.0
