"""The in-sync set: the largest that may be true is what counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster.values import Id, PartitionValue, Replica
from riverrun_server.core.replication.isr import InSyncSet, without_leader


def life(broker: int, number: int = 0) -> Replica:
    return Replica(broker, Id(bytes([broker, number]) * 8))


A, B, C, D = (life(each) for each in (1, 2, 3, 4))


def value(*isr: Replica, min_isr: int = 2, elr=(), epoch: int = 0) -> PartitionValue:
    return PartitionValue(
        leader=1,
        leader_epoch=7,
        leader_broker_epoch=50,
        partition_epoch=epoch,
        replicas=(1, 2, 3, 4),
        isr=isr,
        elr=elr,
        min_isr=min_isr,
    )


def of(*isr: Replica, revision: int = 10, **how) -> InSyncSet:
    return InSyncSet(1, value(*isr, **how), revision)


def test_a_pending_expansion_counts_and_a_pending_shrink_does_not():
    it = of(A, B)
    assert it.join(C) is not None
    assert it.maximal == {A, B, C}
    it = of(A, B, C)
    assert it.leave([C]) is not None
    assert it.maximal == {A, B, C}


def test_a_change_raises_the_partition_epoch_and_nothing_but_the_sets():
    it = of(A, B, epoch=4)
    assert it.join(C) == value(A, B, C, epoch=5)


def test_only_one_change_is_pending():
    it = of(A, B)
    it.join(C)
    assert it.join(D) is None
    assert it.leave([B]) is None


def test_a_refused_change_is_dropped():
    it = of(A, B)
    it.join(C)
    it.not_applied()
    assert it.maximal == {A, B}
    assert it.join(C) is not None


@pytest.mark.parametrize("ask", [lambda it: it.join(C), lambda it: it.leave([B])])
def test_an_unknown_outcome_stays_pending_until_a_newer_value_is_seen(ask):
    it = of(A, B)
    ask(it)
    counted = it.maximal
    it.unknown()
    it.not_applied()  # of another attempt: the first may still be on its way
    assert it.maximal == counted
    assert it.join(D) is None
    assert not it.seen(value(A, B), 10)
    assert it.maximal == counted
    assert it.seen(value(A, B, epoch=1), 11)
    assert it.maximal == {A, B}
    assert it.join(D) is not None


def test_a_doubt_is_settled_by_writing_the_same_sets_again():
    it = of(A, B)
    assert it.settle() is None
    it.join(C)
    assert it.settle() is None  # the answer is still to come
    it.unknown()
    assert it.settle() == value(A, B, epoch=1)
    assert it.maximal == {A, B, C}


def test_an_older_value_changes_nothing():
    it = of(A, B)
    assert not it.seen(value(A), 9)
    assert it.maximal == {A, B}


def test_the_leader_never_leaves():
    with pytest.raises(AssertionError):
        of(A, B).leave([A])


def test_who_makes_the_set_too_small_stays_eligible():
    it = of(A, B, C)
    it.seen(it.leave([C]), 11)
    assert it.committed.elr == ()  # two are enough
    it.seen(it.leave([B]), 12)
    assert it.committed.elr == (B,)
    assert it.is_too_small
    it.seen(it.join(C), 13)
    assert it.committed.isr == (A, C)
    assert it.committed.elr == ()


def test_those_that_leave_together_are_all_eligible():
    assert of(A, B, C).leave([B, C]).elr == (B, C)


def test_who_returns_is_eligible_no_more_but_in_sync():
    it = of(A, min_isr=3, elr=(B, C))
    back = it.join(B)
    assert (back.isr, back.elr) == ((A, B), (C,))


def test_another_life_of_a_broker_takes_the_place_of_the_one_before():
    renewed = life(2, 1)
    back = of(A, B, min_isr=1).join(renewed)
    assert back.isr == (A, renewed)
    it = of(A, min_isr=2, elr=(B,))
    assert it.join(renewed).elr == ()


def test_who_is_unfit_is_not_eligible():
    it = of(A, B, C, min_isr=3)
    left = it.leave([B], [C])
    assert (left.isr, left.elr) == ((A,), (B,))
    it = of(A, min_isr=2, elr=(B,))
    assert it.leave([], [B]).elr == ()


def test_of_two_lives_that_left_only_the_newer_is_eligible():
    renewed = life(2, 1)
    it = of(A, renewed, min_isr=3, elr=(B,))
    assert it.leave([renewed]).elr == (renewed,)


steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave"]),
        st.integers(2, 4),
        st.sampled_from(["applied", "refused", "lost request", "lost reply"]),
    ),
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(steps, st.integers(1, 3))
def test_what_the_store_may_hold_is_never_more_than_what_counts(steps, min_isr):
    """The store decides; replies and requests get lost; requests may come late."""
    it = of(A, B, min_isr=min_isr)
    stored, revision, late = it.committed, 10, []

    def write(proposed, compared):
        nonlocal stored, revision
        if compared == revision:
            stored, revision = proposed, revision + 1

    for kind, broker, fate in steps:
        replica = life(broker)
        proposed = it.settle() or (it.join(replica) if kind == "join" else it.leave([replica]))
        if proposed is not None:
            if fate in ("applied", "lost reply"):
                write(proposed, it.revision)
            if fate == "lost request":
                late.append((proposed, it.revision))
            if fate == "applied":
                it.seen(stored, revision)
            elif fate == "refused":
                it.not_applied()
            else:
                it.unknown()
        if late and fate == "applied":
            write(*late.pop(0))
        assert set(stored.isr) <= it.maximal
        assert {*stored.isr, *stored.elr} <= it.electable
        if fate == "refused":
            it.seen(stored, revision)  # the watch brings it


def test_a_leader_that_cannot_go_on_leaves_to_those_in_sync_and_is_not_eligible():
    left = without_leader(value(A, B, C, epoch=4), 1)
    assert left == value(B, C, epoch=5)
    assert without_leader(left, 1) is None


def test_while_too_few_remain_those_who_were_eligible_stay_so():
    assert without_leader(value(A, B, elr=(C,), min_isr=2), 1) == value(B, elr=(C,), epoch=1)


def test_where_nobody_else_is_in_sync_those_take_its_place_who_have_everything():
    assert without_leader(value(A, elr=(B, C), min_isr=2), 1) == value(B, C, epoch=1)


def test_the_last_replica_that_has_everything_leaves_a_life_that_nobody_has():
    alone = without_leader(value(A, min_isr=2), 1)
    assert alone == value(A.damaged(), min_isr=2, epoch=1)
    assert alone.isr[0].damaged() == A


def test_a_leader_whose_data_is_whole_leaves_where_others_have_everything():
    assert without_leader(value(A, B, min_isr=2), 1, is_whole=True) == value(
        B, elr=(A,), min_isr=2, epoch=1
    )
    assert without_leader(value(A, B, C), 1, is_whole=True) == value(B, C, epoch=1)
    assert without_leader(value(A, min_isr=2), 1, is_whole=True) is None
