"""Whoever waits for room gets it as soon as there is enough for the next, and leaves nothing behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.delivery_queue import DeliveryQueue

# What is done, a connection, a waiter, how much.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "leave", "take", "begin", "release"]),
        st.integers(0, 4),
        st.integers(0, 2),
        st.one_of(st.integers(1, 20), st.integers(1, 400)),
    ),
    max_size=80,
)


@given(STEPS)
def test_nobody_waits_while_there_is_room_for_the_next_and_no_entry_outlives_its_waiter(steps):
    budget = DeliveryBudget(1000)
    queue = DeliveryQueue(budget)
    waiting = {}
    for connection in range(5):
        budget.take(connection, 195)
    for step, connection, number, size in steps:
        waiter = (connection, number)
        if step == "wait":
            queue.add(connection, waiter, size)
            waiting.setdefault(connection, {})[waiter] = size
        elif step == "leave":
            queue.discard(connection, waiter)
            waiting.get(connection, {}).pop(waiter, None)
        elif step == "release":
            budget.release(connection, min(size, budget.held_by(connection)))
            queue.changed(connection)
        elif budget.fits(connection, size, one_batch=step == "begin"):
            budget.take(connection, size)
            queue.changed(connection)
        used = budget.used_bytes
        while (granted := queue.grant()) is not None:
            line = waiting[granted[0]]
            # The first of its connection, exactly what it waited for.
            assert granted == next(iter(line))
            used += line.pop(granted)
            assert budget.used_bytes == used
        waiting = {each: line for each, line in waiting.items() if line}
        for each, line in waiting.items():
            assert not budget.fits(each, next(iter(line.values())), one_batch=True)
            assert queue.others_first(each)
        assert len(queue) == sum(map(len, waiting.values()))
        assert set(queue._waiting) == set(queue._entries) == set(waiting)
        assert len(queue._needs) <= 2 * 5 + 17


def test_those_that_wait_for_one_connection_take_turns():
    budget = DeliveryBudget(1000)
    queue = DeliveryQueue(budget)
    budget.take("other", 960)
    for waiter in "abc":
        queue.add("mine", waiter, 50)
    turns = []
    for _ in range(6):
        assert queue.grant() is None
        budget.release("other", 960)
        turns.append(queue.grant())
        budget.release("mine", 50)
        budget.take("other", 960)
        queue.add("mine", turns[-1], 50)
    assert turns == list("abcabc")


def test_who_holds_less_goes_first():
    budget = DeliveryBudget(2000)
    queue = DeliveryQueue(budget)
    budget.take("much", 500)
    budget.take("little", 200)
    budget.take("gone", 300)
    queue.add("much", "first", 50)
    queue.add("little", "second", 50)
    assert queue.others_first("much")
    assert queue.others_first("gone")
    assert not queue.others_first("holds nothing")
    budget.release("gone", 300)
    assert [queue.grant(), queue.grant()] == ["second", None]
    queue.add("holds nothing", "third", 50)
    assert [queue.grant(), queue.grant()] == ["third", None]


def test_of_those_that_need_the_same_the_longest_waiting_goes_first_however_often_others_ask():
    budget = DeliveryBudget(1000)
    queue = DeliveryQueue(budget)
    budget.take("holder", 1000)
    queue.add("a", "a", 50)
    queue.add("b", "b", 50)
    # It asks for another partition too, and is told of something new.
    queue.add("a", "a again", 50)
    queue.changed("a")
    budget.release("holder", 50)
    assert [queue.grant(), queue.grant()] == ["a", None]
    # What it waits for now is its second batch.
    budget.release("holder", 50)
    assert [queue.grant(), queue.grant()] == ["b", None]


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(1, 40), st.booleans()), max_size=200),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_whoever_reads_gets_a_turn_beside_hogs_that_give_nothing_back(takes, sizes):
    """Eleven that take what they get, and never read; a reserve of 500 has room for twelve."""
    budget = DeliveryBudget(1000)
    queue = DeliveryQueue(budget)
    for hog, size, one_batch in takes:
        if budget.fits(hog, size, one_batch=one_batch):
            budget.take(hog, size)
    for number, size in enumerate(sizes):
        queue.add(f"reader {number}", number, size)
    for hog, size, _ in takes:
        queue.add(hog, ("hog", hog), size)
    served, held = set(), []
    while len(served) < len(sizes):
        while (granted := queue.grant()) is not None:
            held.append(granted)
        readers = [each for each in held if isinstance(each, int)]
        assert readers, "readers wait beside hogs, and nobody gives anything back"
        for each in readers:
            budget.release(f"reader {each}", sizes[each])
            queue.changed(f"reader {each}")
        served.update(readers)
        held = []


def test_who_comes_after_one_that_left_is_judged_by_what_it_wants_itself():
    budget = DeliveryBudget(1000)
    queue = DeliveryQueue(budget)
    budget.take("holder", 1000)
    queue.add("a", "left", 1)
    queue.add("a", "wants much", 400)
    queue.add("b", "wants little", 20)
    queue.discard("a", "left")
    budget.release("holder", 100)
    assert queue.grant() == "wants little"


def test_ten_thousand_connections_that_wait_are_not_walked_for_each_release():
    looked_at = 0

    class Counting(DeliveryBudget):
        def fits(self, connection, size_bytes, **kind):
            nonlocal looked_at
            looked_at += 1
            return super().fits(connection, size_bytes, **kind)

    budget = Counting(1000)
    budget.take("holder", 1000)
    queue = DeliveryQueue(budget)
    for connection in range(10_000):
        queue.add(connection, connection, 400)
    budget.release("holder", 1)
    queue.changed("holder")
    assert queue.grant() is None
    assert looked_at == 1
    for connection in range(10_000):
        queue.discard(connection, connection)
    assert not queue._waiting
    assert not queue._entries
