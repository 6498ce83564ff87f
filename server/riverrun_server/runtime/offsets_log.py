"""One partition of the offsets topic: loading it, appending commits in order, keeping it short.

Everything that is appended goes through one lane: while one batch waits to become durable, the
next commits gather and go together. So at the moment of an append nothing else is on its way,
which is what makes a rewrite safe, and a commit that is tried again cannot overtake a later one.

What is known holds for one leader epoch. An append says at which offset it is to stand: where another
broker has led and appended in between, it is refused and everything is read anew. An answer to a reader
asks the partition first whether this broker still leads it, in the epoch that was loaded.

Not here: what the offsets are and when the log is too long (core/groups/offsets), when this broker
leads (runtime/coordinator), which partition belongs to a group (runtime/offsets).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import (
    CommittedOffset,
    CommittedOffsets,
    OffsetRecord,
    OffsetsLimits,
)
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.log import CorruptData
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.commit_queue import CommitQueue, OffsetsBatch
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.runtime.offsets_appends import OffsetsAppends, shutting_down, unknown
from riverrun_server.runtime.offsets_replay import NOT_YET, replay

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
        election_first_s: how long to wait at most before a partition is asked again whose leadership
            is only just beginning; doubled each time.
        election_max_s: where that ends.
    """

    limits: OffsetsLimits = field(default_factory=OffsetsLimits)
    batch_bytes: int = 256 << 10
    waiting_max: int = 1000
    read_bytes: int = 1 << 20
    retry_after_s: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    reload_first_s: float = 0.5
    reload_max_s: float = 10.0
    rewrite_again_after_s: float = 60.0
    election_first_s: float = 0.02
    election_max_s: float = 0.5


class OffsetsLog:
    """Drives the offsets of one partition of the offsets topic.

    Transitions: loading -> serving -> loading (an append of unknown outcome, or that does not fit;
    another leader epoch; a failed load) ... -> over (`end`, or `run` is cancelled).

    Args:
        access: the partition itself, as this broker leads it.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        exists: tells whether a partition whose offsets are held is still there.
        caught_up: returns once what the metadata said before is known to `exists`.
        loading: tells of failed loads, for all partitions together.
        dice: spreads what is tried again.
        settings: how it is driven.
        changed: called when everything is loaded, or known not to be.
    """

    def __init__(
        self,
        access: PartitionAccess,
        now_ms: Callable[[], int],
        threads: Threads,
        exists: Callable[[PartitionId], bool],
        caught_up: Callable[[], Awaitable[None]],
        loading: LoadingOutage,
        dice: Dice,
        settings: OffsetsLogSettings,
        changed: Callable[[], None],
    ) -> None:
        self.offsets = CommittedOffsets(settings.limits)
        self._access = access
        self._threads = threads
        self._exists = exists
        self._caught_up = caught_up
        self._loading = loading
        self._changed = changed
        self._settings = settings
        self._backoff = Backoff(dice.uniform, settings.reload_first_s, settings.reload_max_s)
        self._election = Backoff(dice.uniform, settings.election_first_s, settings.election_max_s)
        self._leader_epoch = -1
        self._may_forget = False
        self._appends = OffsetsAppends(access, now_ms, settings.retry_after_s)
        self._commits = CommitQueue(settings.waiting_max, settings.batch_bytes)
        self._wake = asyncio.Event()
        self._rewrite_at = 0.0
        self._over = shutting_down()

    def commit(
        self, group_id: str, records: list[OffsetRecord], leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Store offsets behind those of earlier calls; the future says when they are committed.

        Args:
            group_id: the group.
            records: of this group; all are stored, or none.
            leader_epoch: in which the caller believes that this broker leads, where it is another's.

        Raises:
            Refusal: COORDINATOR_LOADING, OVERLOADED, LIMIT_EXCEEDED, FENCED_LEADER_EPOCH,
                UNKNOWN_LEADER_EPOCH; the future also has why the append failed.
        """
        self.offsets.check_ready(group_id)
        self._check_epoch(leader_epoch)
        waiting = self._commits.put(group_id, records, self._access.max_batch_bytes)
        self._wake.set()
        return waiting

    async def committed(
        self, group_id: str, leader_epoch: int | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed, nothing older than what was acknowledged before.

        Raises:
            Refusal: COORDINATOR_LOADING; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH as `commit`; why
                the partition cannot tell that this broker still leads it.
        """
        self.offsets.check_ready(group_id)
        self._check_epoch(leader_epoch)
        # Who leads asks its lease, or the other replicas where that is over: nobody else can have
        # acknowledged a newer offset (what is known here is never more than what is committed).
        marks = await self._access.watermarks()
        if marks.leader_epoch != self._leader_epoch:
            self._forget()
        return self.offsets.committed(group_id)

    async def run(self) -> None:
        """Load and serve until cancelled."""
        try:
            while True:
                await self._load()
                await self._serve()
        finally:
            self.end(self._over)

    def end(self, why: Refusal) -> None:
        """Forget everything and refuse whoever waits; `run` is to be cancelled, or has been."""
        self._over = why
        self.offsets.reload()
        self.offsets.trouble = ""
        self._loading.gone(self._access.id)
        self._commits.close(why)

    def _check_epoch(self, leader_epoch: int | None) -> None:
        if leader_epoch is None or leader_epoch == self._leader_epoch:
            return
        older = leader_epoch < self._leader_epoch
        raise Refusal(
            Reason.FENCED_LEADER_EPOCH if older else Reason.UNKNOWN_LEADER_EPOCH,
            f"leader epoch {leader_epoch} was named and {self._access.id} is led in epoch "
            f"{self._leader_epoch}; ask again with the newer one",
        )

    def _forget(self) -> None:
        """Read everything anew: what is known may not be what the log says."""
        self.offsets.reload()
        # Their callers asked in the leadership that is being looked at; they may ask in the next one.
        self._commits.refuse(self.offsets.loading)
        self._wake.set()

    # Loading.

    async def _load(self) -> None:
        while True:
            self.offsets.reload()
            try:
                self._leader_epoch = await replay(
                    self._access, self.offsets, self._threads, self._settings.read_bytes
                )
            except (Refusal, CorruptData) as error:
                if isinstance(error, Refusal) and error.reason in NOT_YET:
                    self.offsets.trouble = ""
                    await asyncio.sleep(self._election.next_s())
                    continue
                self.offsets.trouble = str(error)
                self._changed()
                self._loading.failed(self._access.id, error)
                await asyncio.sleep(self._backoff.next_s())
                continue
            self._loading.recovered(self._access.id)
            self._backoff.reset()
            self._election.reset()
            self._changed()
            return

    # Serving.

    async def _serve(self) -> None:
        """Append what waits, again and again, until an append's outcome is unknown."""
        clock = asyncio.get_running_loop().time
        offsets = self.offsets
        while offsets.ready:
            if not offsets.rewriting and offsets.rewrite_due() and clock() >= self._rewrite_at:
                offsets.begin_rewrite()
                self._may_forget = await self._knows_topics()
                continue
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
        exists = self._exists if self._may_forget else _always
        return self.offsets.rewritten(self._settings.batch_bytes, exists)

    async def _knows_topics(self) -> bool:
        """Return whether a topic that is not known does not exist.

        Another broker may have taken a commit for a topic so new that it is not known here; the rewrite
        would delete it. Everything that stands below the rewrite's point was committed before now.
        """
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self._caught_up()
        except (Refusal, TimeoutError):
            return False
        return True

    async def _append(self, batch: OffsetsBatch) -> None:
        """Append one batch, wait until it is committed, and take it into account."""
        try:
            base = await self._appends.append(batch.packed, self.offsets.next_offset)
        except Refusal as refusal:
            if refusal.reason is Reason.EXPECTED_OFFSET_MISMATCH:
                # Another broker has led meanwhile, and this one again before anybody noticed.
                self._forget()
                refusal = self.offsets.loading(batch.records[0].group_id)
            elif refusal.reason in NOT_YET or not refusal.meaning.definite:
                self._forget()
            elif self.offsets.rewriting:
                self._give_up_rewrite(refusal)
            batch.fail(refusal)
        except asyncio.CancelledError:
            batch.fail(unknown(self._over))
            raise
        else:
            for at, record in enumerate(batch.records):
                self.offsets.replay(record, base + at)
            batch.succeed()

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


_CATCH_UP_S = 5.0


def _always(_: PartitionId) -> bool:
    return True
