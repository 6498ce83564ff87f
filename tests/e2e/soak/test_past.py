"""A reader of the past notices what retention took too early, and says nothing of what may go."""

from __future__ import annotations

import pytest

from riverrun.v1.consumer_pb2 import Delivery
from riverrun.v1.records_pb2 import ReceivedRecord
from tests.e2e.soak.ledger import Lane, value_of
from tests.e2e.soak.past import Past
from tests.e2e.soak.world import BY_SIZE, BY_TIME, KEPT_BYTES, KEPT_MS

NOW_MS = 1_000_000


def read(topic, begins_at, size=10, count=1, age_ms=0):
    past = Past(Lane(topic, 0))
    records = [
        ReceivedRecord(
            offset=begins_at + n,
            timestamp_ms=NOW_MS - age_ms + n,
            value=value_of("w", n, b"." * size),
        )
        for n in range(count)
    ]
    delivery = Delivery(topic=topic, first_offset=begins_at, records=records)
    assert past.take(delivery) == []
    return past.deleted_too_much(NOW_MS)


@pytest.mark.parametrize("topic", [BY_SIZE, BY_TIME])
def test_nothing_is_missing_where_the_first_record_is_there(topic):
    assert read(topic, 0) == []


def test_bytes_that_are_to_be_kept_are_missed():
    (found,) = read(BY_SIZE, 7, size=1_000, count=5)
    assert "begins at 7" in found
    assert read(BY_SIZE, 7, size=KEPT_BYTES[BY_SIZE] // 4, count=4) == []


def test_records_that_are_young_enough_to_be_kept_are_missed():
    (found,) = read(BY_TIME, 7, age_ms=KEPT_MS[BY_TIME] // 4)
    assert "7,500 ms old" in found
    assert read(BY_TIME, 7, age_ms=KEPT_MS[BY_TIME]) == []


def test_an_empty_log_that_was_written_is_missed_too():
    assert read(BY_TIME, 7, count=0)
    assert read(BY_SIZE, 7, count=0)


def test_a_record_that_is_left_out_is_told():
    past = Past(Lane(BY_SIZE, 0))
    records = [ReceivedRecord(offset=n, value=value_of("w", n, b"")) for n in (0, 2)]
    assert "not at 1" in past.take(Delivery(records=records))[0]
