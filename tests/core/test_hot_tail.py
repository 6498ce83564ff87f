"""The hot tail against a plain list of everything that was appended."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.core.log.hot_tail import BATCH_OVERHEAD_BYTES, HotTail, TailBudget


def batch(base: int, count: int = 1, size: int = 10) -> StoredBatch:
    return StoredBatch(base, base + count, 0, bytes(size))


def filled(*batches: StoredBatch, max_bytes: int = 1 << 30) -> HotTail:
    tail = HotTail(TailBudget(max_bytes))
    for each in batches:
        tail.append(each)
    return tail


def test_an_empty_tail_holds_nothing():
    tail = filled()
    assert tail.read(0, 100, 100) is None
    assert tail.start_offset is None


def test_reading_begins_with_the_batch_that_holds_the_offset():
    a, b, c = batch(10, 5), batch(15, 5), batch(20, 5)
    tail = filled(a, b, c)
    assert tail.read(17, 100, 1000) == [b, c]
    assert tail.read(10, 100, 1000) == [a, b, c]
    assert tail.read(9, 100, 1000) is None


def test_reading_at_the_end_gives_nothing_and_does_not_send_to_the_disk():
    assert filled(batch(10, 5)).read(15, 100, 1000) == []


def test_a_batch_that_reaches_beyond_the_end_is_left_out():
    a, b = batch(10, 5), batch(15, 5)
    tail = filled(a, b)
    assert tail.read(10, 20, 1000) == [a, b]
    assert tail.read(10, 19, 1000) == [a]
    assert tail.read(12, 14, 1000) == []


def test_at_least_one_batch_is_read_whatever_its_size():
    a, b, c = batch(0), batch(1), batch(2)
    tail = filled(a, b, c)
    assert tail.read(0, 9, 1) == [a]
    assert tail.read(0, 9, 20) == [a, b]
    assert tail.read(1, 9, 29) == [b, c]


def test_the_offset_in_a_gap_belongs_to_the_batch_behind_it():
    a, b = batch(0, 2), batch(8, 2)
    assert filled(a, b).read(5, 100, 1000) == [b]


def test_stored_bytes_are_not_copied():
    a = batch(0)
    found = filled(a).read(0, 1, 100)
    assert found is not None
    assert found[0].data is a.data


def test_the_batch_appended_longest_ago_goes_first_whichever_tail_it_is_in():
    cost = 10 + BATCH_OVERHEAD_BYTES
    budget = TailBudget(3 * cost)
    quiet, busy = HotTail(budget), HotTail(budget)
    busy.append(batch(0))
    quiet.append(batch(0))
    busy.append(batch(1))
    busy.append(batch(2))
    assert (busy.start_offset, quiet.start_offset) == (1, 0)
    busy.append(batch(3))
    assert (busy.start_offset, quiet.start_offset) == (1, None)
    assert budget.used_bytes == 3 * cost


def test_a_batch_larger_than_the_budget_is_not_held():
    tail = filled(batch(0, size=5000), max_bytes=1000)
    assert len(tail) == 0
    tail.append(batch(1))
    assert tail.start_offset == 1


def test_tiny_batches_cannot_use_more_memory_than_the_budget():
    tail = filled(*(batch(n, size=0) for n in range(1000)), max_bytes=100 * BATCH_OVERHEAD_BYTES)
    assert len(tail) == 100


def test_evicted_batches_leave_no_entries_behind():
    tail = filled(*(batch(n) for n in range(10_000)), max_bytes=50 * (10 + BATCH_OVERHEAD_BYTES))
    lists = (tail._batches, tail._bases, tail._tickets, tail._sums)
    assert max(map(len, lists)) < 200
    assert len(tail._budget._holders) == 50


class TailsAgainstLists(RuleBasedStateMachine):
    """Three partitions, one budget; what is read is what a list of everything would give."""

    max_bytes = 8 * (20 + BATCH_OVERHEAD_BYTES)

    def __init__(self) -> None:
        super().__init__()
        self.budget = TailBudget(self.max_bytes)
        self.tails = [HotTail(self.budget) for _ in range(3)]
        self.logs: list[list[StoredBatch]] = [[], [], []]
        # Everything ever appended and still in a log, in order: who is evicted next.
        self.order: list[tuple[int, StoredBatch]] = []

    def held(self) -> list[tuple[int, StoredBatch]]:
        held, used = [], 0
        for which, each in reversed(self.order):
            used += len(each.data) + BATCH_OVERHEAD_BYTES
            if used > self.max_bytes:
                break
            held.append((which, each))
        return held[::-1]

    @rule(
        which=st.integers(0, 2),
        gap=st.sampled_from([0, 0, 0, 3]),
        count=st.integers(1, 4),
        size=st.sampled_from([0, 10, 20, 30, 1000, 100_000]),
    )
    def append(self, which, gap, count, size):
        log = self.logs[which]
        base = log[-1].next_offset + gap if log else gap
        new = batch(base, count, size)
        self.tails[which].append(new)
        log.append(new)
        self.order.append((which, new))
        self.order = self.held()

    @rule(which=st.integers(0, 2), back=st.integers(0, 12))
    def truncate(self, which, back):
        log = self.logs[which]
        offset = max((log[-1].next_offset if log else 0) - back, 0)
        self.tails[which].truncate(offset)
        self.logs[which] = [each for each in log if each.next_offset <= offset]
        self.order = [
            (n, each) for n, each in self.order if n != which or each.next_offset <= offset
        ]

    @rule(which=st.integers(0, 2))
    def clear(self, which):
        self.tails[which].clear()
        self.order = [(n, each) for n, each in self.order if n != which]

    @rule(
        which=st.integers(0, 2),
        back=st.integers(0, 30),
        span=st.integers(0, 30),
        max_bytes=st.integers(0, 1100),
    )
    def read(self, which, back, span, max_bytes):
        log = self.logs[which]
        offset = max((log[-1].next_offset if log else 0) - back, 0)
        end = offset + span
        held = [each for n, each in self.order if n == which]
        found = self.tails[which].read(offset, end, max_bytes)
        if not held or offset < held[0].base_offset:
            assert found is None
            return
        wanted: list[StoredBatch] = []
        for each in held:
            if each.next_offset <= offset:
                continue
            used = sum(len(taken.data) for taken in wanted) + len(each.data)
            if each.next_offset > end or (wanted and used > max_bytes):
                break
            wanted.append(each)
        assert found == wanted

    @invariant()
    def the_budget_holds_and_counts_what_is_held(self):
        used = sum(len(each.data) + BATCH_OVERHEAD_BYTES for _, each in self.order)
        assert self.budget.used_bytes == used <= self.max_bytes
        assert len(self.budget._holders) == len(self.order)
        for which, tail in enumerate(self.tails):
            assert len(tail) == sum(n == which for n, _ in self.order)


TestTailsAgainstLists = TailsAgainstLists.TestCase
TestTailsAgainstLists.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
