"""All groups with members of one partition of the offsets topic: a machine whose memory is the log.

Intuition: handlers look and say which records to append; only `replay` changes what is known for good,
so a new coordinator that replays the log knows what the old one did. The caller appends what a handler
returns, replays each record at once, so that the next handler of the same batch sees it, and lets
answers and `take_news` go when the records are committed. Where an append fails, or its outcome is
unknown, the machine is thrown away and another one replays the log.

A batch ends with `settle`, again and again until `is_settled`: there the targets are computed, once for
everything that has happened in the batch, and partitions change hands.

Not here: appending and loading (runtime/), committed offsets (offsets.py), how partitions are shared out
(assignment/), whether a gateway that beats has a live stream (the gateway).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups import membership
from riverrun_server.core.groups.assignment.values import Assign, AssignableTopic
from riverrun_server.core.groups.commit_rules import check_without_member, refused_partitions
from riverrun_server.core.groups.expiry import expire
from riverrun_server.core.groups.group import MemberKey, StreamState, Timers
from riverrun_server.core.groups.group_changes import removal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_operations import GroupOperations
from riverrun_server.core.groups.group_views import Ended, MemberView, News, view_of
from riverrun_server.core.groups.joining import Join, Reattach, check_join
from riverrun_server.core.groups.live_records import MembershipRecord
from riverrun_server.core.groups.members import Assignor, Record
from riverrun_server.core.groups.membership import Attached, Beat
from riverrun_server.core.groups.registry import Registry
from riverrun_server.core.groups.settling import Settling
from riverrun_server.core.groups.subscriptions import Compile, Subscriptions
from riverrun_server.core.log.batch import PartitionId


class Groups:
    """The groups of one partition of the offsets topic.

    Transitions: made -> replaying -> loaded, once the topics are known (`topics_changed`, `loaded`) ->
    thrown away. Nothing is decided before it is loaded.

    Args:
        limits: its bounds.
        assignors: returns how partitions are shared out, by name.
        compile_pattern: makes a matcher of a pattern; raises a Refusal where it is none.
        has_offsets: tells whether anything is committed by a group.

    Attributes:
        registry: what the log says; how much that is, and what to write again of it.
        operations: for operators.
    """

    def __init__(
        self,
        limits: GroupsLimits,
        assignors: Callable[[Assignor], Assign],
        compile_pattern: Compile,
        has_offsets: Callable[[str], bool],
    ) -> None:
        self._limits = limits
        self._subscriptions = Subscriptions(compile_pattern)
        self._settling = Settling(self._subscriptions, assignors, has_offsets, limits)
        self._timers = Timers()
        self._ended: list[Ended] = []
        self._knows_topics = False
        self._is_loaded = False
        self.registry = Registry(self._timers)
        self.operations = GroupOperations(self.registry, self._timers, has_offsets, limits)

    # Hard state.

    def replay(self, record: MembershipRecord, offset: int) -> None:
        """Take a record of the log into account; the one way in which what is known for good changes."""
        self.registry.replay(record, offset)

    def loaded(self, now_ms: int) -> None:
        """Begin to serve; each member has its whole session timeout from now.

        The topics must be known by then, and as new as anything that the log says of them.
        """
        assert self._knows_topics, "without topics nobody would be given anything"
        for group in self.registry.groups.values():
            group.loaded(now_ms, self._limits.doubt_ms)
            self.registry.due[group.group_id] = None
        self.registry.changed.clear()
        self._is_loaded = True

    # Members.

    def attach(
        self, group_id: str, wanted: Join | Reattach, now_ms: int, member_id: str, token: bytes
    ) -> tuple[list[Record], Attached]:
        """Let a stream speak for a member: a new one, that of an instance, or one that it names.

        Args:
            group_id: the group; with its first member it begins.
            wanted: the stream's first word.
            now_ms: on the broker's clock.
            member_id: drawn for a new member.
            token: drawn for the stream; must not be guessed. Where it is not known what became of a
                join, the same two are given again.

        Raises:
            Refusal: INVALID_REQUEST, LIMIT_EXCEEDED, INSTANCE_IN_USE, COORDINATOR_LOADING;
                UNKNOWN_MEMBER, MEMBER_TAKEN_OVER where it names one.
        """
        assert self._is_loaded
        group = self.registry.get(group_id)
        if isinstance(wanted, Reattach):
            attaching = membership.reattach(group, group_id, wanted)
        else:
            check_join(group_id, wanted, self._limits, self._subscriptions)
            if not membership.is_known(group, wanted, member_id):
                self.registry.check_room(self._limits, group_id)
            group = self.registry.begin(group_id)
            attaching = membership.join(group, wanted, member_id, token, now_ms, self._limits)
        record, attached, over = attaching
        key = MemberKey(group_id, attached.member_id)
        if over is not None:
            why = membership.taken_over(group_id, attached.member_id, over, attached.attachment)
            self._ended.append(Ended(key, over, why))
        assert record.value is not None
        self.registry.begin(group_id).attached(attached.member_id, record.value, now_ms)
        return [record], attached

    def beat(self, beats: Sequence[tuple[str, str, int]], now_ms: int) -> list[Beat]:
        """Take note of members that gateways have live streams of, and say what becomes of each.

        Args:
            beats: group, member id and attachment of each.
            now_ms: on the broker's clock.
        """
        assert self._is_loaded
        return [
            membership.beat(self.registry.get(group_id), member_id, attachment, now_ms)
            for group_id, member_id, attachment in beats
        ]

    def leave(
        self, group_id: str, member_id: str, attachment: int, now_ms: int, *, temporary: bool
    ) -> list[Record]:
        """Let a member go, where `temporary` and static for a moment: what it has stays its own.

        Raises:
            Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
        """
        group, member = membership.speaking(
            self.registry.get(group_id), group_id, member_id, attachment
        )
        records = membership.leave(group, member_id, temporary=temporary)
        if not member.is_away:
            why = membership.unknown_member(group_id, member_id, "it has left")
            self._ended.append(Ended(MemberKey(group_id, member_id), attachment, why))
            # From now on nobody speaks for it: its time to come back begins.
            group.presence[member_id].stream = StreamState.DETACHED
            group.put_off(member_id, now_ms)
        return records

    def attachment_of(self, group_id: str, member_id: str, token: bytes) -> int:
        """Return the number of a member's newest stream to whoever can prove to be the member.

        Raises:
            Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
        """
        return membership.proven(self.registry.get(group_id), group_id, member_id, token)

    def detached(self, group_id: str, member_id: str, attachment: int) -> None:
        """Take note that a member's stream has ended without a leave.

        Whoever has its instance id may take its place at once, and else it stays until it has been
        silent for too long. A stream that does not speak for it any more changes nothing.
        """
        membership.detached(self.registry.get(group_id), member_id, attachment)

    def revoked(
        self,
        group_id: str,
        member_id: str,
        attachment: int,
        partitions: Iterable[PartitionId],
        epoch: int | None = None,
    ) -> list[Record]:
        """Take from a member what it was to give up, and says that it has.

        Args:
            group_id: the group.
            member_id: the member.
            attachment: of the stream that says so.
            partitions: that are not delivered to the member any more, and that it has committed.
            epoch: of the view that told it to. Without it, a word that comes so late that the member
                has been given a partition anew, and is to give it up again, counts for the second time.

        Raises:
            Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
        """
        group, _ = membership.speaking(self.registry.get(group_id), group_id, member_id, attachment)
        return membership.revoked(group, member_id, partitions, epoch)

    def remove_member(self, group_id: str, member_id: str) -> list[Record]:
        """Remove a member as if it had been silent for too long.

        Raises:
            Refusal: UNKNOWN_MEMBER.
        """
        group, member = membership.known(self.registry.get(group_id), group_id, member_id)
        why = membership.unknown_member(group_id, member_id, "an operator has removed it")
        self._ended.append(Ended(MemberKey(group_id, member_id), member.attachment, why))
        return removal(group, member_id)

    def check_commit(
        self,
        group_id: str,
        member_id: str | None,
        attachment: int | None,
        epoch: int,
        partitions: Iterable[PartitionId],
    ) -> dict[PartitionId, Refusal]:
        """Return why a commit does not count, for each partition for which it does not.

        Args:
            group_id: the group.
            member_id: who commits; None is no member.
            attachment: of the stream on which it does; None where it is none.
            epoch: the member's, in which it read what it commits.
            partitions: that it commits.

        Raises:
            Refusal: GROUP_HAS_MEMBERS, UNKNOWN_MEMBER, MEMBER_TAKEN_OVER: it counts for none.
        """
        group = self.registry.get(group_id)
        if member_id is None:
            check_without_member(group, group_id)
            return {}
        group, _ = membership.speaking(group, group_id, member_id, attachment)
        return refused_partitions(group, member_id, epoch, partitions)

    # What happens by itself.

    def topics_changed(self, topics: Mapping[str, AssignableTopic]) -> None:
        """Take over the topics that there are now, by name."""
        self._subscriptions.changed(topics)
        self._knows_topics = True
        if not self._is_loaded:
            return  # all groups will be looked at
        for group_id, group in self.registry.groups.items():
            if self._subscriptions.concerned(*group.subscribed):
                group.look = True
                self.registry.due[group_id] = None

    def expire(self, now_ms: int) -> list[Record]:
        """Do what is due: members that were silent, partitions that were not given up, holds.

        To be called at `next_deadline`, behind the beats that have come until then. Where it is called
        much later, the coordinator has stood still, and whoever it could not hear is not silent yet.
        """
        for group_id in self._timers.pauses.take_due(now_ms):
            self.registry.due[group_id] = None
        self.operations.expire_holds(now_ms)
        records, ended = expire(self.registry.groups, self._timers, now_ms, self._limits)
        self._ended += ended
        return records

    def next_deadline(self) -> int | None:
        """Return when to call `expire`, in ms on the broker's clock; None where nothing waits."""
        return self._timers.next_ms()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle for now."""
        return not self.registry.due

    def settle(self, now_ms: int, groups_max: int = 100) -> list[Record]:
        """Return the records of the next step of the groups that something has happened to.

        Call it, and replay what it returns, until `is_settled`; what one step frees the next one gives.

        Args:
            now_ms: on the broker's clock.
            groups_max: settle so many, so that others have their turn in between.
        """
        assert self._is_loaded
        records: list[Record] = []
        for group in self.registry.take_due(groups_max):
            records += self._settling.step(group, now_ms)
        return records

    def committed(self, now_ms: int) -> None:
        """Learn that all records are committed, and that members are told so now.

        Until then nobody has been asked to give anything up, however long that took: a member whose lease
        goes on must not lose what it could not know of.
        """
        untold, self._timers.untold = self._timers.untold, {}
        for key, partitions in untold.items():
            if (group := self.registry.get(key.group_id)) is not None:
                group.told(key.member_id, partitions, now_ms)

    def has_members(self, group_id: str) -> bool:
        """Return whether a group has members, so that only they commit."""
        group = self.registry.get(group_id)
        return group is not None and bool(group.members)

    # What members are told.

    def view(self, group_id: str, member_id: str) -> MemberView | None:
        """Return what a member has; None where there is no such member."""
        group = self.registry.get(group_id)
        if group is None or member_id not in group.members:
            return None
        return view_of(group, member_id)

    def take_news(self) -> News:
        """Return whom to tell what, since the last call; to go out when the batch is committed."""
        changed = tuple(key for key in self.registry.changed if self.view(*key) is not None)
        news = News(changed, tuple(self._ended))
        self.registry.changed.clear()
        self._ended.clear()
        return news
