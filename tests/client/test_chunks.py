"""Whatever send_many is given comes out whole, in order by partition, in batches of the right size."""

from __future__ import annotations

from itertools import chain
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun._core.chunks import Chunker
from riverrun._core.partitioner import route_maker
from riverrun._core.records import NewRecord, Record
from riverrun.errors import UsageError
from riverrun.v1.records_pb2 import RecordSet

NOW = 1_700_000_000_000
VALUE = st.one_of(st.none(), st.binary(max_size=60))
KEY = st.one_of(st.none(), st.binary(max_size=3))
ITEM = st.one_of(
    VALUE,
    st.tuples(KEY, VALUE),
    st.builds(
        NewRecord,
        VALUE,
        KEY,
        st.just((("h", b"1"),)),
        st.one_of(st.none(), st.integers(0, 2 * NOW)),
    ),
    st.builds(lambda v, k: Record("other", 3, 9, 5, k, v), VALUE, KEY),
)
ITEMS = st.one_of(
    st.lists(st.binary(max_size=60), max_size=80),
    st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=60)), max_size=80),
    st.lists(st.tuples(st.none(), st.binary(max_size=60)), max_size=80),
    st.lists(ITEM, max_size=80),
)


def parts(item):
    """What a record of this item must hold: key, value, time, headers."""
    if isinstance(item, (NewRecord, Record)):
        time = NOW if item.timestamp_ms is None else item.timestamp_ms
        return (item.key, item.value, time, tuple(item.headers))
    key, value = item if isinstance(item, tuple) else (None, item)
    return (key, value, NOW, ())


def decoded(data: bytes):
    return [
        (
            record.key if record.HasField("key") else None,
            record.value if record.HasField("value") else None,
            record.timestamp_ms,
            tuple((header.key, header.value) for header in record.headers),
        )
        for record in RecordSet.FromString(data).records
    ]


def chunker(partitions=1, partition=None, batch_bytes=60, limit=1 << 40, hold=1 << 40):
    return Chunker(
        route_maker("crc32")("t", partitions, 0),
        partition=partition,
        batch_bytes=batch_bytes,
        limit_bytes=lambda _: limit,
        hold_bytes=hold,
        now_ms=lambda: NOW,
    )


def everything(chunks: Chunker, items, run: int = 20):
    made = []
    for at in range(0, len(items), run):
        made += chunks.feed(items[at : at + run])
    return [*made, *chunks.drain()]


@given(items=ITEMS, partitions=st.integers(1, 5), run=st.integers(1, 30))
@settings(deadline=None, max_examples=300)
def test_nothing_is_lost_added_or_reordered_within_a_key(items, partitions, run):
    made = everything(chunker(partitions), items, run)
    by_partition = {}
    for chunk in made:
        rows = decoded(chunk.records)
        assert len(rows) == chunk.record_count
        assert chunk.first_timestamp_ms == rows[0][2]
        assert chunk.max_timestamp_ms == max(row[2] for row in rows)
        by_partition.setdefault(chunk.partition, []).extend(rows)
    wanted = [parts(item) for item in items]
    assert sorted(map(repr, wanted)) == sorted(
        map(repr, chain.from_iterable(by_partition.values()))
    )
    for partition, rows in by_partition.items():
        keyed = [row for row in rows if row[0] is not None]
        assert keyed == [
            row for row in wanted
            if row[0] is not None and crc32(row[0]) % partitions == partition
        ]  # fmt: skip
    if partitions == 1:
        assert by_partition.get(0, []) == wanted


@given(items=ITEMS)
@settings(deadline=None)
def test_a_named_partition_takes_all_in_order(items):
    made = everything(chunker(5, partition=3), items)
    assert {chunk.partition for chunk in made} <= {3}
    rows = [row for chunk in made for row in decoded(chunk.records)]
    assert rows == [parts(item) for item in items]


@given(items=ITEMS, limit=st.integers(1, 100))
@settings(deadline=None)
def test_batches_keep_to_the_smaller_limit_unless_one_record_is_larger(items, limit):
    for chunk in everything(chunker(limit=limit), items):
        assert chunk.record_count == 1 or len(chunk.records) <= min(limit, 60)


def test_batches_are_filled():
    made = everything(chunker(batch_bytes=10_000), [b"x" * 89] * 1000, run=100)
    assert all(len(chunk.records) > 9_800 for chunk in made[1:-1])


def test_batches_of_many_partitions_are_not_full_all_at_once():
    chunks = chunker(16, batch_bytes=10_000)
    items = [(b"%08d" % number, b"x" * 90) for number in range(20_000)]
    full_at = []
    for at in range(0, len(items), 20):
        full_at += [at for _ in chunks.feed(items[at : at + 20])]
    # Past the beginning, 16 batches become full in every 1,400 records or so.
    most = max(sum(1 for other in full_at if at <= other < at + 200) for at in full_at)
    assert len(full_at) > 150
    assert most <= 8


def test_a_batch_is_fed_with_what_it_lacks():
    chunks = chunker(batch_bytes=10_000)
    made, asked = [], []
    for _ in range(40):
        asked.append(chunks.wanted())
        made += chunks.feed([b"x" * 90] * asked[-1])
    assert asked[0] == 1
    assert {chunk.record_count for chunk in made} == {99}  # of 101 bytes each
    assert len(made) >= 38


def test_a_stretch_of_a_partition_is_encoded_before_its_batch_is_full():
    chunks = chunker(2, batch_bytes=1 << 20)
    pairs = [(b"%08d" % number, b"x" * 90) for number in range(1000)]
    assert list(chunks.feed(list(pairs))) == []
    held = list(chunks._filling.values())
    assert sum(filling.record_count for filling in held) == 1000
    assert [filling.items for filling in held] == [[], []]
    assert sum(chunk.record_count for chunk in chunks.drain()) == 1000


def test_times_of_a_batch_are_those_of_all_its_stretches():
    times = iter([NOW + 5, NOW + 9, NOW + 7])
    chunks = Chunker(
        route_maker("crc32")("t", 1, 0),
        partition=None,
        batch_bytes=1 << 20,
        limit_bytes=lambda _: 1 << 30,
        hold_bytes=1 << 30,
        now_ms=lambda: next(times),
    )
    for _ in range(3):
        assert list(chunks.feed([b"x" * 90] * 200)) == []
    (chunk,) = chunks.drain()
    assert (chunk.first_timestamp_ms, chunk.max_timestamp_ms) == (NOW + 5, NOW + 9)
    assert [row[2] for row in decoded(chunk.records)][::200] == [NOW + 5, NOW + 9, NOW + 7]


def test_records_without_a_key_go_round_by_batches():
    made = everything(chunker(3, batch_bytes=1000), [b"x" * 90] * 100, run=10)
    assert [chunk.partition for chunk in made[:6]] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("partitioner", ["crc32", "sticky", "round-robin", lambda t, k, v, n: 1])
def test_pairs_without_a_key_are_taken_as_their_values(partitioner, monkeypatch):
    def chunks():
        return Chunker(
            route_maker(partitioner)("t", 3, 0),
            partition=None,
            batch_bytes=1000,
            limit_bytes=lambda _: 1 << 40,
            hold_bytes=1 << 40,
            now_ms=lambda: NOW,
        )

    values = [b"x" * (number % 90) for number in range(500)]
    expected = everything(chunks(), values)
    with monkeypatch.context() as patched:
        # Row by row they would cost five times as much.
        patched.setattr(Chunker, "_rows", lambda *_: pytest.fail("they were taken one by one"))
        assert everything(chunks(), [(None, value) for value in values]) == expected


def test_what_is_gathered_for_many_partitions_is_bounded():
    chunks = chunker(64, batch_bytes=100_000, hold=5_000)
    items = [(b"%d" % number, b"x" * 90) for number in range(1000)]
    held = 0
    for at in range(0, len(items), 10):
        some = items[at : at + 10]
        held += len(some) - sum(chunk.record_count for chunk in chunks.feed(some))
        assert held * 100 <= 6_000


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("text", "record 5 of send_many is of type str"),
        (b"a" * 2 and ("k", b"v"), "the key is of type str"),
        ((b"k", "v"), "the value is of type str"),
        ((b"k", b"v", b"w"), "of type tuple"),
        (5, "of type int"),
        (NewRecord(b"v", headers=[("h", "text")]), "header"),
        (NewRecord(b"v", timestamp_ms=1.5), "timestamp"),
    ],
)
def test_what_cannot_be_sent_is_told_by_its_number_and_type(item, said):
    with pytest.raises(UsageError, match=said):
        everything(chunker(), [b"x"] * 5 + [item])
    for key in (b"k", None):
        with pytest.raises(UsageError):
            everything(chunker(4), [(key, b"v")] * 5 + [item])
