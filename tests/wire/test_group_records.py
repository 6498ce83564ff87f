"""Records of the offsets topic: they come out as they went in, for good, and what is not known is not dropped."""

from __future__ import annotations

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from riverrun.v1.records_pb2 import ReceivedRecord
from riverrun_server.core.groups.members import (
    AssignmentRecord,
    AssignmentValue,
    Assignor,
    GroupRecord,
    GroupValue,
    MemberRecord,
    MemberValue,
)
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire.group_records import UnknownRecord, from_record, to_record
from riverrun_server.wire.v1 import internal_records_pb2 as wire
from tests.wire.first_version import OffsetCommitKey

T, U = b"t" * 16, b"u" * 16
MEMBER = MemberValue(
    instance_id="i-1",
    client_id="billing",
    address="10.0.0.1:5",
    topics=("a", "b"),
    pattern="x.*",
    rack="r",
    assignor=Assignor.RANGE,
    session_timeout_ms=10_000,
    revocation_timeout_ms=60_000,
    attachment=3,
    token=b"\x01\x02",
    is_away=True,
)
ASSIGNMENT = AssignmentValue(
    epoch=300,
    target=frozenset(PartitionId(T, n) for n in (0, 1, 2, 5)) | {PartitionId(U, 7)},
    owned={PartitionId(T, 0): 3, PartitionId(T, 1): 3, PartitionId(T, 2): 300},
    revoking={PartitionId(T, 9): 2, PartitionId(U, 7): 1},
)

# Whoever changes one of these cannot read what brokers have written.
GOLDEN = {
    "an offset": (
        OffsetRecord("g", PartitionId(T, 5), CommittedOffset(1000, 3, "m", 1_700_000_000_000)),
        f"0a0167 1210{T.hex()} 1805",
        "08e807 1003 1a016d 2080d095ffbc31",
    ),
    "an offset without epoch": (
        OffsetRecord("g", PartitionId(T, 0), CommittedOffset(0, None, "", 0)),
        f"0a0167 1210{T.hex()}",
        "",
    ),
    "an offset that was deleted": (
        OffsetRecord("g", PartitionId(T, 5), None),
        f"0a0167 1210{T.hex()} 1805",
        None,
    ),
    "a group": (
        GroupRecord("g", GroupValue(epoch=300, assignor=Assignor.RANGE, emptied_at_ms=5)),
        "0a0167 2001",
        "0801 10ac02 1802 2005",
    ),
    "a new group": (GroupRecord("g", GroupValue(epoch=0)), "0a0167 2001", "0801 1801"),
    "a group that was deleted": (GroupRecord("g", None), "0a0167 2001", None),
    "a member": (
        MemberRecord("g", "m", MEMBER),
        "0a0167 2002 2a016d",
        (
            "0801 1203692d31 1a0762696c6c696e67 220a31302e302e302e313a35 2a0161 2a0162 3203782e2a "
            "3a0172 4002 48904e 50e0d403 5803 62020102 6801"
        ),
    ),
    "a member that said little": (
        MemberRecord(
            "g",
            "m",
            MemberValue(session_timeout_ms=1, revocation_timeout_ms=2, attachment=1, token=b"\xff"),
        ),
        "0a0167 2002 2a016d",
        "0801 4801 5002 5801 6201ff",
    ),
    "a member that was deleted": (MemberRecord("g", "m", None), "0a0167 2002 2a016d", None),
    "an assignment": (
        AssignmentRecord("g", "m", ASSIGNMENT),
        "0a0167 2003 2a016d",
        (
            f"0801 10ac02 1a34 0a10{T.hex()} 1208 0a020000 1001 1803 1208 0a0102 1001 18ac02 "
            f"1205 0a0105 1001 1205 0a0109 2002 1a1b 0a10{U.hex()} 1207 0a0107 1001 2001"
        ),
    ),
    "an assignment of nothing": (
        AssignmentRecord("g", "m", AssignmentValue(epoch=1)),
        "0a0167 2003 2a016d",
        "0801 1001",
    ),
    "an assignment that was deleted": (
        AssignmentRecord("g", "m", None),
        "0a0167 2003 2a016d",
        None,
    ),
}

partitions = st.builds(
    PartitionId, st.sampled_from([T, U, bytes(16)]), st.integers(0, 20) | st.integers(0, 2**31 - 1)
)
counts = st.integers(0, 2**63 - 1)
names = st.text(max_size=12)
member_ids = st.text(min_size=1, max_size=12)


@st.composite
def assignments(draw):
    owned = draw(st.dictionaries(partitions, st.integers(0, 3) | counts, max_size=12))
    revoking = draw(st.dictionaries(partitions, st.integers(0, 3) | counts, max_size=12))
    return AssignmentValue(
        epoch=draw(counts),
        target=draw(st.frozensets(partitions, max_size=12))
        | draw(st.sampled_from([frozenset(), frozenset(owned)])),
        owned={each: since for each, since in owned.items() if each not in revoking},
        revoking=revoking,
    )


groups = st.builds(
    GroupValue,
    epoch=counts,
    assignor=st.sampled_from(Assignor),
    emptied_at_ms=st.none() | st.integers(-(2**63), 2**63 - 1),
)
members = st.builds(
    MemberValue,
    instance_id=names,
    client_id=names,
    address=names,
    topics=st.lists(names, max_size=4).map(tuple),
    pattern=names,
    rack=names,
    assignor=st.none() | st.sampled_from(Assignor),
    session_timeout_ms=counts,
    revocation_timeout_ms=counts,
    attachment=counts,
    token=st.binary(max_size=20),
    is_away=st.booleans(),
)
offsets = st.builds(
    CommittedOffset,
    counts,
    st.none() | st.integers(0, 2**31 - 1),
    names,
    st.integers(-(2**63), 2**63 - 1),
)
records = st.one_of(
    st.builds(OffsetRecord, names, partitions, st.none() | offsets),
    st.builds(GroupRecord, names, st.none() | groups),
    st.builds(MemberRecord, names, member_ids, st.none() | members),
    st.builds(AssignmentRecord, names, member_ids, st.none() | assignments()),
)


def identity(record):
    """Return everything but the value: what a later record has to share to replace this one."""
    return (type(record), *record[:-1])


def received(key, value):
    return ReceivedRecord(offset=17, key=key, value=value)


def stored(record):
    packed = to_record(record)
    return packed.key, packed.value if packed.HasField("value") else None


def read(key, value=None):
    """Return what a record says; the test fails on any exception that is not documented."""
    try:
        return from_record(received(key, value))
    except CorruptData as error:
        return error


@given(records)
def test_a_record_is_read_as_it_was_written(record):
    assert from_record(received(*stored(record))) == record


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_record_are_for_good(name):
    record, key, value = GOLDEN[name]
    assert stored(record) == (
        bytes.fromhex(key),
        None if value is None else bytes.fromhex(value),
    )
    assert from_record(received(*stored(record))) == record


@given(records, records)
def test_records_have_one_key_if_the_later_one_replaces_the_earlier_and_else_two(one, other):
    assert (stored(one)[0] == stored(other)[0]) == (identity(one) == identity(other))


@given(st.lists(records, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_damaged_bytes_are_another_record_or_corrupt_data(originals, random):
    data = [part for each in originals for part in stored(each) if part is not None]
    changed = bytearray(random.choice(data))
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(changed))
        match random.randint(0, 3):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randint(0, 7)
            case 1:
                changed.insert(at, random.randint(0, 255))
            case 2:
                del changed[at : at + random.randint(1, 5)]
            case _:
                changed[at:at] = random.choice(data)
    read(bytes(changed), random.choice([None, b"", *data]))
    read(random.choice(data), bytes(changed))


@given(st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_any_bytes_at_all_are_a_record_or_corrupt_data(key, value):
    read(key, value)
    for kind in range(4):
        ids = {"member_id": "m"} if kind > 1 else {}
        topic = {} if kind else {"topic_id": T}
        read(wire.OffsetsTopicKey(kind=kind, **ids, **topic).SerializeToString(), value)


KEY = {"group_id": "g"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ({}, None),
        ({"topic_id": b"short"}, None),
        ({"topic_id": T, "partition": -1}, None),
        ({"topic_id": T, "member_id": "m"}, None),
        ({"topic_id": T}, b"\xff"),
        ({"topic_id": T}, wire.OffsetCommitValue(version=-1)),
        ({"kind": 1, "topic_id": T}, None),
        ({"kind": 1, "partition": 1}, None),
        ({"kind": 1, "member_id": "m"}, None),
        ({"kind": 1}, b""),
        ({"kind": 1}, wire.GroupValue(version=1, epoch=1)),
        ({"kind": 1}, wire.GroupValue(version=1, assignor=1, epoch=-1)),
        ({"kind": 2}, None),
        ({"kind": 2, "member_id": "m", "topic_id": T}, None),
        ({"kind": 2, "member_id": "m"}, b""),
        ({"kind": 2, "member_id": "m"}, wire.MemberValue(version=1, attachment=-1)),
        ({"kind": 2, "member_id": "m"}, wire.MemberValue(version=1, session_timeout_ms=-1)),
        ({"kind": 2, "member_id": "m"}, wire.MemberValue(version=1, revocation_timeout_ms=-1)),
        ({"kind": 3}, None),
        ({"kind": 3, "member_id": "m"}, b""),
        ({"kind": 3, "member_id": "m"}, wire.AssignmentValue(version=1, epoch=-1)),
    ],
)
def test_what_no_version_writes_is_corrupt(key, value):
    data = value if value is None or isinstance(value, bytes) else value.SerializeToString()
    found = read(wire.OffsetsTopicKey(**KEY, **key).SerializeToString(), data)
    assert type(found) is CorruptData
    assert "offset 17" in str(found)


def test_a_key_that_is_no_text_is_corrupt():
    assert type(read(b"\x0a\x01\xff")) is CorruptData


# Field 15, a number: 1.
NEW_FIELD = b"\x78\x01"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (wire.OffsetsTopicKey(kind=4), None),
        (wire.OffsetsTopicKey(kind=4, topic_id=T), b"whatever"),
        (wire.OffsetsTopicKey(topic_id=T), wire.OffsetCommitValue(version=1)),
        (wire.OffsetsTopicKey(kind=1), wire.GroupValue(version=2, epoch=-1)),
        (wire.OffsetsTopicKey(kind=1), wire.GroupValue(version=1, assignor=3)),
        (wire.OffsetsTopicKey(kind=2, member_id="m"), wire.MemberValue(version=2)),
        (wire.OffsetsTopicKey(kind=2, member_id="m"), wire.MemberValue(version=1, assignor=3)),
        (wire.OffsetsTopicKey(kind=3, member_id="m"), wire.AssignmentValue(version=2)),
    ],
)
def test_what_a_newer_version_has_written_is_told_from_damage(key, value):
    data = value if value is None or isinstance(value, bytes) else value.SerializeToString()
    found = read(key.SerializeToString(), data)
    assert type(found) is UnknownRecord
    assert "offset 17" in str(found)
    assert "a newer version" in str(found)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_key_with_a_field_that_is_not_known_is_not_taken_for_the_key_without_it(name):
    key, value = stored(GOLDEN[name][0])
    assert type(read(key + NEW_FIELD, value)) is UnknownRecord


@given(records)
def test_a_value_with_a_field_that_is_not_known_says_the_same(record):
    key, value = stored(record)
    if value is not None:
        assert read(key, value + NEW_FIELD) == record


@given(records)
def test_the_first_version_reads_offsets_and_passes_over_everything_else(record):
    """It passed over every key without a topic id of 16 bytes."""
    key = OffsetCommitKey.FromString(stored(record)[0])
    if isinstance(record, OffsetRecord):
        assert (key.group_id, key.topic_id, key.partition) == (record.group_id, *record.partition)
        assert not UnknownFieldSet(key)
    else:
        assert key.topic_id == b""


@given(names, partitions, offsets)
def test_what_the_first_version_has_written_is_read(group_id, partition, value):
    key = OffsetCommitKey(
        group_id=group_id, topic_id=partition.topic_id, partition=partition.partition
    ).SerializeToString()
    record = OffsetRecord(group_id, partition, value)
    assert key == stored(record)[0]
    assert read(key, stored(record)[1]) == record
