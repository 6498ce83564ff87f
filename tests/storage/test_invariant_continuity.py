"""Nothing is written that leaves a hole, overlaps, or moves a bound where it may not go."""

from __future__ import annotations

import dataclasses

import pytest

from tests.storage.world import P0, Writer, batch, read_all


@pytest.fixture
def writer(any_world):
    """A log of offsets 0 to 9, trimmed to 4, committed to 8."""
    writer = Writer(any_world.store.open(P0))
    writer.many(5, count=2)
    writer.trim(4)
    writer.log.save(dataclasses.replace(writer.state, high_watermark=8))
    return writer


def is_refused(writer, write):
    """Check that a write is our own mistake, and that nothing of it happened."""
    before = writer.state, read_all(writer.log)
    with pytest.raises(AssertionError):
        write(writer.log)
    assert (writer.state, read_all(writer.log)) == before


@pytest.mark.parametrize("base", [8, 9, 11])
def test_a_batch_that_does_not_continue_the_log_is_not_written(writer, base):
    after = dataclasses.replace(writer.state, log_end_offset=base + 2)
    is_refused(writer, lambda log: log.append(batch(base, 2), after))


@pytest.mark.parametrize("end", [10, 11, 13])
def test_a_batch_is_not_written_with_another_end_than_its_own(writer, end):
    after = dataclasses.replace(writer.state, log_end_offset=end)
    is_refused(writer, lambda log: log.append(batch(10, 2), after))


def test_saving_the_state_moves_neither_end_nor_start(writer):
    for change in ({"log_end_offset": 9}, {"log_end_offset": 11}, {"log_start_offset": 5}):
        after = dataclasses.replace(writer.state, **change)
        is_refused(writer, lambda log, after=after: log.save(after))


@pytest.mark.parametrize("start", [0, 3])
def test_a_trim_does_not_bring_back_what_was_trimmed(writer, start):
    after = dataclasses.replace(writer.state, log_start_offset=start)
    is_refused(writer, lambda log: log.trim(after, snapshot=(10, b"producers")))


@pytest.mark.parametrize("end", [2, 12])
def test_a_truncation_ends_within_the_log(writer, end):
    start = min(end, 4)
    after = dataclasses.replace(
        writer.state, log_start_offset=start, high_watermark=start, log_end_offset=end
    )
    is_refused(writer, lambda log: log.truncate(after, []))
