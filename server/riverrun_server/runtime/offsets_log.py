"""One partition of the offsets topic: loading it, appending commits in order, keeping it short.

Everything that is appended goes through one lane: while one batch waits to become durable, the
next commits gather and go together. So at the moment of an append nothing else is on its way,
which is what makes a rewrite safe, and a commit that is tried again cannot overtake a later one.

Not here: what the offsets are and when the log is too long (core/groups/offsets), which partition
belongs to a group (runtime/offsets).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from riverrun.v1.records_pb2 import Record
from riverrun_server.core.backoff import Backoff
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffsets, OffsetRecord, OffsetsLimits
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.log import CorruptData
from riverrun_server.ports.partitions import Acks, Append, Appended, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.commit_queue import CommitQueue, OffsetsBatch
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.wire.ingress import IngressLimits, pack
from riverrun_server.wire.offsets import read_batches

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsLogSettings:
    """How a partition of the offsets topic is driven.

    Attributes:
        limits: what it holds.
        batch_bytes: what a batch aims at; one commit alone may be larger.
        waiting_max: commits that may wait for the lane.
        read_bytes: how much of the log is read in one step.
        retry_after_s: the pauses before an append is tried again that the disk did not take; then
            its commits fail.
        reload_first_s: how long to wait at most before loading is tried again; doubled each time.
        reload_max_s: where that ends, and so how late a partition that has come back is noticed.
        rewrite_again_after_s: how long to leave a rewrite alone that could not be finished.
    """

    limits: OffsetsLimits = field(default_factory=OffsetsLimits)
    batch_bytes: int = 256 << 10
    waiting_max: int = 1000
    read_bytes: int = 1 << 20
    retry_after_s: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    reload_first_s: float = 0.5
    reload_max_s: float = 10.0
    rewrite_again_after_s: float = 60.0


class OffsetsLog:
    """Drives the offsets of one partition of the offsets topic.

    Transitions: loading -> serving -> loading (an append of unknown outcome, a failed load) ...
    until cancelled.

    Args:
        access: the partition.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        exists: tells whether a partition whose offsets are held is still there.
        loading: tells of failed loads, for all partitions together.
        dice: spreads what is tried again.
    """

    def __init__(
        self,
        access: PartitionAccess,
        now_ms: Callable[[], int],
        threads: Threads,
        exists: Callable[[PartitionId], bool],
        loading: LoadingOutage,
        dice: Dice,
        settings: OffsetsLogSettings,
    ) -> None:
        self.offsets = CommittedOffsets(settings.limits)
        self._access = access
        self._now_ms = now_ms
        self._threads = threads
        self._exists = exists
        self._loading = loading
        self._settings = settings
        self._backoff = Backoff(dice.uniform, settings.reload_first_s, settings.reload_max_s)
        self._commits = CommitQueue(settings.waiting_max, settings.batch_bytes)
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._rewrite_at = 0.0

    async def ready(self, timeout_s: float) -> None:
        """Wait until everything is loaded, or for so long; not where it is known to fail."""
        if not self.offsets.ready and not self.offsets.trouble and timeout_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()

    async def commit(self, group_id: str, records: list[OffsetRecord]) -> None:
        """Store offsets; returns when they are committed in the log.

        Raises:
            Refusal: COORDINATOR_LOADING, OVERLOADED, LIMIT_EXCEEDED, or why the append failed.
        """
        self.offsets.check_ready(group_id)
        waiting = self._commits.put(group_id, records, self._access.max_batch_bytes)
        self._wake.set()
        await waiting

    async def run(self) -> None:
        """Load and serve until cancelled."""
        try:
            while True:
                await self._load()
                await self._serve()
        finally:
            self._commits.close()

    # Loading.

    async def _load(self) -> None:
        while True:
            self._ready.clear()
            self.offsets.reload()
            try:
                await self._replay()
            except (Refusal, CorruptData) as error:
                self.offsets.trouble = str(error)
                self._loading.failed(self._access.id, error)
                await asyncio.sleep(self._backoff.next_s())
                continue
            self._loading.recovered(self._access.id)
            self._backoff.reset()
            self._ready.set()
            return

    async def _replay(self) -> None:
        """Replay the log up to the end that it has now; nobody else appends to it."""
        marks = await self._access.watermarks()
        end = marks.log_end_offset
        wake = asyncio.Event()
        cursor = self._access.cursor(marks.log_start_offset, wake.set)
        try:
            while cursor.position < end:
                wake.clear()
                chunk = cursor.take(self._settings.read_bytes)
                if chunk is None:
                    await wake.wait()
                    continue
                for logged in await self._threads.run(
                    read_batches, chunk.batches, chunk.first_offset
                ):
                    if logged.record is not None:
                        self.offsets.replay(logged.record, logged.offset)
        finally:
            cursor.close()
        self.offsets.loaded(marks.log_start_offset, end)

    # Serving.

    async def _serve(self) -> None:
        """Append what waits, again and again, until an append's outcome is unknown."""
        clock = asyncio.get_running_loop().time
        offsets = self.offsets
        while offsets.ready:
            if not offsets.rewriting and offsets.rewrite_due() and clock() >= self._rewrite_at:
                offsets.begin_rewrite()
            stale = self._stale()
            if offsets.rewriting and not stale:
                await self._trim()
            elif batch := self._commits.gather(offsets, stale):
                await self._append(batch)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _stale(self) -> list[OffsetRecord]:
        """Return live records that the rewrite has to append again, as many as fit a batch."""
        if not self.offsets.rewriting:
            return []
        return self.offsets.rewritten(self._settings.batch_bytes, self._exists)

    async def _append(self, batch: OffsetsBatch) -> None:
        """Append one batch, wait until it is committed, and take it into account."""
        try:
            base = await self._submit(batch.packed)
        except Refusal as refusal:
            batch.fail(refusal)
            if not refusal.meaning.definite:
                self._ready.clear()
                self.offsets.reload()
            elif self.offsets.rewriting:
                self._give_up_rewrite(refusal)
        except asyncio.CancelledError:
            batch.fail(_unknown())
            raise
        else:
            for at, record in enumerate(batch.records):
                self.offsets.replay(record, base + at)
            batch.succeed()

    async def _submit(self, records: list[Record]) -> int:
        """Return the first record's offset; a disk that is behind is given some time."""
        for pause_s in (*self._settings.retry_after_s, None):
            appended = await self._submit_once(records)
            error = appended.error
            if error is None:
                assert appended.base_offset is not None
                return appended.base_offset
            if pause_s is None or error.reason not in _TRY_AGAIN:
                raise error
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _submit_once(self, records: list[Record]) -> Appended:
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def answer(appended: Appended) -> None:
            if not done.done():
                done.set_result(appended)

        limits = IngressLimits(self._access.max_batch_bytes)
        batch = pack(records, limits, self._now_ms())
        self._access.submit(Append(batch, Acks.ALL, answer))
        return await done

    async def _trim(self) -> None:
        """End the rewrite: everything live stands above its point and is committed there."""
        point = self.offsets.trimmable()
        assert point is not None, "nothing is left to rewrite, so nothing live stands below"
        try:
            log_start = await self._access.trim(point)
        except Refusal as refusal:
            self._give_up_rewrite(refusal)
        else:
            self.offsets.end_rewrite(log_start)

    def _give_up_rewrite(self, refusal: Refusal) -> None:
        """Leave the log longer than it has to be; nothing is lost, and a later rewrite trims."""
        _log.warning(
            "offsets log cannot be shortened, will try again",
            partition=str(self._access.id),
            error=refusal.message,
        )
        self.offsets.end_rewrite(self.offsets.log_start_offset)
        clock = asyncio.get_running_loop().time
        self._rewrite_at = clock() + self._settings.rewrite_again_after_s


_TRY_AGAIN = frozenset({Reason.STORAGE_STALLED, Reason.OVERLOADED, Reason.NOT_ENOUGH_REPLICAS})


def _unknown() -> Refusal:
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        "the broker is shutting down and cannot tell whether the offsets were stored; ask "
        "FetchOffsets, or commit again",
    )
