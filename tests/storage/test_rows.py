"""Keys and rows byte by byte: the format on disk is for good."""

from __future__ import annotations

import pytest

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import keys, rows
from riverrun_server.storage.watermark import Watermark

TOPIC = bytes.fromhex("00112233445566778899aabbccddeeff")
P = PartitionId(TOPIC, 258)
PREFIX = "00112233445566778899aabbccddeeff00000102"
MAX = 2**63 - 1


def test_keys_are_these_bytes():
    of = keys.prefix(P)
    assert of.hex() == PREFIX
    assert keys.batch(of, 5).hex() == PREFIX + "0000000000000005"
    assert keys.state(of).hex() == PREFIX + "01"
    assert keys.epoch(of, 7).hex() == PREFIX + "02" + "00000007"
    assert keys.index(of, 5).hex() == PREFIX + "03" + "0000000000000005"
    assert keys.snapshot(of, 5).hex() == PREFIX + "04" + "0000000000000005"
    assert keys.CLAIM.hex() == "00" * 21
    assert keys.slot_of(of).hex() == "01" + PREFIX
    assert keys.dead(3, of).hex() == "02" + "00000003" + PREFIX
    assert keys.table(b"ab") + b"key" == b"\x03\x02abkey"
    assert keys.slot_name(7) == "slot_0007"


def test_keys_tell_what_they_were_made_of():
    of = keys.prefix(P)
    assert keys.partition_of(keys.batch(of, 9)) == P
    assert keys.partition_of(keys.slot_of(of)[1:]) == P
    assert keys.offset_of(keys.batch(of, MAX)) == MAX
    assert keys.epoch_of(keys.epoch(of, 2**31 - 1)) == 2**31 - 1
    assert keys.dead_of(keys.dead(3, of)) == (3, of)


def test_ranges_hold_all_of_their_kind_and_nothing_else():
    of = keys.prefix(P)
    begin, end = keys.index_rows(of)
    assert begin <= keys.index(of, 0) < keys.index(of, MAX) < end <= keys.snapshot(of, 0)
    begin, end = keys.snapshots(of)
    assert begin <= keys.snapshot(of, 0) < keys.snapshot(of, MAX) < end
    begin, end = keys.epochs(of)
    assert keys.state(of) < begin <= keys.epoch(of, 0) < keys.epoch(of, 2**32 - 1) < end
    begin, end = keys.rows(of)
    after = keys.prefix(PartitionId(TOPIC, 259))
    assert begin <= keys.state(of) < keys.snapshot(of, MAX) < end <= keys.state(after)
    assert keys.batch(of, MAX) < keys.batches_end(of) < keys.batch(after, 0)
    assert keys.dead(0, of) >= keys.dead_rows()[0] > keys.slot_of(b"\xff" * 20)


def test_the_topic_id_of_nobody_is_refused():
    for topic in (bytes(16), b"short"):
        with pytest.raises(AssertionError):
            keys.prefix(PartitionId(topic, 0))


@pytest.mark.parametrize(
    ("beginning", "after"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\x03\xff\xff", b"\x04")]
)
def test_what_comes_after_a_beginning(beginning, after):
    assert keys.after(beginning) == after


STATE = LogState(1, 3, 2, 4, 5, 6, 7, 8, 9, -1, 11)


def test_rows_are_these_bytes():
    def q(number):
        return number.to_bytes(8, "big", signed=True).hex()

    numbers = (1, 3, 2, 4, 5, 6, 7, 8, 9, -1, 11)
    assert rows.pack_state(STATE).hex() == "01" + "".join(map(q, numbers))
    assert rows.pack_epoch(EpochEntry(7, 9)).hex() == "01" + q(9)
    assert rows.pack_index(IndexRow(5, 1, 2, -3, 4)).hex() == "01" + q(1) + q(2) + q(-3) + q(4)
    assert rows.pack_claim(2, 1).hex() == "01" + q(2) + q(1)
    assert rows.pack_slot(258).hex() == "0100000102"
    assert rows.DEAD.hex() == "01"


def test_rows_come_back():
    assert rows.unpack_state(rows.pack_state(STATE)) == STATE
    assert rows.unpack_epoch(7, rows.pack_epoch(EpochEntry(7, 9))) == EpochEntry(7, 9)
    row = IndexRow(5, 1, 2, -3, 4)
    assert rows.unpack_index(5, rows.pack_index(row)) == row
    assert rows.unpack_claim(rows.pack_claim(2**64 - 1, 1)) == (2**64 - 1, 1)
    assert rows.unpack_slot(rows.pack_slot(4095)) == 4095


@pytest.mark.parametrize(
    ("unpack", "row"),
    [
        (rows.unpack_state, rows.pack_state(STATE)),
        (lambda row: rows.unpack_epoch(1, row), rows.pack_epoch(EpochEntry(1, 1))),
        (lambda row: rows.unpack_index(1, row), rows.pack_index(IndexRow(1, 1, 1, 1, 1))),
        (rows.unpack_claim, rows.pack_claim(1, 1)),
        (rows.unpack_slot, rows.pack_slot(1)),
    ],
)
def test_what_is_no_row_of_ours_is_damage(unpack, row):
    with pytest.raises(CorruptData, match="version 2, this broker knows 1"):
        unpack(b"\x02" + row[1:])
    for wrong in (b"", row[:-1], row + b"\x00"):
        with pytest.raises(CorruptData):
            unpack(wrong)


def test_a_state_out_of_order_is_damage():
    row = bytearray(rows.pack_state(STATE))
    row[8] = 9
    with pytest.raises(CorruptData, match="not in order"):
        rows.unpack_state(bytes(row))


def test_a_watermark_is_these_bytes_and_comes_back():
    mark = Watermark(bytes(range(16)), 258, clean=True)
    packed = mark.pack()
    assert (
        packed[:-4].hex() == "5252574d" + "01" + "01" + bytes(range(16)).hex() + "00" * 6 + "0102"
    )
    assert len(packed) == 34
    assert Watermark.unpack(packed) == mark


def test_a_watermark_with_any_bit_flipped_is_damage():
    packed = Watermark(bytes(range(16)), 258, clean=False).pack()
    for at in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptData):
            Watermark.unpack(bytes(flipped))
    with pytest.raises(CorruptData):
        Watermark.unpack(packed[:-1])
