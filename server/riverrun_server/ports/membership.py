"""The coordinator of a group, wherever it is: what whoever holds a member's stream asks, and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome
from riverrun_server.ports.coordination import Attached, BeatRefused, MemberBeat


class Attachment(Protocol):
    """A stream of this broker that speaks for a member, at the coordinator that has attached it.

    It stands and falls with that coordinator's leadership: when that is over the member is attached
    anew, by a Reattach, which may find another coordinator.
    """

    @property
    def attached(self) -> Attached:
        """What the coordinator has said, its first view included."""
        ...

    @property
    def asked_at(self) -> float:
        """When the call was sent that it has answered, in seconds of the event loop's clock."""
        ...

    @property
    def coordinator(self) -> CoordinatorTerm:
        """Whom beats go to; the same object for all members that one beat can speak of."""
        ...

    async def news(self) -> MemberView:
        """Wait until the member has something else than was returned before, and return that.

        Raises:
            Refusal: it is over. MEMBER_TAKEN_OVER and UNKNOWN_MEMBER are final; with everything else the
                coordinator is another one now, or cannot be reached.
        """
        ...

    async def revoked(self, partitions: Mapping[PartitionId, int]) -> None:
        """Say what the member has given up, each with the epoch in which it had been given; asked once.

        Raises:
            Refusal: whoever attaches the member anew says it again.
        """
        ...

    async def leave(self, *, temporary: bool) -> None:
        """Let the member go; asked once, and `news` ends.

        Raises:
            Refusal
        """
        ...

    def detach(self) -> None:
        """Say that the stream has ended without a leave, and hear nothing more; nobody waits for that."""
        ...

    def close(self) -> None:
        """Hear nothing more, and say nothing: the member has left, or another attachment speaks for it."""
        ...


class CoordinatorTerm(Protocol):
    """One coordinator's leadership of one partition of the offsets topic."""

    def beat(self, beats: Sequence[MemberBeat]) -> asyncio.Future[Sequence[BeatRefused]]:
        """Say that members are alive; asked once. The future has those whose beats did not count.

        Raises:
            Refusal: also the future; none of them counted, or nobody knows.
        """
        ...


class Committer(Protocol):
    """Who commits for a group, asked anew for each try: a stream may have been attached anew meanwhile.

    Attributes:
        member_id: the member.
        attachment: the number of its stream; None where the commit did not come on the member's stream.
        epoch: the newest that the member had been told when it read what it commits.
    """

    @property
    def member_id(self) -> str:
        """The member."""
        ...

    @property
    def attachment(self) -> int | None:
        """The number of its stream as of now."""
        ...

    @property
    def epoch(self) -> int:
        """As of when the commit was made."""
        ...


class Coordination(Protocol):
    """Finds the coordinators of groups and asks them, again where they move, for as long as a call may wait."""

    async def attach(self, group_id: str, start: Join | Reattach) -> Attachment:
        """Let a stream speak for a member.

        The ids and tokens of new members are drawn here, once a call, so that a try of which nobody knows
        what became of it leaves no second member behind.

        Raises:
            Refusal: what core/groups has against it; COORDINATOR_LOADING where nobody was found in time.
        """
        ...

    async def commit(
        self, group_id: str, commits: Sequence[OffsetCommit], committer: Committer | None
    ) -> list[CommitOutcome]:
        """Store how far a group has come, for a member or, with None, for nobody in particular.

        Raises:
            Refusal: for the call as a whole; else each outcome has its own.
        """
        ...

    async def leave(self, group_id: str, member_id: str, token: bytes, *, temporary: bool) -> None:
        """Let a member go that is named by its token.

        Raises:
            Refusal
        """
        ...
