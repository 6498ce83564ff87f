"""Who is attached anew has every heartbeat confirmed that had come before that was asked for."""

from __future__ import annotations

from riverrun_server.core.gateway.heard_heartbeats import HeardHeartbeats


def heard(*heartbeats):
    found = HeardHeartbeats()
    for heartbeat_id, now in heartbeats:
        found.heard(heartbeat_id, now)
    return found


def test_nothing_is_confirmed_that_was_not_heard():
    assert heard().newest == 0
    assert heard().until(10.0) == 0
    assert heard((1, 5.0)).until(4.9) == 0


def test_the_last_one_that_had_come_by_then_is():
    found = heard((1, 5.0), (2, 6.0), (4, 7.0))
    assert found.newest == 4
    assert [found.until(at) for at in (5.0, 6.5, 7.0, 99.0)] == [1, 2, 4, 4]


def test_one_that_does_not_rise_is_passed_over():
    found = heard((3, 5.0), (2, 6.0), (3, 7.0))
    assert found.newest == 3
    assert found.until(4.0) == 0
    assert found.until(99.0) == 3


def test_a_flood_of_them_is_not_kept():
    found = heard(*((number, float(number)) for number in range(1, 1000)))
    assert found.until(999.0) == 999
    assert found.until(100.0) == 0
