"""A coordinator's log and its machine of groups, as a driver runs them: batches that commit, or do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import Ended, MemberView
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.live_records import key_of
from riverrun_server.core.groups.members import AssignmentRecord, GroupRecord, MemberRecord, Record
from riverrun_server.core.groups.membership import Attached
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId

G = "g"
NOTHING = MemberView(0, {}, {})


def topic_id(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def topic(name: str, partitions: int) -> AssignableTopic:
    return AssignableTopic(topic_id=topic_id(name), partitions=partitions)


def part(name: str, partition: int) -> PartitionId:
    return PartitionId(topic_id(name), partition)


def share(subscribers, topics, current):
    """Give each partition to whoever has least of those who may: sticky, and balanced where all want all."""
    target = {each.member_id: set() for each in subscribers}
    for each in sorted(topics, key=lambda topic: topic.topic_id):
        takers = sorted(s.member_id for s in subscribers if each.topic_id in s.topics)
        everything = [PartitionId(each.topic_id, number) for number in range(each.partitions)]
        most = -(-len(everything) // len(takers))
        kept = {
            member_id: sorted(p for p in everything if p in current.get(member_id, ()))[:most]
            for member_id in takers
        }
        for member_id, partitions in kept.items():
            target[member_id].update(partitions)
        taken = {p for partitions in kept.values() for p in partitions}
        for partition in everything:
            if partition not in taken:
                least = min(takers, key=lambda member_id: (len(target[member_id]), member_id))
                target[least].add(partition)
    return {member_id: frozenset(partitions) for member_id, partitions in target.items()}


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Take a prefix and a star for a pattern, and nothing else."""
    if not pattern.endswith("*"):
        raise Refusal(
            Reason.INVALID_REQUEST, f"pattern {pattern!r} does not end with a star; add one"
        )
    return lambda name: name.startswith(pattern[:-1])


class World:
    """One partition of the offsets topic, its coordinator, and the time.

    `do` appends and replays what a handler returns; `commit` lets news and answers go; `crash` makes
    another coordinator of the log, which may have lost what was not committed.
    """

    def __init__(self, topics=None, limits: GroupsLimits | None = None, assign=share) -> None:
        self.limits = limits or GroupsLimits(pause_us_per_member=0)
        self.assign = assign
        self.topics = {"t": topic("t", 4)} if topics is None else topics
        self.now = 1_000_000
        self.log: list[Record] = []
        self.log_start = 0
        self.committed = 0
        self.offsets: set[str] = set()
        self.watchers: list[Callable[[Record], None]] = []
        self.ended: list[Ended] = []
        self.told: dict[str, MemberView] = {}
        self._drawn = 0
        self.machine = self.made()

    def made(self) -> Groups:
        return Groups(
            self.limits, lambda _: self.assign, compile_pattern, lambda g: g in self.offsets
        )

    def started(self, log: Iterable[tuple[int, Record]]) -> Groups:
        machine = self.made()
        for offset, record in log:
            machine.replay(record, offset)
        machine.topics_changed(self.topics)
        machine.loaded(self.now)
        return machine

    def start(self) -> World:
        self.machine = self.started(self.stored())
        return self

    def stored(self, end: int | None = None) -> list[tuple[int, Record]]:
        end = len(self.log) if end is None else end
        return [(at, self.log[at]) for at in range(self.log_start, end)]

    def do(self, records: list[Record]) -> list[Record]:
        for record in records:
            self.log.append(record)
            if isinstance(record, OffsetRecord):
                continue
            self.machine.replay(record, len(self.log) - 1)
            for watch in self.watchers:
                watch(record)
        return records

    def attach(self, wanted: Join | Reattach, group: str = G) -> Attached:
        self._drawn += 1
        member_id, token = f"m{self._drawn:04}", f"token-{self._drawn}".encode()
        records, attached = self.machine.attach(group, wanted, self.now, member_id, token)
        self.do(records)
        return attached

    def settle(self) -> list[Record]:
        records: list[Record] = []
        steps = 0
        while not self.machine.is_settled:
            records += self.do(self.machine.settle(self.now))
            steps += 1
            assert steps < 20, "it does not settle"
        return records

    def commit(self) -> None:
        """Let everything that was appended be committed, and tell it."""
        self.committed = len(self.log)
        news = self.machine.take_news()
        self.ended += news.ended
        for group_id, member_id in news.changed:
            self.told[member_id] = self.machine.view(group_id, member_id)

    def run(self) -> list[Record]:
        """Settle and commit; return what was written for it."""
        records = self.settle()
        self.commit()
        return records

    def crash(self, survived: int = 0) -> None:
        """Go on with another coordinator, which has so many of the records that were not committed."""
        del self.log[self.committed + survived :]
        self.committed = len(self.log)
        self.machine = self.started(self.stored())

    def rewrite(self, limit_bytes: int = 400) -> None:
        """Shorten the log to what counts."""
        point = len(self.log)
        while records := self.machine.registry.live_records_below(point, limit_bytes):
            self.do(records)
        assert (self.machine.registry.lowest_live or point) >= point
        self.commit()
        self.log_start = point

    def pass_time(self, ms: int) -> list[Record]:
        """Let time pass; the driver wakes at each deadline."""
        end, records = self.now + ms, []
        while True:
            deadline = self.machine.next_deadline()
            self.now = end if deadline is None else min(end, max(deadline, self.now))
            records += self.do(self.machine.expire(self.now))
            deadline = self.machine.next_deadline()
            assert deadline is None or deadline > self.now
            if self.now == end:
                return records

    def beat(self, *attached: Attached, group: str = G):
        beats = [(group, each.member_id, each.attachment) for each in attached]
        return self.machine.beat(beats, self.now)

    def acknowledge(self, attached: Attached) -> None:
        """Give up all that a member is told to."""
        view = self.machine.view(G, attached.member_id)
        self.do(
            self.machine.revoked(
                G, attached.member_id, attached.attachment, view.revoking, view.epoch
            )
        )

    def in_turn(self, *starts: Join) -> list[Attached]:
        """Let members come one after the other, so that those before have something to give up."""
        attached = []
        for each in starts:
            attached.append(self.attach(each))
            self.run()
        return attached

    def in_peace(self, *starts: Join) -> list[Attached]:
        """Let members come one after the other, and everybody give up what it is told to."""
        attached = []
        for each in starts:
            attached += self.in_turn(each)
            for member in attached:
                self.acknowledge(member)
            self.run()
        return attached

    def owned(self, attached: Attached) -> set[PartitionId]:
        return set(self.machine.view(G, attached.member_id).owned)

    def revoking(self, attached: Attached) -> set[PartitionId]:
        return set(self.machine.view(G, attached.member_id).revoking)


def hard_state(machine: Groups) -> dict:
    """Return everything that the log says."""
    state = {}
    for group_id, group in machine.registry.groups.items():
        if group.value is not None:
            state[GroupRecord, group_id, ""] = group.value
        for member_id, member in group.members.items():
            state[MemberRecord, group_id, member_id] = member
        for member_id, has in group.assignments.items():
            state[AssignmentRecord, group_id, member_id] = has
    return state


def compacted(log: Iterable[tuple[int, Record]]) -> list[tuple[int, Record]]:
    """Return the last record of each key, in the order of the log."""
    last = {
        key_of(record): (offset, record)
        for offset, record in log
        if not isinstance(record, OffsetRecord)
    }
    return sorted((each for each in last.values() if each[1].value is not None), key=lambda e: e[0])


@dataclass
class Late:
    """Something that a client said under a view, and that arrives whenever it likes."""

    attached: Attached
    view: MemberView


@dataclass
class Client:
    """A process: what it was told, and what it has not heard the answer of.

    `asked` is an attach whose answer waits for its commit.
    """

    instance: str = ""
    asked: Attached | None = None
    attached: Attached | None = None
    is_silent: bool = False
    view: MemberView = NOTHING
    past: list[Late] = field(default_factory=list)

    def gone(self) -> None:
        self.asked = self.attached = None
        self.is_silent = False
        self.view = NOTHING


def tried(call, *args, **kwargs):
    """Return what a call answers, or why it is refused."""
    try:
        return call(*args, **kwargs)
    except Refusal as refusal:
        return refusal.reason
