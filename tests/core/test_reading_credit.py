"""What a reader is ready to take, and whose turn it is."""

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.credit import CREDIT_MAX, UNLIMITED, Credit
from riverrun_server.core.reading.turns import Turns

A, B, C = (PartitionId(b"t" * 16, number) for number in range(3))


def test_unset_credit_is_no_limit_and_zero_is_none():
    assert Credit(None, None).is_open
    assert not Credit(0, None).is_open
    assert not Credit(None, 0).is_open
    assert Credit(1, 1).is_open


def test_a_batch_may_overdraw_credit_and_grants_pay_it_back():
    credit = Credit(10, None)
    credit.charge(25, 1000)
    assert (credit.records, credit.size_bytes) == (-15, None)
    credit.grant(15, None)
    assert not credit.is_open
    credit.grant(1, None)
    assert credit.is_open


def test_a_grant_of_one_kind_leaves_the_other_as_it_is():
    credit = Credit(0, 100)
    credit.grant(5, None)
    assert (credit.records, credit.size_bytes) == (5, 100)


def test_adding_to_no_limit_does_not_make_a_limit():
    credit = Credit(None, None)
    credit.grant(5, 5)
    credit.charge(100, 100)
    assert credit.is_open


def test_credit_does_not_overflow_the_wire():
    credit = Credit(CREDIT_MAX, None)
    credit.grant(CREDIT_MAX, None)
    assert credit.records == CREDIT_MAX


def test_after_half_close_credit_refills_to_the_most_that_was_ever_left():
    credit = Credit(10, None)
    credit.charge(12, 0)
    credit.refill()
    assert credit.records == 10
    credit.charge(7, 0)
    assert credit.records == 10


def test_after_half_close_a_reader_that_granted_nothing_still_gets_nothing():
    credit = Credit(0, None)
    credit.refill()
    assert not credit.is_open


def test_room_is_what_is_left_of_both_kinds():
    credit = Credit(10, None)
    credit.charge(15, 0)
    assert credit.room == (-5, UNLIMITED)


def served(turns, sizes, rounds):
    """Let each partition send pieces of its size for so long; return the bytes of each."""
    sent = dict.fromkeys(sizes, 0)
    for _ in range(rounds):
        partition = turns.current()
        sent[partition] += sizes[partition]
        turns.spend(partition, sizes[partition])
    return sent


def test_turns_are_equal_in_bytes_whatever_the_size_of_pieces():
    turns = Turns(1000)
    sizes = {A: 10, B: 1000, C: 3000}
    for partition in sizes:
        turns.add(partition)
    sent = served(turns, sizes, 30_000)
    assert max(sent.values()) - min(sent.values()) <= 2 * 3000


def test_coming_and_going_gains_nothing():
    turns = Turns(100)
    turns.add(A)
    turns.add(B)
    sent = {A: 0, B: 0}
    for _ in range(1000):
        partition = turns.current()
        size = 1000 if partition == A else 100
        sent[partition] += size
        turns.spend(partition, size)
        if partition == A:
            turns.discard(A)
            turns.add(A)
    assert sent[A] <= sent[B] + 1000


def test_nobody_has_a_turn_where_nobody_waits():
    turns = Turns(100)
    assert turns.current() is None
    turns.add(A)
    turns.add(A)
    assert len(turns) == 1
    turns.discard(A)
    turns.discard(A)
    assert turns.current() is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("as!d"), st.sampled_from([A, B, C])), max_size=60))
def test_whoever_waits_gets_a_turn_within_bounded_turns_of_the_others(script):
    turns = Turns(100)
    waiting = set()
    for action, partition in script:
        if action == "a":
            turns.add(partition)
            waiting.add(partition)
        elif action == "d":
            turns.discard(partition)
            waiting.discard(partition)
        elif (current := turns.current()) is not None:
            turns.spend(current, 350)
    assert len(turns) == len(waiting)
    seen = set()
    for _ in range(20):
        if (current := turns.current()) is not None:
            seen.add(current)
            turns.spend(current, 350)
    assert seen == waiting
