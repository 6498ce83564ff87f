"""The fixed binary rows beside the batches, each with its version in the first byte.

All numbers are big-endian like those in keys. A version that is not known here was written by a
newer broker; reading on as if it were ours would guess, so it is damage.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.ports.log import CorruptData

_VERSION: Final = 1
_STATE: Final = struct.Struct(">B11q")
_EPOCH: Final = struct.Struct(">Bq")
_INDEX: Final = struct.Struct(">B4q")
_CLAIM: Final = struct.Struct(">BQQ")
_SLOT: Final = struct.Struct(">BI")
DEAD: Final = bytes([_VERSION])
RENEW: Final = bytes([_VERSION])

_STATE_FIELDS: Final = (
    "log_start_offset",
    "log_end_offset",
    "high_watermark",
    "max_timestamp_ms",
    "last_append_time_ms",
    "appended_bytes",
    "trimmed_bytes",
    "indexed_bytes",
    "indexed_append_time_ms",
    "interval_max_timestamp_ms",
    "accepted_epoch",
)
# The layout is for good, the class is not: a field more needs a new version of the row.
assert tuple(each.name for each in dataclasses.fields(LogState)) == _STATE_FIELDS


def pack_state(state: LogState) -> bytes:
    """Return the row of a partition's state."""
    return _STATE.pack(
        _VERSION,
        state.log_start_offset,
        state.log_end_offset,
        state.high_watermark,
        state.max_timestamp_ms,
        state.last_append_time_ms,
        state.appended_bytes,
        state.trimmed_bytes,
        state.indexed_bytes,
        state.indexed_append_time_ms,
        state.interval_max_timestamp_ms,
        state.accepted_epoch,
    )


def unpack_state(row: bytes) -> LogState:
    """Return a partition's state.

    Raises:
        CorruptData: it is something else.
    """
    fields = _unpack(_STATE, row, "partition state")
    if not 0 <= fields[0] <= fields[2] <= fields[1]:
        raise CorruptData(
            f"partition state: log start {fields[0]}, high watermark {fields[2]} and log end "
            f"{fields[1]} are not in order"
        )
    return LogState(*fields)


def pack_epoch(entry: EpochEntry) -> bytes:
    """Return the row of an epoch entry; the epoch itself is in the key."""
    return _EPOCH.pack(_VERSION, entry.start_offset)


def unpack_epoch(leader_epoch: int, row: bytes) -> EpochEntry:
    """Return an epoch entry.

    Raises:
        CorruptData: it is something else.
    """
    (start,) = _unpack(_EPOCH, row, "epoch entry")
    return EpochEntry(leader_epoch, start)


def pack_index(row: IndexRow) -> bytes:
    """Return a row of the sparse index; its offset is in the key."""
    return _INDEX.pack(
        _VERSION,
        row.append_time_ms,
        row.bytes_before,
        row.max_timestamp_before_ms,
        row.interval_max_timestamp_ms,
    )


def unpack_index(base_offset: int, row: bytes) -> IndexRow:
    """Return a row of the sparse index.

    Raises:
        CorruptData: it is something else.
    """
    return IndexRow(base_offset, *_unpack(_INDEX, row, "index row"))


def pack_claim(written: int, durable: int) -> bytes:
    """Return the row in every write: its own number, and the last one known to be on disk."""
    return _CLAIM.pack(_VERSION, written, durable)


def unpack_claim(row: bytes) -> tuple[int, int]:
    """Return (number of the write, number of the last write known to be on disk then).

    Raises:
        CorruptData: it is something else.
    """
    written, durable = _unpack(_CLAIM, row, "write number")
    return written, durable


def pack_slot(slot: int) -> bytes:
    """Return the row that names a partition's slot."""
    return _SLOT.pack(_VERSION, slot)


def unpack_slot(row: bytes) -> int:
    """Return a partition's slot.

    Raises:
        CorruptData: it is something else.
    """
    (slot,) = _unpack(_SLOT, row, "slot row")
    return slot


def _unpack(layout: struct.Struct, row: bytes, what: str) -> tuple[int, ...]:
    if not row or row[0] != _VERSION:
        found = row[0] if row else "nothing"
        raise CorruptData(f"{what}: version {found}, this broker knows {_VERSION}")
    if len(row) != layout.size:
        raise CorruptData(f"{what}: {len(row)} bytes, expected {layout.size}")
    return layout.unpack(row)[1:]
