"""One partition of the offsets topic: loading it, taking turns, keeping it short.

Everything that is appended goes through one lane: while one turn waits to become durable, the next
calls gather and go together. So at the moment of an append nothing else is on its way, which is what
makes a rewrite safe, and a call that is tried again cannot overtake a later one.

What is known holds for one leader epoch. An append says at which offset it is to stand: where another
broker has led and appended in between, it is refused and everything is read anew. An answer that writes
nothing asks the partition first whether this broker still leads it, in the epoch that was loaded.

Not here: what offsets and groups are and when the log is too long (core/groups), what calls do
(runtime/group_calls, runtime/group_operations), when this broker leads (runtime/coordinator), which
partition belongs to a group (runtime/offsets).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.core.groups.offsets_partition import OffsetsPartition
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import BeatRefused, MemberBeat
from riverrun_server.ports.log import CorruptData
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.call_queue import Call, CallQueue
from riverrun_server.runtime.coordinator_services import CoordinatorServices
from riverrun_server.runtime.group_calls import take_beats
from riverrun_server.runtime.group_turn import Turn
from riverrun_server.runtime.held_back import HeldBack
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.runtime.member_feeds import MemberFeeds, elsewhere
from riverrun_server.runtime.offsets_appends import OffsetsAppends, shutting_down, unknown
from riverrun_server.runtime.offsets_expiry import OffsetsExpiry
from riverrun_server.runtime.offsets_log_settings import OffsetsLogSettings
from riverrun_server.runtime.offsets_replay import NOT_YET, replay
from riverrun_server.runtime.offsets_rewrite import OffsetsRewrite, knows_topics
from riverrun_server.runtime.resets import Resets

__all__ = ["OffsetsLog", "OffsetsLogSettings"]

T = TypeVar("T")

# Groups that are settled before others have their turn.
_SETTLED_AT_ONCE = 100


class OffsetsLog:
    """Drives one partition of the offsets topic.

    Transitions: loading -> serving -> loading (an append of unknown outcome, or that does not fit, or
    that failed and had groups in it; another leader epoch; a failed load) ... -> over (`end`, or `run`
    is cancelled).

    Args:
        access: the partition itself, as this broker leads it.
        services: what the coordinator's logs share.
        loading: tells of failed loads, for all partitions together.
        settings: how it is driven.

    Attributes:
        partition: what the log says.
        feeds: who is told what members have.
        resets: those that wait.
    """

    def __init__(
        self,
        access: PartitionAccess,
        services: CoordinatorServices,
        loading: LoadingOutage,
        settings: OffsetsLogSettings,
    ) -> None:
        self.partition = OffsetsPartition(settings.limits, services.make_groups)
        self.feeds = MemberFeeds()
        self.resets = Resets()
        self._access = access
        self._services = services
        self._loading = loading
        self._settings = settings
        dice = services.dice
        self._backoff = Backoff(dice.uniform, settings.reload_first_s, settings.reload_max_s)
        self._held = HeldBack(dice.uniform, settings.reload_first_s, settings.reload_max_s)
        self._election = Backoff(dice.uniform, settings.election_first_s, settings.election_max_s)
        self._leader_epoch = -1
        self._appends = OffsetsAppends(access, services.now_ms, settings.retry_after_s)
        self._calls = CallQueue(settings.waiting_max, settings.batch_bytes)
        self._expiry = OffsetsExpiry(settings.groups, settings.expiry_every_s)
        self._wake = asyncio.Event()
        self._between_turns = asyncio.Event()
        self._between_turns.set()
        self._topics_changed = False
        self._rewrite = OffsetsRewrite(
            self.partition,
            access,
            services,
            settings.batch_bytes,
            settings.rewrite_again_after_s,
        )
        self._over = shutting_down()

    # What is asked.

    def ask(self, call: Call[T], leader_epoch: int | None = None) -> asyncio.Future[T]:
        """Carry a call out behind earlier ones; the future has the answer once that is committed.

        Args:
            call: what is asked.
            leader_epoch: in which the caller believes that this broker leads, where it is another's.

        Raises:
            Refusal: COORDINATOR_LOADING, OVERLOADED, LIMIT_EXCEEDED, FENCED_LEADER_EPOCH,
                UNKNOWN_LEADER_EPOCH; the future also has why the append failed.
        """
        self._check(call.group_id, leader_epoch)
        if call.size_bytes > self._access.max_batch_bytes:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the offsets of this commit take {call.size_bytes} bytes and "
                f"{self._access.max_batch_bytes} are allowed; split it, or use shorter metadata",
            )
        waiting = self._calls.put(call)
        self._wake.set()
        return waiting

    def stir(self) -> None:
        """Look again at what waits for something else than its turn."""
        self._wake.set()

    async def committed(
        self, group_id: str, leader_epoch: int | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed, nothing older than what was acknowledged before.

        Raises:
            Refusal: COORDINATOR_LOADING; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH as `ask`; why
                the partition cannot tell that this broker still leads it.
        """
        self._check(group_id, leader_epoch)
        await self._check_leads()
        return self.partition.offsets.committed(group_id)

    async def beat(
        self, beats: Sequence[MemberBeat], leader_epoch: int | None = None
    ) -> Sequence[BeatRefused]:
        """Take note of members that are alive; return those whose beats did not count.

        They are taken note of at once, not behind a turn that waits for its replicas: who leads is still
        the one that may prolong a lease.

        Raises:
            Refusal: as `committed`; nobody's beat counts.
        """
        if not beats:
            return []
        groups = self.partition.groups
        self._check(beats[0].group_id, leader_epoch)
        refused = self._beat(beats)
        await self._check_leads()
        if refused and not self._between_turns.is_set():
            # They may be refused by what a turn has written that will never be committed.
            await self._between_turns.wait()
            again = [each.beat for each in refused]
            refused = self._beat(again) if groups is self.partition.groups else []
        if groups is not self.partition.groups:
            raise self.partition.offsets.loading(beats[0].group_id)
        return refused

    async def run(self) -> None:
        """Load and serve until cancelled."""
        unwatch = self._services.topics.watch(self._topics_are_new)
        try:
            while True:
                await self._load()
                await self._serve()
        finally:
            unwatch()
            self.end(self._over)

    def end(self, why: Refusal) -> None:
        """Forget everything and refuse whoever waits; `run` is to be cancelled, or has been."""
        self._over = why
        self._calls.close(why)
        self.resets.end(why)
        self.partition.reload()
        self.partition.offsets.trouble = ""
        self.feeds.end()
        self._loading.gone(self._access.id)
        self._between_turns.set()

    # Inside.

    def _beat(self, beats: Sequence[MemberBeat]) -> list[BeatRefused]:
        return take_beats(self.partition.groups, beats, self._services.now_ms())

    def _check(self, group_id: str, leader_epoch: int | None) -> None:
        self.partition.offsets.check_ready(group_id)
        if leader_epoch is None or leader_epoch == self._leader_epoch:
            return
        older = leader_epoch < self._leader_epoch
        raise Refusal(
            Reason.FENCED_LEADER_EPOCH if older else Reason.UNKNOWN_LEADER_EPOCH,
            f"leader epoch {leader_epoch} was named and {self._access.id} is led in epoch "
            f"{self._leader_epoch}; ask again with the newer one",
        )

    async def _check_leads(self) -> None:
        """Check that nobody else can have led when this was called.

        Who leads asks its lease, or the other replicas where that is over: nobody else can have
        acknowledged anything newer (what is known here is never more than what is committed).
        """
        epoch = self._leader_epoch
        marks = await self._access.watermarks()
        if marks.leader_epoch != self._leader_epoch:
            self._forget()
        if marks.leader_epoch != epoch:
            raise Refusal(
                Reason.FENCED_LEADER_EPOCH,
                f"{self._access.id} was led in epoch {epoch} when this was asked and is led in epoch "
                f"{marks.leader_epoch} now; ask again",
            )

    def _topics_are_new(self) -> None:
        self._topics_changed = True
        self._wake.set()

    def _forget(self) -> None:
        """Read everything anew: what is known may not be what the log says."""
        loading = self.partition.offsets.loading
        self.partition.reload()
        # Their callers asked in the leadership that is being looked at; they may ask in the next one.
        self._calls.refuse(loading)
        self.resets.end(elsewhere())
        self._wake.set()

    # Loading.

    async def _load(self) -> None:
        while True:
            self.partition.reload()
            try:
                await self._load_once()
            except (Refusal, CorruptData) as error:
                offsets = self.partition.offsets
                if isinstance(error, Refusal) and error.reason in NOT_YET:
                    offsets.trouble = ""
                    await asyncio.sleep(self._election.next_s())
                    continue
                offsets.trouble = str(error)
                self._services.changed(self._access.id)
                self._loading.failed(self._access.id, error)
                await asyncio.sleep(self._backoff.next_s())
                continue
            self._loading.recovered(self._access.id)
            self._backoff.reset()
            self._election.reset()
            self._services.changed(self._access.id)
            return

    async def _load_once(self) -> None:
        """Replay the log, and begin to answer.

        Raises:
            CorruptData, Refusal: it cannot be read now, or another leader epoch has begun meanwhile.
        """
        services, epoch = self._services, self._leader_epoch
        found = await replay(
            self._access, self.partition, services.threads, self._settings.read_bytes
        )
        if self.partition.groups.registry.groups:
            # Topics that are too new to be known here are not to be taken from their members.
            await knows_topics(services)
        await found.check_same(self._access)
        if found.leader_epoch != epoch:
            self.feeds.end()
        self._leader_epoch = found.leader_epoch
        self._topics_changed = False
        self.partition.groups.topics_changed(services.topics.current())
        now_ms = services.now_ms()
        self.partition.loaded(found.log_start_offset, found.end_offset, now_ms)
        self.feeds.reloaded(self.partition.groups, now_ms)

    # Serving.

    async def _serve(self) -> None:
        """Take turns, again and again, until an append's outcome is unknown."""
        partition = self.partition
        while partition.offsets.ready:
            if (why := self._held.why) is not None:
                self._calls.refuse_all(why)
                await self._stirred(self._held.left_s)
            elif self._rewrite.is_due:
                await self._rewrite.begin()
            elif self._rewrite.is_written:
                await self._rewrite.end()
            elif self._is_due():
                await self._turn()
            else:
                await self._rest()

    def _is_due(self) -> bool:
        groups = self.partition.groups
        deadline_ms = groups.next_deadline()
        return (
            not self._calls.is_empty
            or self.resets.has_orphans
            or self._topics_changed
            or self.partition.rewriting
            or not groups.is_settled
            or (deadline_ms is not None and deadline_ms <= self._services.now_ms())
            or self._expiry.is_due(asyncio.get_running_loop().time())
        )

    async def _rest(self) -> None:
        """Wait for a call, or for the time of something."""
        until_s = self._expiry.next_s(asyncio.get_running_loop().time())
        deadline_ms = self.partition.groups.next_deadline()
        if deadline_ms is not None:
            until_s = min(until_s, max(0.0, (deadline_ms - self._services.now_ms()) / 1000))
        await self._stirred(until_s)

    async def _stirred(self, within_s: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._wake.wait()

    async def _turn(self) -> None:
        """Carry out what waits and is due, and let it be known once it is committed."""
        turn = Turn(self.partition, self._services.now_ms())
        self._between_turns.clear()
        try:
            self._write(turn)
            await self._append(turn)
        finally:
            self._between_turns.set()
        await asyncio.sleep(0)  # others are not kept waiting for all that there is to do

    def _write(self, turn: Turn) -> None:
        groups = self.partition.groups
        if self._topics_changed:
            self._topics_changed = False
            groups.topics_changed(self._services.topics.current())
        self._calls.serve(turn)
        turn.write(groups.expire(turn.now_ms))
        if not turn.has_offsets and self._expiry.is_due(asyncio.get_running_loop().time()):
            self._expiry.write(turn)
        self._settle(turn)
        self.resets.write(turn)
        self._settle(turn)
        self._rewrite.write(turn)

    def _settle(self, turn: Turn) -> None:
        """Let partitions change hands; what is left over is due in the next turn."""
        if turn.size_bytes <= self._settings.batch_bytes:
            turn.write(self.partition.groups.settle(turn.now_ms, _SETTLED_AT_ONCE))

    async def _append(self, turn: Turn) -> None:
        """Append what a turn has written, wait until it is committed, and let it be known."""
        offset, groups = turn.base, self.partition.groups
        try:
            for records in turn.batches(self._access.max_batch_bytes):
                offset = await self._appends.append(records, offset) + len(records)
        except Refusal as refusal:
            turn.fail(self._failed(refusal, turn, offset))
        except asyncio.CancelledError:
            turn.fail(unknown(self._over))
            raise
        else:
            if groups is not self.partition.groups:
                # Another leadership was noticed while it was on its way, and may not know of it.
                turn.fail(unknown(elsewhere()))
                return
            if not turn.is_empty:
                self._held.worked()
            turn.succeed()
            groups.committed(self._services.now_ms())
            self.feeds.tell(groups)

    def _failed(self, refusal: Refusal, turn: Turn, offset: int) -> Refusal:
        """Take into account that a turn was not appended as a whole; return what its callers are told."""
        partition = self.partition
        if refusal.reason is Reason.EXPECTED_OFFSET_MISMATCH:
            # Another broker has led meanwhile, and this one again before anybody noticed.
            refusal = elsewhere()
            self._forget()
        elif refusal.reason in NOT_YET or not refusal.meaning.definite:
            self._forget()
        elif turn.has_groups:
            self._held.refused(refusal)  # else the groups would try it again at once
            self._forget()
        elif partition.rewriting:
            self._rewrite.give_up(refusal)
        return unknown(refusal) if offset > turn.base else refusal
