"""One member's stream at its gateway: follows its coordinator, and has its reader do what that says.

The coordinator may move, or be away: then the stream attaches to the next one with the member's token, and
whatever was missed is made up for by the first view. Nothing is delivered without a lease.

Not here: what changes and when the lease ends (core/gateway/membership), what the reader is told and when
(runtime/assigned_partitions), beats (runtime/beats), messages (rpc/member_streams).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.gateway.heard_heartbeats import HeardHeartbeats
from riverrun_server.core.gateway.membership import Change, Given, Lost, Membership, Revoking
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.joining import Reattach
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome, Joined
from riverrun_server.core.reading.places import Place
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.coordination import MemberBeat
from riverrun_server.ports.membership import Attachment, Coordination, CoordinatorTerm
from riverrun_server.ports.partitions import Directory
from riverrun_server.runtime.acknowledging import Acknowledging
from riverrun_server.runtime.member_partitions import MemberPartitions
from riverrun_server.runtime.reader import Reader

# With these the stream is over; with everything else it attaches anew.
_FINAL: Final = frozenset({Reason.UNKNOWN_MEMBER, Reason.MEMBER_TAKEN_OVER})
_AGAIN_FIRST_S: Final = 0.05
_AGAIN_MAX_S: Final = 1.0

Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class _Committer:
    """Implements ports.membership.Committer for what comes on a member's stream."""

    def __init__(self, stream: MemberStream, epoch: int) -> None:
        self._stream = stream
        self.epoch = epoch

    @property
    def member_id(self) -> str:
        """The member."""
        return self._stream.member_id

    @property
    def attachment(self) -> int | None:
        """The number of its stream as of now."""
        return self._stream.attachment


class MemberStream:
    """One member's stream.

    Transitions: attached -> following (`follow`) <-> apart (the coordinator is another one, or away) ->
    over: the member is gone, another stream speaks for it, or `leave`, `detach`.
    Transitions of what is delivered: flowing -> fenced (the lease is over) -> flowing (confirmed).

    Args:
        group_id: the group.
        attachment: the first one.
        coordination: finds the coordinator anew.
        directory: finds partitions.
        place: where to begin in a partition.
        dice: spreads what is tried again.
        address: from where the member comes.
        delivers: whether anything is delivered on the stream.

    Attributes:
        heartbeats: those of the member.
    """

    def __init__(
        self,
        group_id: str,
        attachment: Attachment,
        coordination: Coordination,
        directory: Directory,
        place: Place,
        dice: Dice,
        *,
        address: str,
        delivers: bool,
    ) -> None:
        attached = attachment.attached
        self.heartbeats = HeardHeartbeats()
        self._group_id = group_id
        self._attachment = attachment
        self._coordination = coordination
        self._directory = directory
        self._place = place
        self._dice = dice
        self._address = address
        self._delivers = delivers
        self._membership = Membership(attached.session_timeout_ms / 1000, _now())
        self._membership.attached(attachment.asked_at)
        self._is_half_closed = False
        self._is_fenced = False
        self._writing_since: float | None = None
        self._doubted = asyncio.Event()
        self._lease: asyncio.TimerHandle | None = None
        self._partitions: MemberPartitions | None = None

    # What it is.

    @property
    def member_id(self) -> str:
        """The member."""
        return self._attachment.attached.member_id

    @property
    def attachment(self) -> int:
        """The number of the stream, as of now."""
        return self._attachment.attached.attachment

    @property
    def coordinator(self) -> CoordinatorTerm:
        """Whom beats go to."""
        return self._attachment.coordinator

    @property
    def session_timeout_s(self) -> float:
        """How long the member may be silent."""
        return self._attachment.attached.session_timeout_ms / 1000

    @property
    def joined(self) -> Joined:
        """What the member is told of its membership."""
        attached = self._attachment.attached
        return Joined(
            self._group_id,
            attached.member_id,
            attached.token,
            attached.session_timeout_ms,
            attached.revocation_timeout_ms,
        )

    # Following the coordinator.

    async def follow(self, reader: Reader) -> None:
        """Pass on what the coordinator says, until the member is over.

        Raises:
            Refusal: why it is.
        """
        self._reader = reader
        self._partitions = partitions = MemberPartitions(
            reader.assigned, reader.tell, self._directory, self._place, self._acknowledge
        )
        self._acknowledging = Acknowledging(self._membership)
        if not self._delivers:
            reader.assigned.fence()
        self._arm()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledging.run(), name="member: what was given up")
            self._settling = tasks
            self._acknowledging.attached(self._attachment)
            self._membership.told(self._attachment.attached.view)
            partitions.begin(self._membership.epoch, self._taken_changes())
            while True:
                try:
                    view = await self._news()
                except Refusal as why:
                    if why.reason in _FINAL:
                        raise
                    view = await self._attach_anew()
                self._told(view)

    def close(self) -> None:
        """Stop what runs by itself."""
        self._attachment.close()
        if self._lease is not None:
            self._lease.cancel()
        if self._partitions is not None:
            self._partitions.close()

    async def _news(self) -> MemberView:
        """Wait for the next view.

        Raises:
            Refusal: another attachment is needed, or the member is over.
        """
        news = asyncio.create_task(self._attachment.news(), name="member: news")
        doubted = asyncio.create_task(self._doubted.wait(), name="member: doubted")
        try:
            await asyncio.wait((news, doubted), return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                return news.result()
        finally:
            news.cancel()
            doubted.cancel()
            await asyncio.gather(news, doubted, return_exceptions=True)
        # The coordinator does not know this stream. Whether it knows the member, it says if asked.
        self._attachment.detach()
        raise Refusal(Reason.COORDINATOR_LOADING, "the coordinator does not know this stream")

    async def _attach_anew(self) -> MemberView:
        """Attach to whoever coordinates the group now, for as long as that takes; return what it says.

        Raises:
            Refusal: the member is over.
        """
        self._membership.detached()
        attached = self._attachment.attached
        again = Reattach(
            member_id=attached.member_id,
            token=attached.token,
            address=self._address,
            attachment=attached.attachment,
        )
        backoff = Backoff(self._dice.uniform, _AGAIN_FIRST_S, _AGAIN_MAX_S)
        while True:
            try:
                found = await self._coordination.attach(self._group_id, again)
                break
            except Refusal as refusal:
                if refusal.reason in _FINAL:
                    raise
            await asyncio.sleep(backoff.next_s())
        self._attachment = found
        self._doubted.clear()
        self._membership.attached(found.asked_at)
        self._go_on()
        self._reader.heartbeats.confirmed(self.heartbeats.until(found.asked_at))
        self._acknowledging.attached(found)
        return found.attached.view

    def _told(self, view: MemberView) -> None:
        self._membership.told(view)
        for change in self._taken_changes():
            self._change(change)
        self._acknowledging.stir()

    def _taken_changes(self) -> list[Change]:
        changes = [*self._membership.changes]
        self._membership.changes.clear()
        return changes

    def _change(self, change: Change) -> None:
        assert self._partitions is not None, "it is followed"
        match change:
            case Given():
                self._partitions.give(change)
            case Revoking():
                self._partitions.revoke(change)
                if self._is_half_closed:
                    self._settling.create_task(self._settle(), name="member: settle")
            case Lost():
                self._partitions.lose(change)

    # What the member says.

    def heard(self) -> None:
        """Note a sign of life."""
        self._membership.heard(_now())

    def heartbeat(self, heartbeat_id: int) -> None:
        """Note a heartbeat of the member's own."""
        self.heartbeats.heard(heartbeat_id, _now())

    def half_closed(self) -> None:
        """Note that the member will say nothing more: the gateway gives up for it what it is to give up."""
        self._is_half_closed = True
        self._membership.half_closed()
        if self._membership.unacknowledged:
            self._settling.create_task(self._settle(), name="member: settle")

    @property
    def is_half_closed(self) -> bool:
        """Whether the member has said that it will say nothing more."""
        return self._is_half_closed

    async def given_up(self, partitions: Collection[PartitionId], epoch: int) -> None:
        """Take what the member has given up, behind the commits that it has made before; none is all."""
        await self._reader.control.committed()
        self._acknowledge(partitions or self._membership.unacknowledged, epoch)

    async def store(
        self, commits: Sequence[OffsetCommit], epoch: int | None
    ) -> list[CommitOutcome]:
        """Store offsets that the member commits on its stream.

        Raises:
            Refusal
        """
        newest = self._membership.epoch
        committer = _Committer(self, newest if epoch is None else epoch)
        return await self._coordination.commit(self._group_id, commits, committer)

    async def leave(self, *, temporary: bool) -> None:
        """Let the member go.

        Raises:
            Refusal: it may not have gone, and then is silent from now on.
        """
        attached = self._attachment.attached
        await self._coordination.leave(
            self._group_id, attached.member_id, attached.token, temporary=temporary
        )

    def detach(self) -> None:
        """Let the member be, for another stream to go on for it."""
        self._attachment.detach()

    # What is written to the member.

    def write_begins(self) -> None:
        """Note that the transport is given something to take."""
        self._writing_since = _now()

    def write_ends(self) -> None:
        """Note that the transport has taken it: who will say nothing more lives by that."""
        self._writing_since = None

    # Whether it lives.

    def beat(self, now: float) -> MemberBeat | None:
        """Return that the member lives, where it does and is attached."""
        if not self._membership.beats(now) or self._is_stuck(now):
            return None
        return MemberBeat(self._group_id, self.member_id, self.attachment)

    def confirmed(self, attachment: int, sent_at: float, heartbeat_id: int) -> None:
        """Learn that the coordinator has taken a beat, which was sent behind a heartbeat of the member."""
        if attachment != self.attachment:
            return
        self._membership.confirmed(sent_at)
        self._go_on()
        self._reader.heartbeats.confirmed(heartbeat_id)

    def doubted(self, attachment: int) -> None:
        """Learn that a beat did not count: the coordinator does not know the stream of this number."""
        if attachment == self.attachment:
            self._doubted.set()

    # Inside.

    def _is_stuck(self, now: float) -> bool:
        """Return whether a member that can say nothing takes nothing either."""
        since = self._writing_since
        return self._is_half_closed and since is not None and now > since + self.session_timeout_s

    def _acknowledge(self, partitions: Collection[PartitionId], epoch: int) -> None:
        found = self._membership.acknowledged(partitions, epoch)
        if found and self._partitions is not None:
            self._partitions.release(found)
            self._acknowledging.stir()

    async def _settle(self) -> None:
        """Give up for the member what it is to give up, once nothing more of that is delivered."""
        epoch = self._membership.epoch
        partitions = self._membership.unacknowledged
        if await self._reader.assigned.settled():
            self._acknowledge(partitions, epoch)

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._lease = loop.call_at(self._membership.may_deliver_until, self._look_at_lease)

    def _look_at_lease(self) -> None:
        if self._membership.may_deliver(_now()):
            self._arm()
            return
        self._lease = None
        self._is_fenced = True
        if self._delivers:
            self._reader.assigned.fence()

    def _go_on(self) -> None:
        """Deliver again where the lease was over."""
        if self._is_fenced and self._membership.may_deliver(_now()):
            self._is_fenced = False
            self._arm()
            if self._delivers:
                self._reader.assigned.unfence()


def _now() -> float:
    return asyncio.get_running_loop().time()
