"""The bounds of a partition through random appends, syncs and trims: in order, and never going back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable

share = st.floats(0, 1)
step = st.one_of(
    st.tuples(st.sampled_from(["append", "append", "fail"]), st.integers(1, 5), st.integers(0, 2)),
    st.tuples(st.sampled_from(["sync", "trim"]), share, share),
)


def opened(state: LogState | None = None) -> PartitionMachine:
    return PartitionMachine(state or LogState(), ProducerTable(100), leader_epoch=3)


class Bounded:
    """A machine, and what it may not fall behind."""

    def __init__(self) -> None:
        self.machine = opened()
        self.end = 0
        self.sequences = [0, 0, 0]
        self.before = (0, 0, 0, 0)

    def append(self, count: int, pid: int, *, written: bool) -> None:
        machine = self.machine
        header = BatchHeader(count, 10, pid, 0, self.sequences[pid])
        stamp = machine.decide(header, None, 1_000)
        assert isinstance(stamp, Stamp)
        assert (stamp.base_offset, stamp.next_offset) == (self.end, self.end + count)
        rows = machine.rows(header, stamp, 10)
        if written:
            machine.appended(header, stamp, rows)
            self.end += count
            self.sequences[pid] += count if pid else 0

    def sync(self, at: float) -> None:
        """Tell what a sync proved; an older one may be told late."""
        self.machine.synced(int(at * self.end))

    def trim(self, at: float) -> None:
        machine, target = self.machine, int(at * (self.end + 1))
        if target > machine.high_watermark:
            with pytest.raises(Refusal):
                machine.trim_plan(target, 0)
        elif (plan := machine.trim_plan(target, 0)) is not None:
            machine.trimmed(plan)
            assert machine.log_start == target

    def check(self) -> None:
        machine = self.machine
        bounds = (
            machine.log_start,
            machine.high_watermark,
            machine.durable_end,
            machine.log_end,
        )
        assert list(bounds) == sorted(bounds)
        assert all(now >= then for now, then in zip(bounds, self.before, strict=True))
        assert machine.log_end == self.end
        self.before = bounds


@settings(max_examples=200, deadline=None)
@given(st.lists(step, max_size=40))
def test_bounds_stay_in_order_and_never_go_back(steps):
    it = Bounded()
    for kind, *how in steps:
        if kind in ("append", "fail"):
            it.append(*how, written=kind == "append")
        elif kind == "sync":
            it.sync(how[0])
        else:
            it.trim(how[0])
        it.check()


def test_after_a_restart_what_was_committed_counts_as_durable():
    machine = opened(LogState(log_start_offset=1, high_watermark=4, log_end_offset=6))
    assert machine.high_watermark == machine.durable_end == 4


@pytest.mark.parametrize("bounds", [(2, 3, 1), (0, 3, 4), (-1, 3, 2), (4, 3, 3)])
def test_a_state_whose_bounds_are_out_of_order_cannot_be_made(bounds):
    start, end, watermark = bounds
    with pytest.raises(AssertionError):
        LogState(log_start_offset=start, log_end_offset=end, high_watermark=watermark)


@pytest.mark.parametrize("base", [0, 2, 4])
def test_a_stamp_that_does_not_continue_the_log_is_not_written(base):
    machine = opened(LogState(log_end_offset=3))
    with pytest.raises(AssertionError):
        machine.rows(BatchHeader(1, 10), Stamp(base, 0, 3, 1_000, 1_000), 10)
