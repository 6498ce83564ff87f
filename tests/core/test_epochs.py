"""The epoch map against logs that have an epoch on every record."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.epochs import EpochEntry, EpochMap

# Runs of records in rising epochs; a run of none is a leader that wrote nothing.
runs = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=8)


def build(steps: list[tuple[int, int]]) -> tuple[EpochMap, list[int]]:
    """Return the map and the epoch of each record."""
    epochs, log, epoch = EpochMap(), [], -1
    for raised, count in steps:
        epoch += raised
        epochs.begin(epoch, len(log))
        log += [epoch] * count
    return epochs, log


def entries_of(log: list[int]) -> list[EpochEntry]:
    return [EpochEntry(e, n) for n, e in enumerate(log) if n == 0 or log[n - 1] != e]


def test_an_epoch_that_has_begun_does_not_begin_again():
    epochs = EpochMap()
    assert epochs.begin(3, 0)
    assert not epochs.begin(3, 5)
    assert epochs.entries() == [EpochEntry(3, 0)]


def test_an_older_epoch_never_begins():
    epochs = EpochMap([EpochEntry(3, 0)])
    with pytest.raises(AssertionError):
        epochs.begin(2, 5)


def test_an_epoch_never_begins_before_the_last_one():
    epochs = EpochMap([EpochEntry(3, 7)])
    with pytest.raises(AssertionError):
        epochs.begin(4, 6)


def test_an_epoch_without_records_gives_way_to_the_next():
    epochs = EpochMap([EpochEntry(1, 0), EpochEntry(2, 5), EpochEntry(4, 5)])
    assert epochs.entries() == [EpochEntry(1, 0), EpochEntry(4, 5)]
    assert epochs.latest == EpochEntry(4, 5)


def test_an_empty_map_knows_nothing():
    epochs = EpochMap()
    assert epochs.latest is None
    assert epochs.epoch_at(0) is None
    assert epochs.end_offset_for(4, 0) == (4, 0)


def test_a_newer_leadership_than_any_known_is_not_called_a_truncation():
    epochs = EpochMap([EpochEntry(1, 0)])
    with pytest.raises(Refusal) as caught:
        epochs.diverges(5, 2)
    assert caught.value.reason is Reason.UNKNOWN_LEADER_EPOCH
    with pytest.raises(Refusal):
        EpochMap().diverges(5, 2)


def test_a_replaced_suffix_is_found():
    # The reader read offsets 0-9 in epoch 1; epoch 2 began at 6, so 6-9 were replaced.
    epochs = EpochMap([EpochEntry(1, 0), EpochEntry(2, 6)])
    assert epochs.diverges(10, 1) == 6
    assert epochs.diverges(6, 1) is None


def test_an_epoch_that_left_no_record_here_is_a_truncation():
    epochs = EpochMap([EpochEntry(1, 0), EpochEntry(3, 6)])
    assert epochs.diverges(10, 2) == 6
    assert epochs.diverges(4, 2) == 4


def test_a_position_below_everything_known_is_not_a_truncation():
    epochs = EpochMap([EpochEntry(1, 0), EpochEntry(3, 6), EpochEntry(5, 9)])
    epochs.trim_to(7)
    assert epochs.diverges(6, 1) is None
    assert epochs.diverges(8, 1) == 6


@settings(max_examples=300, deadline=None)
@given(runs)
def test_the_map_is_strictly_rising_and_matches_the_records(steps):
    epochs, log = build(steps)
    entries = epochs.entries()
    assert all(a.leader_epoch < b.leader_epoch for a, b in pairwise(entries))
    assert all(a.start_offset < b.start_offset for a, b in pairwise(entries))
    assert [entry for entry in entries if entry.start_offset < len(log)] == entries_of(log)
    assert [epochs.epoch_at(n) for n in range(len(log))] == log
    assert EpochMap(entries).entries() == entries


@settings(max_examples=300, deadline=None)
@given(runs, st.integers(0, 25))
def test_an_epoch_ends_where_its_last_record_stands(steps, asked):
    epochs, log = build(steps)
    end = epochs.end_offset_for(asked, len(log))
    at_most = [entry.leader_epoch for entry in epochs.entries() if entry.leader_epoch <= asked]
    assert end.leader_epoch == (max(at_most) if at_most else asked)
    assert end.end_offset == sum(epoch <= asked for epoch in log)


@settings(max_examples=300, deadline=None)
@given(runs, st.integers(0, 30), st.integers(0, 30))
def test_truncating_and_trimming_leave_what_the_records_need(steps, cut, start):
    epochs, log = build(steps)
    cut = min(cut, len(log))
    start = min(start, cut)
    below = epochs.entries_below(cut)
    epochs.truncate_from(cut)
    assert epochs.entries() == below == entries_of(log[:cut])
    epochs.trim_to(start)
    assert [epochs.epoch_at(n) for n in range(start, cut)] == log[start:cut]
    # One entry reaches below the log start at most, and one stays when every record has gone.
    assert sum(entry.start_offset < start for entry in epochs.entries()) <= 1
    assert bool(epochs.entries()) == bool(below)
    assert epochs.latest == (below[-1] if below else None)


# Two logs that part at some offset and go on in epochs of their own, as after failovers in which
# neither leader knew the other; even epochs are one's, odd ones the other's.
@settings(max_examples=300, deadline=None)
@given(
    shared=runs,
    ours=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=5),
    theirs=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=5),
)
def test_a_reader_is_told_exactly_when_its_record_was_replaced(shared, ours, theirs):
    _, common = build(shared)
    first = (max(common, default=0) + 2) // 2 * 2
    logs = []
    for parity, steps in enumerate((ours, theirs)):
        epochs, log, epoch = EpochMap(entries_of(common)), list(common), first + parity
        for raised, count in steps:
            epoch += 2 * raised
            epochs.begin(epoch, len(log))
            log += [epoch] * count
        logs.append((epochs, log))
    (epochs, log), (_, read) = logs
    for position in range(1, len(read) + 1):
        epoch = read[position - 1]
        if epochs.latest is None or epoch > epochs.latest.leader_epoch:
            continue
        diverging = epochs.diverges(position, epoch)
        replaced = position > len(common)
        if replaced and epoch != epochs.latest.leader_epoch:
            assert diverging is not None
            # Never below what both have, unless the reader cannot know better; never above it
            # where the log shows that the record there is another one.
            assert len(common) <= diverging <= position
        else:
            assert diverging is None


@settings(max_examples=200, deadline=None)
@given(
    shared=runs,
    ours=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=5),
    theirs=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=5),
)
def test_a_follower_that_asks_in_rounds_ends_with_the_leaders_prefix(shared, ours, theirs):
    _, common = build(shared)
    first = (max(common, default=0) + 2) // 2 * 2
    maps = []
    for parity, steps in enumerate((ours, theirs)):
        epochs, log, epoch = EpochMap(entries_of(common)), list(common), first + parity
        for raised, count in steps:
            epoch += 2 * raised
            epochs.begin(epoch, len(log))
            log += [epoch] * count
        maps.append((epochs, log))
    (leader, leader_log), (follower, log) = maps
    rounds = 0
    while follower.latest is not None:
        rounds += 1
        assert rounds <= len(ours) + len(theirs) + len(shared) + 2
        asked = follower.latest.leader_epoch
        end = leader.end_offset_for(asked, len(leader_log))
        mine = follower.end_offset_for(end.leader_epoch, len(log))
        cut = min(end.end_offset, mine.end_offset, len(log))
        follower.truncate_from(cut)
        del log[cut:]
        if end.leader_epoch == asked:
            break
    assert log == leader_log[: len(log)]
    assert len(log) >= len(common) or not log
