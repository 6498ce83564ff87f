"""What one `send_many` says of all its records where some of them failed."""

from __future__ import annotations

import pytest

from riverrun import Reason, RetriableError, UsageError
from riverrun._net.receipts import Tally, TallyReceipt

REFUSED = UsageError("too large", reason=Reason.BATCH_TOO_LARGE)
LOST = RetriableError("not answered", reason=Reason.TIMED_OUT, outcome_known=False)


@pytest.fixture
def tally():
    return Tally("t")


def test_what_is_acknowledged_from_the_first_on_ends_at_the_first_that_failed(tally):
    first, second, third = (TallyReceipt(tally, 0, count, 100) for count in (5, 10, 3))
    third.acknowledged(0, 3, 15)
    # Halves of one batch: the second of them failed.
    second.failed(6, 4, REFUSED)
    second.acknowledged(0, 6, 5)
    first.acknowledged(0, 5, 0)
    told = tally.told(tally.error, in_order=True)
    assert (told.acknowledged_records, told.acknowledged_first) == (14, 11)
    assert told.reason is Reason.BATCH_TOO_LARGE
    assert told.outcome_known
    assert REFUSED.acknowledged_records == 0, (
        "an error that several calls share says nothing of one"
    )


def test_of_several_partitions_nobody_says_what_the_first_ones_are(tally):
    TallyReceipt(tally, 0, 5, 100).acknowledged(0, 5, 0)
    TallyReceipt(tally, 1, 5, 100).failed(0, 5, REFUSED)
    told = tally.told(tally.error, in_order=False)
    assert (told.acknowledged_records, told.acknowledged_first) == (5, None)


@pytest.mark.parametrize("order", [(REFUSED, LOST), (LOST, REFUSED)])
def test_the_outcome_is_known_only_where_it_is_of_all_that_failed(tally, order):
    for partition, error in enumerate(order):
        TallyReceipt(tally, partition, 1, 10).failed(0, 1, error)
    told = tally.told(tally.error, in_order=False)
    assert told.reason is order[0].reason
    assert not told.outcome_known


def test_a_call_that_fails_before_anything_was_refused_counts_all_that_was_acknowledged(tally):
    TallyReceipt(tally, 0, 4, 10).acknowledged(0, 4, 0)
    told = tally.told(REFUSED, in_order=True)
    assert (told.acknowledged_records, told.acknowledged_first) == (4, 4)
