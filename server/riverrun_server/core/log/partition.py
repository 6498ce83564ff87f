"""The leader's machine of one partition: what an append becomes, and what is committed.

Intuition: `decide` looks, `rows` says what to write, and only after the write has returned does
`appended` change anything; so a failed write leaves the machine as it was. `synced` is told what
is on disk and moves the high watermark.

Not here: bytes, disk and waiting (runtime/partition), who leads (core/cluster).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.core.producers import Duplicate, ProducerTable

# About one signpost a MiB: a lookup by time and a step of retention look at no more than this.
INDEX_INTERVAL_BYTES = 1 << 20
# And at least one an hour: retention deletes up to a signpost, and where little is written the bytes
# alone would put them weeks apart.
INDEX_INTERVAL_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class AppendRows:
    """What goes with a batch into its write."""

    state: LogState
    index: IndexRow | None


class PartitionMachine:
    """One partition as its leader runs it.

    Invariants: log start <= high watermark <= durable end <= log end; the high watermark and the
    log start never go back; append times never go back.

    Transitions:
        decide(header) -> a Stamp, or a Duplicate, or a Refusal; nothing changes
        rows(header, stamp, size) -> what to write; nothing changes
        appended(header, stamp, rows): log end moves to the stamp's next offset
        synced(offset): the durable end moves up, and with one replica the high watermark with it
        committed(offset): the high watermark moves up
        cut(state): the log ends earlier, or begins anew
        trimmed(state): the log start moves up
    """

    def __init__(
        self,
        state: LogState,
        producers: ProducerTable,
        *,
        leader_epoch: int,
        index_interval_bytes: int = INDEX_INTERVAL_BYTES,
        replicated: bool = False,
    ) -> None:
        self.state = state
        self.producers = producers
        self.leader_epoch = leader_epoch
        self.durable_end = state.high_watermark
        # A follower that began with a leader's snapshot knows producers of records yet to come.
        self.producers_known_to = 0
        self._index_interval = index_interval_bytes
        self._replicated = replicated

    @property
    def log_start(self) -> int:
        """The first offset that can be read."""
        return self.state.log_start_offset

    @property
    def log_end(self) -> int:
        """The offset that the next record gets."""
        return self.state.log_end_offset

    @property
    def high_watermark(self) -> int:
        """What lies below it is committed."""
        return self.state.high_watermark

    @property
    def size_bytes(self) -> int:
        """How many bytes of batches are stored."""
        return self.state.appended_bytes - self.state.trimmed_bytes

    def decide(
        self, header: BatchHeader, expected_offset: int | None, now_ms: int
    ) -> Stamp | Duplicate:
        """Return the stamp for a batch, or that it has been written before; nothing changes.

        A duplicate is recognised before `expected_offset` is looked at: the retry of an append
        that succeeded must succeed (KIP-98's rule, and what makes optimistic appends retriable).

        Raises:
            Refusal: of the producer's sequence, or EXPECTED_OFFSET_MISMATCH.
        """
        fresh = self.producers.check(header)
        if isinstance(fresh, Duplicate):
            return fresh
        state = self.state
        base = state.log_end_offset
        if expected_offset is not None and expected_offset != base:
            raise Refusal(
                Reason.EXPECTED_OFFSET_MISMATCH,
                f"the log ends at offset {base} and the request expected {expected_offset}; read "
                "what was appended in between and decide again",
                available=(state.log_start_offset, base),
            )
        append_time = max(now_ms, state.last_append_time_ms)
        return Stamp(
            base,
            header.record_count - 1,
            self.leader_epoch,
            append_time,
            max(state.max_timestamp_ms, header.max_timestamp_ms or append_time),
        )

    def rows(self, header: BatchHeader, stamp: Stamp, stored_bytes: int) -> AppendRows:
        """Return what to write beside a batch of `stored_bytes`; nothing changes."""
        state = self.state
        assert stamp.base_offset == state.log_end_offset, (stamp, state)
        latest = header.max_timestamp_ms or stamp.append_time_ms
        index, indexed, interval_max = None, state.indexed_bytes, state.interval_max_timestamp_ms
        indexed_at = state.indexed_append_time_ms
        if (
            not state.appended_bytes
            or state.appended_bytes - indexed >= self._index_interval
            or stamp.append_time_ms - indexed_at >= INDEX_INTERVAL_MS
        ):
            index = IndexRow(
                stamp.base_offset,
                stamp.append_time_ms,
                state.appended_bytes,
                state.max_timestamp_ms,
                interval_max,
            )
            indexed, indexed_at, interval_max = state.appended_bytes, stamp.append_time_ms, 0
        return AppendRows(
            LogState(
                state.log_start_offset,
                stamp.next_offset,
                state.high_watermark,
                stamp.partition_max_timestamp_ms,
                stamp.append_time_ms,
                state.appended_bytes + stored_bytes,
                state.trimmed_bytes,
                indexed,
                indexed_at,
                max(interval_max, latest),
                state.accepted_epoch,
            ),
            index,
        )

    def appended(self, header: BatchHeader, stamp: Stamp, rows: AppendRows) -> None:
        """Take a written batch into account."""
        if stamp.base_offset >= self.producers_known_to:
            self.producers.appended(header, stamp)
        self.state = rows.state

    def synced(self, offset: int) -> bool:
        """Take into account what is on disk; return whether the high watermark moved.

        With one replica in sync the high watermark is that replica's durable end; with more, others
        have a say and `committed` tells.
        """
        assert offset <= self.log_end, (offset, self.state)
        if offset <= self.durable_end:
            return False
        self.durable_end = offset
        return False if self._replicated else self.committed(offset)

    def committed(self, offset: int) -> bool:
        """Take into account what is committed; return whether the high watermark moved."""
        assert offset <= self.durable_end, (offset, self.durable_end, self.state)
        if offset <= self.state.high_watermark:
            return False
        self.state = self.state.committed_to(offset)
        return True

    def cut(self, state: LogState) -> None:
        """Take a written truncation into account: what is behind its end is not there any more.

        One that begins anew at a later offset has the durable end behind it until the next sync.
        """
        self.state = state
        self.durable_end = min(self.durable_end, state.log_end_offset)

    def bytes_below(self, offset: int, row: IndexRow | None) -> int:
        """Return how many bytes of batches lie whole below an offset, as far as signposts tell.

        Args:
            offset: in the log, or its end.
            row: the last signpost at or below it.
        """
        if offset == self.log_end:
            return self.state.appended_bytes
        return self.state.trimmed_bytes if row is None else row.bytes_before

    def trim_plan(self, before_offset: int, trimmed_bytes: int) -> LogState | None:
        """Return the state after a trim, or None where there is nothing to do.

        Args:
            before_offset: records before it go; -1 is all that is committed.
            trimmed_bytes: of all batches that lie whole below it, since the partition began.

        Raises:
            Refusal: OFFSET_OUT_OF_RANGE above the high watermark: what is not committed cannot be
                deleted (it may yet be the only copy).
        """
        state = self.state
        target = state.high_watermark if before_offset == -1 else before_offset
        if target > state.high_watermark or target < 0:
            raise Refusal(
                Reason.OFFSET_OUT_OF_RANGE,
                f"cannot trim before offset {before_offset}: the partition has offsets "
                f"{state.log_start_offset} to {state.high_watermark} (committed); give one of "
                "these, or -1 for all",
                available=(state.log_start_offset, state.high_watermark),
            )
        if target <= state.log_start_offset:
            return None
        return replace(
            state,
            log_start_offset=target,
            trimmed_bytes=max(state.trimmed_bytes, trimmed_bytes),
        )

    def trimmed(self, state: LogState) -> None:
        """Take a written trim into account; `state` came from `trim_plan` with nothing between."""
        assert state.log_end_offset == self.state.log_end_offset, (state, self.state)
        assert state.log_start_offset >= self.state.log_start_offset, (state, self.state)
        self.state = state

    def readable(self, offset: int) -> None:
        """Check that a reader may stand at an offset; between the watermark and the end it waits.

        Raises:
            Refusal: OFFSET_OUT_OF_RANGE below the log start or above the log end.
        """
        state = self.state
        if state.log_start_offset <= offset <= state.log_end_offset:
            return
        side = "was deleted" if offset < state.log_start_offset else "does not exist yet"
        raise Refusal(
            Reason.OFFSET_OUT_OF_RANGE,
            f"offset {offset} {side}: {_extent(state)}",
            available=(state.log_start_offset, state.log_end_offset),
        )


def _extent(state: LogState) -> str:
    """Say which records there are, and where the next one comes."""
    first, following = state.log_start_offset, state.log_end_offset
    if first == following:
        return f"the partition has no records, the next will be {following}"
    return f"the first record is {first}, the last is {following - 1}, the next will be {following}"
