"""Whoever waits for room in the budget for deliveries is woken when there is some, and only then."""

from __future__ import annotations

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.runtime.delivery_room import Deliveries, Room


def make(size=1000):
    told = []
    return Deliveries(DeliveryBudget(size), lambda: told.append("reached")), told


def test_who_finds_no_room_is_woken_once_there_is_some():
    deliveries, reached = make()
    greedy, other, woken = Room(deliveries, "a"), Room(deliveries, "b"), []
    assert greedy.hold(900)
    assert not other.hold(200)
    other.wait(200, lambda: woken.append("b"))
    assert (other.held_bytes, reached) == (0, ["reached"])
    assert greedy.hold(850)
    assert woken == []
    assert greedy.hold(100)
    assert woken == ["b"]
    assert other.hold(200)


def test_one_connections_waiting_holds_up_no_other():
    deliveries, _ = make()
    a, b, woken = Room(deliveries, "a"), Room(deliveries, "b"), []
    other = Room(deliveries, "a")
    assert a.hold(500)
    assert not other.hold(100)
    other.wait(100, lambda: woken.append("a"))
    assert b.hold(250)
    late = Room(deliveries, "c")
    assert not late.hold(240)
    late.wait(240, lambda: woken.append("c"))
    b.close()
    assert woken == ["c"]


def test_a_stream_that_ends_gives_everything_back():
    deliveries, _ = make()
    room = Room(deliveries, "a")
    assert room.hold(300)
    room.close()
    room.close()
    assert deliveries.budget.used_bytes == 0
