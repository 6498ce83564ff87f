"""Whoever waits for room in the budget for deliveries is woken with it, and only then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.runtime.delivery_room import Deliveries, Room

P, Q = (PartitionId(b"t" * 16, number) for number in range(2))


def make(size=1000):
    told = []
    return Deliveries(DeliveryBudget(size), lambda: told.append("reached")), told


def test_who_finds_no_room_is_woken_once_there_is_some():
    deliveries, reached = make()
    greedy, other, woken = Room(deliveries, "a"), Room(deliveries, "b"), []
    assert greedy.hold(900)
    assert not other.hold(200)
    other.wait(P, 200, lambda: woken.append("b"))
    assert (other.held_bytes, reached) == (0, ["reached"])
    assert greedy.hold(850)
    assert woken == []
    assert greedy.hold(100)
    assert woken == ["b"]
    # Nobody takes it away in between.
    assert not Room(deliveries, "c").hold(600)
    other.claim(P)
    assert other.held_bytes == 200
    assert other.hold(200)


def test_one_connections_waiting_holds_up_no_other():
    deliveries, _ = make()
    a, b, woken = Room(deliveries, "a"), Room(deliveries, "b"), []
    other = Room(deliveries, "a")
    assert a.hold(500)
    assert not other.hold(100)
    other.wait(P, 100, lambda: woken.append("a"))
    assert b.hold(300, one_batch=True)
    late = Room(deliveries, "c")
    assert not late.hold(240, one_batch=True)
    late.wait(P, 240, lambda: woken.append("c"))
    b.close()
    assert woken == ["c"]


def test_a_stream_that_ends_gives_everything_back():
    deliveries, _ = make()
    room = Room(deliveries, "a")
    assert room.hold(300)
    room.close()
    room.close()
    assert deliveries.budget.used_bytes == 0


def test_a_stream_that_ended_swallows_no_wake_up():
    deliveries, _ = make()
    holder, gone, other, woken = (*(Room(deliveries, each) for each in "abb"), [])
    assert holder.hold(1000)
    for partition in (P, Q):
        gone.wait(partition, 300, lambda: woken.append("gone"))
    other.wait(P, 300, lambda: woken.append("other"))
    gone.close()
    holder.close()
    assert woken == ["other"]


@pytest.mark.parametrize(
    "give_back",
    [
        lambda room: room.forget(P),
        lambda room: room.withdraw(),
        lambda room: room.close(),
        lambda room: (room.claim(P), room.hold(0)),
    ],
)
def test_what_a_stream_was_granted_and_does_not_need_goes_to_the_next(give_back):
    deliveries, _ = make()
    holder, first, second, woken = (*(Room(deliveries, each) for each in "abc"), [])
    assert holder.hold(1000)
    first.wait(P, 600, lambda: woken.append("first"))
    second.wait(P, 600, lambda: woken.append("second"))
    holder.close()
    assert woken == ["first"]
    give_back(first)
    assert woken == ["first", "second"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "wait", "claim", "forget", "withdraw", "close"]),
        st.integers(0, 5),
        st.integers(0, 2),
        st.integers(0, 400),
    ),
    max_size=80,
)


@given(STEPS)
def test_room_is_held_or_granted_or_free_and_nobody_sleeps_beside_enough_of_it(steps):
    deliveries, _ = make()
    rooms = [Room(deliveries, number // 2) for number in range(6)]
    woken, slept = [], []
    for step, number, partition, size in steps:
        room, key = rooms[number], PartitionId(b"t" * 16, partition)
        match step:
            case "hold":
                room.hold(size, one_batch=partition == 0)
            case "wait":
                room.claim(key)
                if key not in room.partitions:
                    slept.append((number, key))
                room.wait(key, size + 1, lambda at=(number, key): woken.append(at))
            case "claim":
                room.claim(key)
            case "forget":
                room.forget(key)
            case "withdraw":
                room.withdraw()
            case "close":
                room.close()
                assert room.partitions == []
        grants = sum(each._grant[1] for each in rooms if each._grant)
        assert deliveries.budget.used_bytes == grants + sum(each.held_bytes for each in rooms)
        for at, each in enumerate(rooms):
            if each._waiting and each._grant is None:
                assert deliveries.queue.others_first(at // 2)
                first = next(iter(deliveries.queue._waiting[at // 2].values()))
                assert not deliveries.budget.fits(at // 2, first, one_batch=True)
        assert len(woken) <= len(slept)
    for room in rooms:
        room.close()
    assert deliveries.budget.used_bytes == len(deliveries.queue) == 0
