"""The state of a log that is cut is the one it had when it ended there."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.log.batch import BatchHeader, PartitionId
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.ports.log import CorruptData
from riverrun_server.runtime.replication.cutting import state_below
from riverrun_server.storage.memory import MemoryStore
from tests.storage.world import encode, parse, scan

ID = PartitionId(b"t" * 16, 0)


def write(sizes, *, interval=300):
    """Return a log, its state, and the state that it had at each batch's beginning."""
    log = MemoryStore(parse, scan).open(ID)
    machine = PartitionMachine(
        LogState(), ProducerTable(1), leader_epoch=1, index_interval_bytes=interval
    )
    states = {}
    for number, (count, size) in enumerate(sizes):
        states[machine.log_end] = machine.state
        time_ms = 10_000_000 + number * 1_000
        stamp = machine.decide(BatchHeader(count, size, max_timestamp_ms=time_ms), None, time_ms)
        data = encode(stamp.base_offset, stamp.next_offset, 1, time_ms, bytes(size))
        rows = machine.rows(BatchHeader(count, size, max_timestamp_ms=time_ms), stamp, len(data))
        log.append(parse(data), rows.state, index=rows.index)
        machine.state = rows.state
    return log, machine.state, states


batches = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 200)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(batches, st.data())
def test_the_state_below_an_offset_is_what_it_was(sizes, data):
    log, state, states = write(sizes)
    offset = data.draw(st.sampled_from(sorted(states)))
    found = state_below(log, state, offset)
    if offset:
        assert found == states[offset]
    else:
        # The running totals of nothing do not matter; that the next batch gets a row does.
        assert (found.log_end_offset, found.appended_bytes) == (0, 0)


def test_what_was_trimmed_is_still_counted():
    log, state, states = write([(1, 50)] * 9, interval=10_000)
    trimmed = dataclasses.replace(
        state, log_start_offset=4, high_watermark=9, trimmed_bytes=states[4].appended_bytes
    )
    log.trim(trimmed, snapshot=(4, b""))
    found = state_below(log, trimmed, 7)
    assert found.appended_bytes == states[7].appended_bytes
    assert found.trimmed_bytes == trimmed.trimmed_bytes
    assert (found.log_end_offset, found.high_watermark) == (7, 7)


def test_after_a_cut_to_nothing_the_next_batch_gets_a_signpost():
    log, state, _ = write([(1, 50)] * 4)
    trimmed = dataclasses.replace(state, log_start_offset=2, high_watermark=2, trimmed_bytes=148)
    log.trim(trimmed, snapshot=(2, b""))
    machine = PartitionMachine(
        state_below(log, trimmed, 2), ProducerTable(1), leader_epoch=1, index_interval_bytes=10**9
    )
    header = BatchHeader(1, 10)
    rows = machine.rows(header, machine.decide(header, None, 10_000_000), 10)
    assert rows.index is not None or log.index_before(1) is not None


def test_a_missing_batch_is_damage():
    log, state, _ = write([(1, 50)] * 4, interval=10_000)
    stored = log._store.image.partitions[ID]
    del stored.bases[:], stored.batches[:]
    with pytest.raises(CorruptData):
        state_below(log, state, 2)
