"""Appends wait for exactly what they were promised."""

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.log.acks import WaitingAcks


def test_each_queue_is_released_by_its_own_bound():
    waiting: WaitingAcks[str] = WaitingAcks()
    waiting.wait_durable(5, "leader")
    waiting.wait_committed(5, "all")
    assert list(waiting.release(5, 4)) == ["leader"]
    assert list(waiting.release(5, 5)) == ["all"]
    assert not len(waiting)


def test_nothing_is_released_below_its_need():
    waiting: WaitingAcks[str] = WaitingAcks()
    waiting.wait_committed(5, "a")
    assert list(waiting.release(9, 4)) == []


def test_a_duplicate_of_an_old_batch_keeps_the_order():
    waiting: WaitingAcks[str] = WaitingAcks()
    waiting.wait_committed(10, "new")
    waiting.wait_committed(3, "old again")
    assert list(waiting.release(5, 5)) == []
    assert list(waiting.release(10, 10)) == ["new", "old again"]


def test_failing_releases_everything():
    waiting: WaitingAcks[int] = WaitingAcks()
    waiting.wait_committed(10, 1)
    waiting.wait_durable(10, 2)
    assert sorted(waiting.fail()) == [1, 2]
    assert not len(waiting)


def test_what_waits_to_be_committed_fails_alone():
    waiting: WaitingAcks[str] = WaitingAcks()
    waiting.wait_committed(10, "all")
    waiting.wait_durable(10, "leader")
    assert list(waiting.fail_committed()) == ["all"]
    assert list(waiting.release(10, 10)) == ["leader"]


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 25)))
def test_every_append_is_released_once_at_the_first_bound_that_covers_it(needs, bounds):
    waiting: WaitingAcks[int] = WaitingAcks()
    raised = 0
    need_of = {}
    for number, need in enumerate(needs):
        waiting.wait_committed(need, number)
        raised = max(raised, need)
        need_of[number] = raised
    released: list[int] = []
    for bound in sorted(bounds):
        for number in waiting.release(0, bound):
            assert need_of[number] <= bound
            released.append(number)
        assert all(need_of[n] > bound for n in need_of if n not in released)
    assert released == sorted(released)
