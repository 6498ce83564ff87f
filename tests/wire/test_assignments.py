"""Assignments as bytes: small for many partitions, the same for equal ones, and no bomb."""

from __future__ import annotations

import random

import pytest

from riverrun_server.core.groups.members import AssignmentValue
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.wire.assignments import assignment_bytes, assignment_from_bytes
from riverrun_server.wire.group_values import WrongValue
from riverrun_server.wire.v1 import internal_records_pb2 as wire

T = b"t" * 16
ALL = [PartitionId(T, number) for number in range(1000)]


def at_rest(partitions, since=None):
    since = since or (lambda _: 1000)
    return AssignmentValue(
        epoch=2000, target=frozenset(partitions), owned={each: since(each) for each in partitions}
    )


def value_of(**fields):
    topic = wire.AssignedTopic(topic_id=T, partitions=[wire.AssignedPartitions(**fields)])
    return wire.AssignmentValue(version=1, topics=[topic])


@pytest.mark.parametrize(
    ("name", "value", "bytes_max"),
    [
        ("all of a topic", at_rest(ALL), 1_050),
        ("every hundredth of many", at_rest([PartitionId(T, n * 100) for n in range(1000)]), 1_050),
        ("given at ten times", at_rest(ALL, lambda each: 1000 + each.partition % 10), 1_200),
        ("awaited", AssignmentValue(epoch=1, target=frozenset(ALL)), 1_050),
        ("to be given up", AssignmentValue(epoch=1, revoking=dict.fromkeys(ALL, 1)), 1_050),
    ],
)
def test_a_thousand_partitions_take_about_a_byte_each(name, value, bytes_max):
    data = assignment_bytes(value)
    assert len(data) < bytes_max, name
    assert assignment_from_bytes(data) == value


def test_a_partition_for_each_epoch_is_still_small():
    value = at_rest(ALL, lambda each: 1000 + each.partition)
    assert len(assignment_bytes(value)) < 12_000


def test_equal_assignments_have_equal_bytes():
    partitions = ALL[:50]
    expected = assignment_bytes(at_rest(partitions))
    for seed in range(5):
        random.Random(seed).shuffle(partitions)
        assert assignment_bytes(at_rest(partitions)) == expected


def test_the_highest_partition_can_be_assigned():
    value = at_rest([PartitionId(T, 0), PartitionId(T, 2**31 - 1)])
    assert assignment_from_bytes(assignment_bytes(value)) == value


def test_what_is_owned_and_to_be_given_up_at_once_is_never_written():
    with pytest.raises(AssertionError, match="owned and to be given up"):
        assignment_bytes(AssignmentValue(epoch=1, owned={ALL[0]: 1}, revoking={ALL[0]: 1}))


PAIR = wire.AssignedPartitions(gaps=[0, 0], is_target=True)


@pytest.mark.parametrize(
    "message",
    [
        value_of(gaps=[2**31], is_target=True),
        value_of(gaps=[2**31 - 1, 0], is_target=True),
        value_of(gaps=[2**32 - 1] * 3, is_target=True),
        value_of(gaps=[0], owned_since=-1),
        value_of(gaps=[0], revoking_since=-1),
        wire.AssignmentValue(version=1, topics=[wire.AssignedTopic(topic_id=b"short")]),
        wire.AssignmentValue(
            version=1, topics=[wire.AssignedTopic(topic_id=T, partitions=[PAIR, PAIR])]
        ),
        wire.AssignmentValue(
            version=1, topics=[wire.AssignedTopic(topic_id=T, partitions=[PAIR])] * 2
        ),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(message):
    with pytest.raises(WrongValue):
        assignment_from_bytes(message.SerializeToString())


def test_a_partition_counts_once_whatever_is_said_of_it():
    """What is revoking cannot be owned, though each could be said in a message of its own."""
    owned = wire.AssignedPartitions(gaps=[0], owned_since=1)
    revoking = wire.AssignedPartitions(gaps=[0], revoking_since=1)
    message = wire.AssignmentValue(
        version=1, topics=[wire.AssignedTopic(topic_id=T, partitions=[owned, revoking])]
    )
    with pytest.raises(WrongValue, match="twice"):
        assignment_from_bytes(message.SerializeToString())
