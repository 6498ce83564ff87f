"""`group reset-offsets` where a partition refuses: which others were moved is looked up and said."""

from __future__ import annotations

import pytest

from riverrun import CommittedOffset, Reason, RetriableError, TopicPartition
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.group_reset import _store

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)
OFFLINE = RetriableError("t[1] is offline.", reason=Reason.PARTITION_OFFLINE)
GONE = RetriableError("no answer", reason=Reason.CONNECTION_LOST, outcome_known=False)


class StubbornAdmin:
    """Stores what it is let, refuses all calls to commit, and may not answer afterwards."""

    def __init__(self, stored, error=OFFLINE, silent=False):
        self.offsets = {FIRST: CommittedOffset(9), SECOND: CommittedOffset(9)}
        self._stored, self._error, self._silent = stored, error, silent

    async def reset_group(self, _group, offsets):
        self.offsets |= {where: CommittedOffset(offsets[where]) for where in self._stored}
        raise self._error

    async def group_offsets(self, _group, partitions):
        if self._silent:
            raise GONE
        return {where: self.offsets[where] for where in partitions}


async def complaint(admin):
    with pytest.raises(Complaint) as caught:
        await _store(admin, "g", {FIRST: 3, SECOND: 4})
    return caught.value


async def test_those_that_were_moved_are_named_and_it_has_partly_happened():
    told = await complaint(StubbornAdmin([FIRST]))
    assert told.message == "t[1] is offline; 1 of 2 partitions were moved: t[0]"
    assert (told.code, told.outcome) == (Exit.PARTLY, "partly happened")
    assert told.more["moved"] == [{"topic": "t", "partition": 0}]


async def test_where_none_was_moved_nothing_happened():
    told = await complaint(StubbornAdmin([]))
    assert told.message.endswith("; 0 of 2 partitions were moved")
    assert (told.code, told.outcome) == (Exit.UNAVAILABLE, "nothing happened")


async def test_where_nobody_answers_any_more_nobody_knows():
    told = await complaint(StubbornAdmin([FIRST], silent=True))
    assert "`riverrun group describe g`" in told.message
    assert (told.code, told.outcome) == (Exit.UNKNOWN_OUTCOME, "unknown")
    told = await complaint(StubbornAdmin([FIRST], error=GONE))
    assert (told.code, told.outcome) == (Exit.UNKNOWN_OUTCOME, "unknown")
