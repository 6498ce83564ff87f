"""What replicas say to each other comes out of the wire as it went in, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.replication.messages import (
    Acked,
    Diverged,
    Follow,
    Push,
    Refused,
    Restart,
)
from riverrun_server.peer.messages import (
    InvalidMessage,
    from_follower,
    from_leader,
    to_follower,
    to_leader,
)
from riverrun_server.peer.v1 import replication_pb2 as wire
from tests.peer.batches import batch

offsets = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 2**63 - 1)
partitions = st.builds(PartitionId, st.binary(min_size=16, max_size=16), st.integers(0, 2**31 - 1))
refusals = st.builds(
    Refused,
    partitions,
    epochs,
    st.sampled_from(
        [
            Reason.FENCED_LEADER_EPOCH,
            Reason.UNKNOWN_LEADER_EPOCH,
            Reason.NOT_LEADER,
            Reason.PARTITION_OFFLINE,
            Reason.CORRUPT_DATA,
        ]
    ),
)


@st.composite
def pushes(draw):
    base = at = draw(st.integers(0, 1 << 40))
    batches = []
    for count in draw(st.lists(st.integers(1, 1000), max_size=4)):
        batches.append(batch(at, count))
        at += count
    return Push(
        draw(partitions),
        draw(epochs),
        draw(st.none() | epochs),
        tuple(batches),
        draw(offsets),
        draw(offsets),
        draw(offsets),
        base,
    )


followers = st.one_of(
    st.builds(Follow, partitions, epochs, offsets, st.none() | epochs),
    st.builds(Acked, partitions, epochs, offsets, offsets),
    refusals,
)
leaders = st.one_of(
    pushes(),
    st.builds(Diverged, partitions, epochs, epochs, offsets, st.none() | epochs),
    st.builds(
        Restart,
        partitions,
        epochs,
        offsets,
        st.lists(st.builds(EpochEntry, epochs, offsets), max_size=3).map(tuple),
        st.none() | st.tuples(offsets, st.binary(max_size=20)),
    ),
    refusals,
)


@given(st.lists(followers, max_size=5))
def test_what_a_follower_says_arrives(messages):
    data = to_leader(messages).SerializeToString()
    assert from_follower(wire.ReplicateRequest.FromString(data)) == messages


@given(st.lists(leaders, max_size=5))
def test_what_a_leader_says_arrives(messages):
    data = to_follower(messages).SerializeToString()
    assert from_leader(wire.ReplicateResponse.FromString(data)) == messages


def test_what_a_newer_version_says_is_passed_over():
    newer = wire.ReplicateRequest()
    newer.messages.add(topic_id=bytes(16), partition=0, leader_epoch=1)
    newer.messages.add(topic_id=bytes(16)).refusal.reason = "SOMETHING_NEW"
    newer.messages.add(topic_id=bytes(16)).follow.log_end = 5
    assert from_follower(newer) == [Follow(PartitionId(bytes(16), 0), 0, 5, None)]


@pytest.mark.parametrize(
    "fields",
    [
        {"topic_id": b"short"},
        {"topic_id": bytes(16), "partition": -1},
        {"topic_id": bytes(16), "leader_epoch": -1},
        {"topic_id": bytes(16), "follow": wire.Follow(log_end=-1)},
        {"topic_id": bytes(16), "acked": wire.Acked(durable_end=-1)},
    ],
)
def test_what_no_follower_says_ends_the_stream(fields):
    with pytest.raises(InvalidMessage):
        from_follower(wire.ReplicateRequest(messages=[wire.FollowerMessage(**fields)]))


@pytest.mark.parametrize(
    ("push", "said"),
    [
        (wire.Push(batches=[b"\xff"]), "no batch"),
        (wire.Push(base_offset=4, batches=[batch(5).data]), "offsets 5 to 6 where one of 4 is due"),
        (wire.Push(batches=[batch(0).data, batch(2).data]), "where one of 1 is due"),
        (wire.Push(batches=[batch(0, 0).data]), "offsets 0 to 0 where one of 0 is due"),
        (wire.Push(high_watermark=-1), "the offset -1"),
    ],
)
def test_a_push_that_does_not_continue_is_refused(push, said):
    response = wire.ReplicateResponse(messages=[wire.LeaderMessage(topic_id=bytes(16), push=push)])
    with pytest.raises(InvalidMessage, match=said):
        from_leader(response)
