"""Committed offsets: what replay makes of a log, and a rewrite that loses nothing wherever it ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import (
    OffsetCommit,
    check_commit,
    check_group_id,
    check_within,
)
from riverrun_server.core.groups.offsets import (
    CommittedOffset,
    CommittedOffsets,
    OffsetRecord,
    OffsetsLimits,
)
from riverrun_server.core.log.batch import PartitionId

A, B = (PartitionId(b"t" * 16, number) for number in range(2))
ALWAYS = lambda _: True  # noqa: E731 - a name for an argument


def record(group="g", partition=A, offset=1, metadata=""):
    return OffsetRecord(group, partition, CommittedOffset(offset, None, metadata, 0))


def replayed(*records, limits=None):
    offsets = CommittedOffsets(limits or OffsetsLimits())
    for at, each in enumerate(records):
        offsets.replay(each, at)
    offsets.loaded(0, len(records))
    return offsets


def test_the_last_record_of_a_partition_counts():
    offsets = replayed(record(offset=5), record(offset=3), record(partition=B, offset=9))
    assert {key: value.offset for key, value in offsets.committed("g").items()} == {A: 3, B: 9}
    assert offsets.count == 2


def test_a_record_without_a_value_deletes():
    offsets = replayed(record(), OffsetRecord("g", A, None), OffsetRecord("g", B, None))
    assert offsets.committed("g") == {}
    assert offsets.count == 0


def test_groups_do_not_see_each_other():
    offsets = replayed(record("g"), record("h", offset=2))
    assert offsets.committed("g")[A].offset == 1
    assert offsets.committed("nobody") == {}


def test_while_loading_nobody_is_told_that_there_is_no_offset():
    offsets = CommittedOffsets(OffsetsLimits())
    with pytest.raises(Refusal) as caught:
        offsets.committed("g")
    assert caught.value.reason is Reason.COORDINATOR_LOADING
    offsets.replay(record(), 0)
    offsets.loaded(0, 1)
    assert offsets.committed("g")
    offsets.reload()
    with pytest.raises(Refusal):
        offsets.committed("g")


def test_an_answer_does_not_change_behind_the_back_of_who_asked():
    offsets = replayed(record())
    answer = offsets.committed("g")
    offsets.replay(record(offset=7), 5)
    assert answer[A].offset == 1


def test_memory_is_bounded_in_entries_and_bytes():
    limits = OffsetsLimits(entries_max=2, bytes_max=10_000)
    offsets = replayed(record(), record(partition=B), limits=limits)
    offsets.check_room("g", *offsets.growth([record(offset=9)]))
    for group, metadata in (("h", ""), ("g", "x" * 10_000)):
        growth = offsets.growth([record(group, metadata=metadata)])
        with pytest.raises(Refusal) as caught:
            offsets.check_room(group, *growth)
        assert caught.value.reason is Reason.LIMIT_EXCEEDED


def test_shrinking_is_always_possible():
    limits = OffsetsLimits(entries_max=1, bytes_max=1000)
    offsets = replayed(record(), record("h", metadata="x" * 10_000), limits=limits)
    offsets.check_room("h", *offsets.growth([record("h")]))
    offsets.check_room("h", *offsets.growth([OffsetRecord("h", A, None)]))


def test_a_rewrite_is_due_when_the_log_is_much_longer_than_what_it_says():
    limits = OffsetsLimits(rewrite_records_min=10, rewrite_factor=4)
    assert not replayed(*[record()] * 10, limits=limits).rewrite_due()
    assert replayed(*[record()] * 11, limits=limits).rewrite_due()
    many = [record(f"g{n}") for n in range(5)]
    assert not replayed(*many * 4, limits=limits).rewrite_due()


def test_a_log_is_not_trimmed_while_something_live_stands_below_the_point():
    offsets = replayed(record(), record(partition=B))
    offsets.begin_rewrite()
    assert offsets.trimmable() is None
    for at, each in enumerate(offsets.rewritten(1 << 20, ALWAYS)):
        offsets.replay(each, 2 + at)
    assert offsets.trimmable() == 2


def test_offsets_of_partitions_that_are_gone_are_deleted_by_a_rewrite():
    offsets = replayed(record(), record(partition=B))
    offsets.begin_rewrite()
    again = offsets.rewritten(1 << 20, lambda partition: partition == A)
    assert again == [record(), OffsetRecord("g", B, None)]


def test_a_rewrite_goes_in_steps():
    offsets = replayed(*[record(f"g{n}") for n in range(10)])
    offsets.begin_rewrite()
    assert len(offsets.rewritten(1, ALWAYS)) == 1
    assert len(offsets.rewritten(200, ALWAYS)) == 4


@pytest.mark.parametrize("group", ["g", "a b:c/d", "größe", "x" * 249])
def test_a_group_may_have_any_printable_name(group):
    check_group_id(group)


@pytest.mark.parametrize("group", ["", "a\nb", "\x1b[31m", "x" * 250, "ö" * 125])
def test_a_group_with_an_empty_long_or_unprintable_name_is_refused(group):
    with pytest.raises(Refusal) as caught:
        check_group_id(group)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"offset": -1}, Reason.INVALID_REQUEST),
        ({"leader_epoch": -1}, Reason.INVALID_REQUEST),
        ({"metadata": "x" * 4097}, Reason.LIMIT_EXCEEDED),
        ({"metadata": "ö" * 2049}, Reason.LIMIT_EXCEEDED),
    ],
)
def test_a_commit_that_makes_no_sense_is_refused(fields, reason):
    with pytest.raises(Refusal) as caught:
        check_commit(OffsetCommit("t", b"", 0, 0)._replace(**fields))
    assert caught.value.reason is reason


def test_an_offset_up_to_the_log_end_may_be_committed_also_what_was_deleted():
    for offset in (0, 5, 10):
        check_within(OffsetCommit("t", b"", 0, offset), 5, 10)
    with pytest.raises(Refusal) as caught:
        check_within(OffsetCommit("t", b"", 0, 11), 5, 10)
    assert caught.value.available == (5, 10)


class Log:
    """A dumb log: what was appended, how much of it is durable, where it begins."""

    def __init__(self):
        self.records = []
        self.start = 0

    def state(self):
        """Return what a replay of what is there would say."""
        found = {}
        for each in self.records[self.start :]:
            found[each.group_id, each.partition] = each.value
        return {key: value for key, value in found.items() if value is not None}


commits = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([A, B]), st.integers(0, 9)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(commits, st.integers(1, 300)), max_size=40))
def test_at_no_point_of_a_rewrite_does_a_crash_lose_an_offset(script):
    """Commits between the steps of a rewrite; after each step a crash is looked at."""
    log, truth = Log(), {}
    offsets = CommittedOffsets(OffsetsLimits(rewrite_records_min=1, rewrite_factor=1))
    offsets.loaded(0, 0)

    def append(records):
        # A crash while this is on its way finds all of it or nothing.
        before = log.state()
        assert before == truth
        for each in records:
            offsets.replay(each, len(log.records))
            log.records.append(each)

    for each in script:
        if isinstance(each, list):
            records = [record(group, key, offset) for group, key, offset in each]
            append(records)
            truth.update({(r.group_id, r.partition): r.value for r in records})
        elif not offsets.rewriting:
            if offsets.rewrite_due():
                offsets.begin_rewrite()
        elif stale := offsets.rewritten(each, ALWAYS):
            append(stale)
        else:
            log.start = offsets.trimmable()
            offsets.end_rewrite(log.start)
        assert log.state() == truth
        live = {
            (group, key): value
            for group in "abc"
            for key, value in offsets.committed(group).items()
        }
        assert live == truth
