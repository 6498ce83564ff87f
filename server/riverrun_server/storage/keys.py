"""Where everything stands: the keys of the three kinds of column families.

A slot holds batches and nothing else, so that its keys only ever grow and compaction has nothing to
do but move files. All other rows of partitions share the family `index`; what belongs to the store
stands in `meta`. Every key of a partition begins with topic id and partition number, and every
lookup compares that prefix, so a slot that serves another partition now shows nothing of the last.
"""

from __future__ import annotations

import struct
from typing import Final

from riverrun_server.core.log.batch import PartitionId

INDEX: Final = "index"
META: Final = "meta"

TOPIC_ID_BYTES: Final = 16
PREFIX_BYTES: Final = TOPIC_ID_BYTES + 4
# No offset reaches this: offsets are below 2**63.
_BEYOND: Final = b"\xff" * 8
# Behind every key of a slot.
SLOT_END: Final = b"\xff" * (PREFIX_BYTES + 9)

_STATE: Final = b"\x01"
_EPOCH: Final = b"\x02"
_INDEX: Final = b"\x03"
_SNAPSHOT: Final = b"\x04"

# The all-zero topic id belongs to nobody, so this row is of the store itself.
CLAIM: Final = bytes(PREFIX_BYTES) + b"\x00"

_SLOT_OF: Final = b"\x01"
_DEAD: Final = b"\x02"
_TABLE: Final = b"\x03"
_RENEW: Final = b"\x04"

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


def slot_name(slot: int) -> str:
    """Return the name of a slot's column family."""
    return f"slot_{slot:04d}"


def slot_of_name(name: str) -> int | None:
    """Return the slot whose column family has this name, None where it is another family."""
    number = name.removeprefix("slot_")
    return int(number) if number != name else None


def prefix(partition: PartitionId) -> bytes:
    """Return what every key of a partition begins with."""
    assert len(partition.topic_id) == TOPIC_ID_BYTES, partition
    assert any(partition.topic_id), "the all-zero topic id is reserved"
    return partition.topic_id + _U32.pack(partition.partition)


def partition_of(key: bytes) -> PartitionId:
    """Return the partition that a key of a slot or of the index belongs to."""
    return PartitionId(key[:TOPIC_ID_BYTES], _U32.unpack_from(key, TOPIC_ID_BYTES)[0])


# Slots.


def batch(of: bytes, offset: int) -> bytes:
    """Return the key of the batch that begins at an offset of the partition with this prefix."""
    return of + _U64.pack(offset)


def batches_end(of: bytes) -> bytes:
    """Return a key behind every batch of a partition."""
    return of + _BEYOND


def offset_of(key: bytes) -> int:
    """Return the offset at the end of a key."""
    offset: int = _U64.unpack_from(key, len(key) - 8)[0]
    return offset


# The index.


def state(of: bytes) -> bytes:
    """Return the key of a partition's state."""
    return of + _STATE


def epoch(of: bytes, leader_epoch: int) -> bytes:
    """Return the key of an epoch entry."""
    return of + _EPOCH + _U32.pack(leader_epoch)


def epochs(of: bytes) -> tuple[bytes, bytes]:
    """Return the range of all epoch entries."""
    return of + _EPOCH, of + _INDEX


def epoch_of(key: bytes) -> int:
    """Return the leader epoch in the key of an epoch entry."""
    leader_epoch: int = _U32.unpack_from(key, PREFIX_BYTES + 1)[0]
    return leader_epoch


def index(of: bytes, offset: int) -> bytes:
    """Return the key of the index row at an offset."""
    return of + _INDEX + _U64.pack(offset)


def index_rows(of: bytes) -> tuple[bytes, bytes]:
    """Return the range of all index rows."""
    return of + _INDEX, of + _SNAPSHOT


def snapshot(of: bytes, offset: int) -> bytes:
    """Return the key of the producer snapshot at an offset."""
    return of + _SNAPSHOT + _U64.pack(offset)


def snapshots(of: bytes) -> tuple[bytes, bytes]:
    """Return the range of all producer snapshots."""
    return of + _SNAPSHOT, of + _SNAPSHOT + b"\xff" * 9


def rows(of: bytes) -> tuple[bytes, bytes]:
    """Return the range of everything that the index holds of a partition."""
    return of, of + b"\xff"


# The store itself.


def slot_of(of: bytes) -> bytes:
    """Return the key of the row that says which slot a partition occupies."""
    return _SLOT_OF + of


def slots() -> tuple[bytes, bytes]:
    """Return the range of the slot map."""
    return _SLOT_OF, _DEAD


def dead(slot: int, of: bytes) -> bytes:
    """Return the key of the row that says which batches of a dropped partition are in the way."""
    return _DEAD + _U32.pack(slot) + of


def dead_rows() -> tuple[bytes, bytes]:
    """Return the range of all dropped partitions."""
    return _DEAD, _TABLE


def dead_of(key: bytes) -> tuple[int, bytes]:
    """Return the slot and the partition's prefix in the key of a dropped partition."""
    return _U32.unpack_from(key, 1)[0], key[5:]


def table(name: bytes) -> bytes:
    """Return what every key of a table begins with."""
    assert 0 < len(name) < 256, name
    return _TABLE + bytes([len(name)]) + name


def renew(slot: int) -> bytes:
    """Return the key of the row that says that a slot has to be emptied at the next start."""
    return _RENEW + _U32.pack(slot)


def renewals() -> tuple[bytes, bytes]:
    """Return the range of all slots that have to be emptied."""
    return _RENEW, after(_RENEW)


def renewed_of(key: bytes) -> int:
    """Return the slot in the key of one that has to be emptied."""
    slot: int = _U32.unpack_from(key, 1)[0]
    return slot


def after(beginning: bytes) -> bytes:
    """Return the first key behind all that begin so."""
    stem = beginning.rstrip(b"\xff")
    assert stem, "nothing comes behind it"
    return stem[:-1] + bytes([stem[-1] + 1])
