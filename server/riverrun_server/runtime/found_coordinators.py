"""Members' streams at the coordinators of their groups, wherever those are: attached, told, given up."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit, check_group_id
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.membership import unknown_member
from riverrun_server.core.groups.search import is_moving
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome
from riverrun_server.ports.coordination import (
    Attached,
    BeatRefused,
    Detached,
    Leave,
    MemberBeat,
    NewMember,
    Revoked,
)
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.membership import Committer
from riverrun_server.runtime.coordinator_calls import CoordinatorCalls
from riverrun_server.runtime.coordinator_finder import Found, now
from riverrun_server.runtime.member_feeds import elsewhere
from riverrun_server.runtime.offsets import GroupOffsets

_TOKEN_BYTES = 16
_MEMBER_ID_BYTES = 16
# Of what a call may wait: a beat that is answered later says nothing any more.
_BEAT_SHARE = 0.5


class FoundTerm:
    """Implements ports.membership.CoordinatorTerm.

    Args:
        found: the coordinator.
        calls: to it.
        wait_s: how long a call may wait.

    Attributes:
        attachments: those that stand and fall with it, in the order in which they came.
    """

    def __init__(self, found: Found, calls: CoordinatorCalls, wait_s: float) -> None:
        self.found = found
        self.attachments: dict[FoundAttachment, None] = {}
        self._calls = calls
        self._within_s = wait_s * _BEAT_SHARE

    def beat(self, beats: Sequence[MemberBeat]) -> asyncio.Future[Sequence[BeatRefused]]:
        """Say that members are alive; see the port."""
        return self._calls.beat(self.found, beats, self._within_s)


class _News:
    """Implements ports.coordination.MemberEvents: the newest view, and the end.

    Transitions: open (`changed`) -> over (`ended`, once).

    Attributes:
        ended_at: when it was over, in seconds of the loop's clock.
    """

    def __init__(self) -> None:
        self._view: MemberView | None = None
        self._why: Refusal | None = None
        self.ended_at = 0.0
        self._stirred = asyncio.Event()

    def changed(self, view: MemberView) -> None:
        """Keep the newest view."""
        self._view = view
        self._stirred.set()

    def ended(self, why: Refusal) -> None:
        """Keep why it is over; what was told before is told first."""
        if self._why is None:
            self._why, self.ended_at = why, now()
            self._stirred.set()

    async def next(self) -> MemberView:
        """Wait for a view.

        Raises:
            Refusal: why it is over.
        """
        while self._view is None:
            if self._why is not None:
                raise Refusal(self._why.reason, self._why.message)
            self._stirred.clear()
            await self._stirred.wait()
        view, self._view = self._view, None
        return view


class FoundAttachment:
    """Implements ports.membership.Attachment.

    Args:
        members: made it.
        group_id: the group.
        attached: what the coordinator has said.
        asked_at: when the call was sent.
        coordinator: that has attached it.
        news: what it says from now on.
        origin: for whom.
    """

    def __init__(
        self,
        members: FoundCoordinators,
        group_id: str,
        attached: Attached,
        asked_at: float,
        coordinator: FoundTerm,
        news: _News,
        origin: Origin,
    ) -> None:
        self.attached = attached
        self.asked_at = asked_at
        self.coordinator = coordinator
        self._members = members
        self._group_id = group_id
        self._news = news
        self._origin = origin
        coordinator.attachments[self] = None

    async def news(self) -> MemberView:
        """Wait until the member has something else; see the port."""
        try:
            return await self._news.next()
        except Refusal as why:
            self.coordinator.attachments.pop(self, None)
            if is_moving(why):
                self._members.doubt(self.coordinator.found, self._news.ended_at)
            raise

    async def revoked(self, partitions: Mapping[PartitionId, int]) -> None:
        """Say what the member has given up; see the port."""
        attached = self.attached
        said = Revoked(attached.member_id, attached.attachment, partitions)
        calls, wait_s = self._members.calls, self._members.wait_s
        async with _answered(wait_s, self._group_id):
            await calls.revoked(self.coordinator.found, self._group_id, said, self._origin, wait_s)

    async def leave(self, *, temporary: bool) -> None:
        """Let the member go; see the port."""
        said = Leave(self.attached.member_id, self.attached.attachment, temporary)
        calls, wait_s = self._members.calls, self._members.wait_s
        async with _answered(wait_s, self._group_id):
            await calls.leave(self.coordinator.found, self._group_id, said, self._origin, wait_s)
        self.over(unknown_member(self._group_id, self.attached.member_id, "it has left"))

    def detach(self) -> None:
        """Say that the stream has ended without a leave; see the port."""
        self.coordinator.attachments.pop(self, None)
        self._members.detach(self.coordinator.found, self._group_id, self.attached, self._origin)

    def close(self) -> None:
        """Wait for nothing any more; see the port."""
        self.coordinator.attachments.pop(self, None)

    def over(self, why: Refusal) -> None:
        """Tell whoever waits for news that it is over."""
        self.coordinator.attachments.pop(self, None)
        self._news.ended(why)


class FoundCoordinators:
    """Implements ports.membership.Coordination.

    Args:
        offsets: knows where groups are kept, and stores what they commit.
        origin: who makes the call that is being handled.

    Attributes:
        calls: to coordinators.
        wait_s: how long a call may wait.
    """

    def __init__(self, offsets: GroupOffsets, origin: Callable[[], Origin]) -> None:
        self._offsets = offsets
        self._origin = origin
        self._terms: dict[PartitionId, FoundTerm] = {}
        self._watches: object = None

    @property
    def calls(self) -> CoordinatorCalls:
        """Calls to coordinators."""
        return self._offsets.calls

    @property
    def wait_s(self) -> float:
        """How long a call may wait."""
        return self._offsets.finder.wait_s

    async def attach(self, group_id: str, start: Join | Reattach) -> FoundAttachment:
        """Let a stream speak for a member; see the port."""
        check_group_id(group_id)
        finder, origin = self._offsets.finder, self._origin()
        search = finder.search(group_id, changes=True)
        said = start if isinstance(start, Reattach) else _new_member(start)
        home = await self._home(group_id, start)
        tries: list[_Try] = []

        def once(found: Found, within_s: float) -> asyncio.Future[Attached]:
            news = _News()
            asked = self.calls.attach(found, group_id, said, news, origin, within_s)
            tries.append(_Try(found, news, asked, now()))
            return asked

        try:
            attached = await finder.ask_among_many(group_id, home, search, once)
        except BaseException:
            # It may have been answered in the moment in which its caller gave up.
            if tries and (late := tries[-1].answer()) is not None:
                self.detach(tries[-1].found, group_id, late, origin)
            raise
        last = tries[-1]
        is_current = finder.stand(home)[0] == last.found
        term = self._term(last.found) if is_current else self._new_term(last.found)
        attachment = FoundAttachment(
            self, group_id, attached, last.asked_at, term, last.news, origin
        )
        if not is_current:
            attachment.over(elsewhere())
        return attachment

    def doubt(self, found: Found, lost_at: float) -> None:
        """Learn that an attachment was lost with its coordinator."""
        self._offsets.finder.doubt(found.home, lost_at)

    async def commit(
        self, group_id: str, commits: Sequence[OffsetCommit], committer: Committer | None
    ) -> list[CommitOutcome]:
        """Store how far a group has come; see the port."""
        return await self._offsets.commit(group_id, commits, committer)

    async def leave(self, group_id: str, member_id: str, token: bytes, *, temporary: bool) -> None:
        """Let a member go that is named by its token; see the port."""
        check_group_id(group_id)
        finder, origin = self._offsets.finder, self._origin()
        home = await finder.known_home(group_id)
        if home is None:
            raise unknown_member(group_id, member_id)
        search = finder.search(group_id, changes=True)
        said = Leave(member_id, token, temporary)

        def once(found: Found, within_s: float) -> asyncio.Future[None]:
            return self.calls.leave(found, group_id, said, origin, within_s)

        try:
            await finder.ask(group_id, home, search, once)
        except Refusal as refusal:
            if refusal.reason is not Reason.UNKNOWN_MEMBER or search.doubt is None:
                raise
            # It has left with the try of which nobody knew.

    def detach(self, found: Found, group_id: str, attached: Attached, origin: Origin) -> None:
        """Say that a stream has ended without a leave; nobody waits for that."""
        said = Detached(attached.member_id, attached.attachment)

        async def detach() -> None:
            try:
                async with asyncio.timeout(self.wait_s):
                    await self.calls.detached(found, group_id, said, origin, self.wait_s)
            except (Refusal, TimeoutError):
                return  # it will be silent for too long

        try:
            self._offsets.spawn(detach(), f"detach {attached.member_id} of {group_id}")
        except Refusal:
            return  # this broker ends, and its coordinators notice

    async def _home(self, group_id: str, start: Join | Reattach) -> PartitionId:
        finder = self._offsets.finder
        if isinstance(start, Join):
            return await finder.made_home(group_id)
        home = await finder.known_home(group_id)
        if home is None:
            raise unknown_member(group_id, start.member_id)
        return home

    def _term(self, found: Found) -> FoundTerm:
        """Return what all attachments have in common that one coordinator has attached in one leadership."""
        if self._watches is not self._offsets.finder:
            self._watches = self._offsets.finder
            self._offsets.finder.watch(self._changed)
        term = self._terms.get(found.home)
        if term is None or term.found != found:
            if term is not None:
                self._end(term)
            term = self._terms[found.home] = self._new_term(found)
        return term

    def _new_term(self, found: Found) -> FoundTerm:
        return FoundTerm(found, self.calls, self.wait_s)

    def _changed(self, home: PartitionId) -> None:
        """End what stood with a coordinator that is one no more."""
        term = self._terms.get(home)
        if term is not None and self._offsets.finder.stand(home)[0] != term.found:
            del self._terms[home]
            self._end(term)

    def _end(self, term: FoundTerm) -> None:
        for attachment in [*term.attachments]:
            attachment.over(elsewhere())


class _Try:
    """One try to attach a stream."""

    def __init__(
        self, found: Found, news: _News, asked: asyncio.Future[Attached], asked_at: float
    ) -> None:
        self.found = found
        self.news = news
        self.asked_at = asked_at
        self._asked = asked

    def answer(self) -> Attached | None:
        """Return the answer, where there was a good one."""
        asked = self._asked
        if not asked.done() or asked.cancelled() or asked.exception() is not None:
            return None
        return asked.result()


@contextlib.asynccontextmanager
async def _answered(within_s: float, group_id: str) -> AsyncIterator[None]:
    """Wait for an answer no longer than so.

    Raises:
        Refusal: REQUEST_TIMED_OUT.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise Refusal(
            Reason.REQUEST_TIMED_OUT,
            f"the coordinator of group {group_id!r} did not answer within {within_s:.1f} s; ask again",
        ) from None


def _new_member(said: Join) -> NewMember:
    return NewMember(secrets.token_hex(_MEMBER_ID_BYTES), secrets.token_bytes(_TOKEN_BYTES), said)
