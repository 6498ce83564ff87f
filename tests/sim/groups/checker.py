"""The rules of consumer groups, held against what gateways write to members and what the log comes to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from riverrun_server.core.errors import Reason
from riverrun_server.core.groups.members import AssignmentRecord, MemberRecord
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.wire.group_records import read_batches
from tests.sim.groups.calls import number_of
from tests.sim.groups.world import World

RESET = "reset"
_NOT_ITS_OWN = (int(Reason.PARTITION_NOT_ASSIGNED), int(Reason.FENCED_MEMBER_EPOCH))
# So long may nothing of a partition come to a member whom nothing disturbs.
_STALL_S = 3.0

Place = tuple[str, PartitionId]
"""A partition, as one group reads it."""


@dataclass(slots=True, eq=False)
class Instance:
    """A partition, as one stream was given it once."""

    number: int
    place: Place
    call: Any
    member_id: str
    told_at: float
    position: int | None
    start: int
    stopped: bool = False
    lost: bool = False


@dataclass(slots=True)
class _Commit:
    """An offset in the log."""

    offset: int
    number: int | None
    member_id: str
    at: float
    value: Any


@dataclass(slots=True)
class _Story:
    """What was committed in one place, and who had it."""

    commits: list[_Commit] = field(default_factory=list)
    acknowledged: int = -1
    newest: Instance | None = None
    reset_at: float = -1.0


def _has_it_now(story: _Story, instance: Instance) -> None:
    """Note who has a place; of one member's streams the older one may be told later."""
    newest = story.newest
    is_older = (
        newest is not None
        and newest.member_id == instance.member_id
        and newest.call.number > instance.call.number
    )
    if not is_older:
        story.newest = instance


class Checker:
    """Watches everything that members are told, and everything that is committed.

    Args:
        world: of the seed.
        cluster: its processes.
    """

    def __init__(self, world: World, cluster: Any) -> None:
        self._world = world
        self._cluster = cluster
        self._instances: list[Instance] = []
        self._stories: dict[Place, _Story] = {}
        self._asked: dict[tuple[int, int], list[tuple[PartitionId, int, int]]] = {}
        self._epochs: dict[int, int] = {}
        self._members: dict[tuple[str, str], Any] = {}
        self._away_since: dict[tuple[str, str], float] = {}
        self._assignments: dict[tuple[str, str], Any] = {}
        self._given: set[tuple[str, str, PartitionId, int]] = set()
        self._given_up: dict[tuple[int, PartitionId], float] = {}
        self._left: set[tuple[str, str]] = set()
        self.checks = 0
        self.delivered = 0

    # What members are told.

    def told(self, call: Any, message: Any) -> Any:
        """Take a message that a gateway gives to the transport; return what the client needs of it."""
        match message.WhichOneof("kind"):
            case "started":
                call.member_id = message.started.member.member_id
                self._world.note(
                    call, "started", call.client, call.broker.process, call.member_id[:6]
                )
            case "partitions_assigned":
                return self._assigned(call, message.partitions_assigned)
            case "partitions_revoking":
                self._stopped(call, message.partitions_revoking, "revoking")
            case "partitions_lost":
                self._stopped(call, message.partitions_lost, "lost")
            case "partition_error":
                self._failed(call, message.partition_error)
            case "delivery":
                self._delivered(call, message.delivery)
            case "commit_result":
                self._acknowledged(call, message.commit_result)
            case "seek_done":
                return self._sought(call, message.seek_done.position)
        return None

    def asked(self, call: Any, commit: Any) -> None:
        """Take note of a commit that a client sends."""
        self._asked[call.number, commit.commit_id] = [
            (PartitionId(each.topic_id, each.partition), each.offset, int(each.metadata))
            for each in commit.offsets
        ]

    def gives_up(self, call: Any, keys: list[tuple[bytes, int]]) -> None:
        """Take note of what a client says that it has given up."""
        for key in keys:
            self._given_up[call.number, PartitionId(*key)] = self._world.loop.time()

    def leaves(self, group_id: str, member_id: str, temporary: bool) -> None:
        """Take note that a client lets a member go, for good or for a moment."""
        if temporary:
            self._away_since[group_id, member_id] = self._world.loop.time()
        else:
            self._left.add((group_id, member_id))

    def removed(self, group_id: str, member_id: str) -> None:
        """Take note that an operator throws a member out."""
        self._left.add((group_id, member_id))

    def ended(self, call: Any, refusal: Any) -> None:
        """Take note that a broker has ended a call."""
        call.is_over = True
        self._world.note(call, "ended", refusal and refusal.reason.name)

    def _assigned(self, call: Any, assigned: Any) -> dict[tuple[bytes, int], int]:
        self._rises(call, assigned.member_epoch)
        known = {}
        for each in assigned.partitions:
            position = each.position
            partition = PartitionId(position.topic_id, position.partition)
            story = self._story(call.group_id, partition)
            before = call.instances.get(partition)
            self._must(
                before is None or before.stopped,
                "given twice",
                f"{call} was given {partition} again, which it has",
            )
            instance = Instance(
                len(self._instances),
                (call.group_id, partition),
                call,
                call.member_id,
                self._world.loop.time(),
                # Also where it could not be found; then an error says so next, and a seek finds it.
                position.offset,
                position.offset,
            )
            self._must(
                (call.group_id, call.member_id, partition, each.assignment_epoch) in self._given,
                "told",
                f"{call} is told that it has {partition}, which is not in the log",
            )
            self._instances.append(instance)
            call.instances[partition] = instance
            known[position.topic_id, position.partition] = instance.number
            self._given_up.pop((call.number, partition), None)
            self._world.note(
                call, "assigned", partition.topic_id[-2:], partition.partition, instance.number,
                instance.position, assigned.member_epoch,
            )  # fmt: skip
            if position.offset or position.high_watermark:
                self._check_start(instance, story)
            # Who is thrown out, or has no lease, may hear late what it was given before.
            if (call.group_id, call.member_id) not in self._left and self._cluster.has_lease(call):
                _has_it_now(story, instance)
        return known

    def _check_start(self, instance: Instance, story: _Story) -> None:
        """Check that a partition begins where the last commit says.

        What the member itself had on its way when its stream began may be committed since.
        """
        commits = story.commits
        at = len(commits)
        while True:
            offset = commits[at - 1].offset if at else 0
            if instance.position == offset:
                return
            newer = commits[at - 1] if at else None
            if (
                newer is None
                or newer.member_id != instance.member_id
                or newer.at < instance.call.opened_at
            ):
                break
            at -= 1
        latest = commits[-1].offset if commits else 0
        self._must(
            False,
            "start",
            f"{instance.call} begins in {instance.place} at {instance.position}, and {latest} is committed",
        )

    def _stopped(self, call: Any, told: Any, what: str) -> None:
        self._rises(call, told.member_epoch)
        for each in told.partitions:
            partition = PartitionId(each.topic_id, each.partition)
            self._world.note(call, what, each.topic_id[-2:], each.partition, told.member_epoch)
            if (instance := call.instances.get(partition)) is not None:
                instance.stopped = True
                instance.lost = instance.lost or what == "lost"

    def _failed(self, call: Any, failed: Any) -> None:
        instance = call.instances.get(PartitionId(failed.topic_id, failed.partition))
        if instance is not None:
            instance.position = None

    def _delivered(self, call: Any, delivery: Any) -> None:
        partition = PartitionId(delivery.topic_id, delivery.partition)
        instance = call.instances.get(partition)
        self.delivered += 1
        if instance is None or instance.stopped:
            self._must(False, "delivered", f"{call} is sent {partition}, which it does not have")
            return
        self._must(
            instance.position == delivery.first_offset,
            "gap",
            f"{call} is sent {partition} from {delivery.first_offset}, after {instance.position}",
        )
        instance.position = delivery.next_offset
        if (call.group_id, instance.member_id) in self._left:
            return  # thrown out by an operator, it is sent things until its gateway hears of it
        story = self._story(*instance.place)
        newest = story.newest
        if newest is None or newest.number <= instance.number:
            _has_it_now(story, instance)
            return
        if newest.member_id == instance.member_id:
            return
        if call.is_half_closed and delivery.next_offset <= newest.start:
            return  # it was committed in time, and the other one begins behind it
        if call.broker.process.resumed_at == self._world.loop.time():
            return  # it was sent before its process stood still, and comes now
        self._must(
            False,
            "two members",
            f"{call} is sent {partition} at {delivery.first_offset}, given to {newest.call} since",
        )

    def _acknowledged(self, call: Any, result: Any) -> None:
        asked = self._asked.pop((call.number, result.commit_id), [])
        for (partition, offset, number), each in zip(asked, result.results, strict=True):
            if each.HasField("error"):
                self._world.counts["commits refused"] += 1
                self._check_refused(call, self._instances[number], each.error)
                continue
            self._world.counts["commits acknowledged"] += 1
            story = self._story(call.group_id, partition)
            found = [
                at for at, commit in enumerate(story.commits)
                if commit.number == number and commit.offset >= offset
            ]  # fmt: skip
            self._must(
                bool(found),
                "acknowledged",
                f"offset {offset} of {partition} was acknowledged to {call} and is not in the log",
            )
            if found:
                story.acknowledged = max(story.acknowledged, found[0])

    def _check_refused(self, call: Any, instance: Instance, error: Any) -> None:
        """Check that a member that does what it is asked to can commit until it has given up."""
        if error.reason not in _NOT_ITS_OWN or (call.group_id, call.member_id) in self._left:
            return
        self._must(
            instance.lost or not self._cluster.is_calm(call, _STALL_S),
            "commit refused",
            f"{call} may not commit {instance.place}: {error.message}",
        )

    def _sought(self, call: Any, position: Any) -> int:
        partition = PartitionId(position.topic_id, position.partition)
        instance = call.instances[partition]
        instance.position = position.offset
        self._check_start(instance, self._story(*instance.place))
        return instance.number

    def _rises(self, call: Any, epoch: int) -> None:
        self._must(
            epoch >= self._epochs.get(call.number, -1),
            "epoch",
            f"{call} is told epoch {epoch} after {self._epochs.get(call.number)}",
        )
        self._epochs[call.number] = epoch

    # What is read of offsets.

    def floors(self, group_id: str) -> dict[Place, int]:
        """Return what whoever asks from now on has to find at least."""
        return {
            place: story.acknowledged
            for place, story in self._stories.items()
            if place[0] == group_id
        }

    def read(self, group_id: str, floors: dict[Place, int], found: Any) -> None:
        """Check what somebody was told of a group's offsets."""
        for place, floor in floors.items():
            if floor < 0:
                continue
            value = found.get(place[1])
            commits = self._stories[place].commits[floor:]
            self._must(
                value is not None and any(value.offset == each.offset for each in commits),
                "read",
                f"{place} was told to be at {value and value.offset}, and {commits[0].offset} was "
                "acknowledged before",
            )
        self._world.counts["offsets read"] += 1

    def newest(self, group_id: str, partition: PartitionId) -> int:
        """Return where a group is in a partition."""
        commits = self._story(group_id, partition).commits
        return commits[-1].offset if commits else 0

    # What the log says.

    def committed(self, home: Any, batch: Any) -> None:
        """Take a batch that is committed for good."""
        groups: dict[str, None] = {}
        for logged in read_batches([batch], batch.base_offset):
            record = logged.record
            match record:
                case OffsetRecord():
                    self._offset(record)
                case MemberRecord():
                    self._member(record)
                case AssignmentRecord():
                    self._assignment(record)
                    groups[record.group_id] = None
        for group_id in groups:
            self._check_owners(group_id)
        self.checks += 1

    def _offset(self, record: OffsetRecord) -> None:
        story, value = self._story(record.group_id, record.partition), record.value
        self._world.note(
            record.group_id, "offset", record.partition.topic_id[-2:], record.partition.partition,
            value and value.offset, value and value.metadata,
        )  # fmt: skip
        place = (record.group_id, record.partition)
        if value is None:
            self._must(False, "deleted", f"what was committed in {place} is deleted")
            return
        last = story.commits[-1] if story.commits else None
        if last is not None and value == last.value:
            self._world.counts["offsets written again"] += 1
            return
        now = self._world.loop.time()
        if value.metadata == RESET:
            story.commits.append(_Commit(value.offset, None, "", now, value))
            story.reset_at = now
            self._world.counts["offsets reset"] += 1
            return
        instance = self._committer(place, value.metadata)
        self._must(
            instance.told_at >= story.reset_at,
            "reset",
            f"{instance.call} commits {value.offset} in {place} behind a reset that it did not hear of",
        )
        newest = story.newest
        self._must(
            newest is None or newest.number <= instance.number,
            "late commit",
            f"{instance.call} commits {value.offset} in {place}, given to {newest and newest.call} since",
        )
        self._check_order(place, story, instance, value.offset)
        story.commits.append(_Commit(value.offset, instance.number, instance.member_id, now, value))

    def _committer(self, place: Place, metadata: str) -> Instance:
        """Return who has committed; brokers that commit for their members name nobody."""
        if metadata:
            return self._instances[int(metadata)]
        return next(
            each
            for each in reversed(self._instances)
            if each.place == place and each.call.is_half_closed
        )

    def _check_order(self, place: Place, story: _Story, instance: Instance, offset: int) -> None:
        """Check that a place does not go back.

        Of one member's commits of which nobody knows all are tried again, in order: what was acknowledged
        before is the bar then.
        """
        last = story.commits[-1] if story.commits else None
        if last is None or last.number is None:
            return
        bar = last.offset
        if last.number == instance.number:
            known = story.commits[story.acknowledged] if story.acknowledged >= 0 else None
            bar = known.offset if known is not None and known.number == instance.number else 0
        self._must(offset >= bar, "back", f"{place} goes back from {bar} to {offset}")

    def _member(self, record: MemberRecord) -> None:
        key, value, now = (record.group_id, record.member_id), record.value, self._world.loop.time()
        before = self._members.get(key)
        away_since = self._away_since.get(key)
        if value is None:
            self._members.pop(key, None)
            self._away_since.pop(key, None)
            self._world.note(key[0], "removed", key[1][:6])
            self._must(
                before is None
                or not before.is_away
                or away_since is None
                or key in self._left
                or now - away_since >= before.session_timeout_ms / 1000 - 0.05,
                "static",
                f"{key} is removed {now - (away_since or 0):.3f} s after it has left for a moment",
            )
            return
        self._world.note(
            key[0], "member", key[1][:6], value.attachment, value.instance_id,
            "away" if value.is_away else "",
        )  # fmt: skip
        if before is not None and value.attachment > before.attachment:
            self._away_since.pop(key, None)
        self._must(
            before is None or value.attachment >= before.attachment,
            "attachment",
            f"{key} goes back to attachment {value.attachment}",
        )
        if before is not None and before.token != value.token and not before.is_away:
            self._check_not_at_work(key, before.attachment)
        if before is not None and value.attachment > before.attachment:
            self._check_not_taken_back(key, before, value)
        self._members[key] = value
        if value.instance_id:
            others = [
                other for (group_id, other), each in self._members.items()
                if group_id == key[0] and each.instance_id == value.instance_id and other != key[1]
            ]  # fmt: skip
            self._must(not others, "instance", f"{key} and {others} are {value.instance_id}")

    def _assignment(self, record: AssignmentRecord) -> None:
        key, value = (record.group_id, record.member_id), record.value
        before = self._assignments.pop(key, None)
        if value is not None:
            self._assignments[key] = value
            self._given.update((*key, *given) for given in value.owned.items())
        if before is None:
            return
        had = {**before.owned, **before.revoking}
        has = {} if value is None else {**value.owned, **value.revoking}
        self._must(
            value is None
            or value.epoch > before.epoch
            or (value.epoch == before.epoch and has == had),
            "epoch",
            f"the epoch of {key} goes from {before.epoch} to {value and value.epoch}",
        )
        for partition in had:
            if partition not in has:
                self._check_lease(*key, partition)

    def _check_owners(self, group_id: str) -> None:
        owners: dict[PartitionId, str] = {}
        for (group, member_id), value in self._assignments.items():
            if group != group_id:
                continue
            for partition in (*value.owned, *value.revoking):
                self._must(
                    owners.setdefault(partition, member_id) == member_id,
                    "two owners",
                    f"{partition} is {member_id}'s and {owners[partition]}'s in {group_id}",
                )

    def _check_lease(self, group_id: str, member_id: str, partition: PartitionId) -> None:
        """Check that nobody may be delivering for a member what is taken from it now."""
        if (group_id, member_id) in self._left:
            return
        now = self._world.loop.time()
        value = self._members.get((group_id, member_id))
        if value is not None and value.is_away:
            return  # nothing was delivered any more before it left
        for broker in self._cluster.alive():
            for stream in broker.member_streams:
                membership = stream._membership
                self._must(
                    stream.member_id != member_id
                    or (value is not None and stream.attachment != value.attachment)
                    or not membership.may_deliver(now)
                    or partition not in membership._given,
                    "lease",
                    f"{member_id} loses {partition}, and {broker.process} may deliver it until "
                    f"{membership.may_deliver_until:.3f}",
                )

    def _check_not_taken_back(self, key: tuple[str, str], before: Any, value: Any) -> None:
        """Check that a member's older stream, which had begun, is not put in front of a newer one."""
        older, newer = (self._cluster.calls[number_of(each.address)] for each in (value, before))
        self._must(
            before.token != value.token
            or older.number >= newer.number
            or older.member_id != key[1],
            "taken back",
            f"{older} speaks for {key} again, and {newer} does since",
        )

    def _check_not_at_work(self, key: tuple[str, str], attachment: int) -> None:
        """Check that no process takes the place of one that is at work."""
        now = self._world.loop.time()
        for call in self._cluster.calls:
            if call.is_over or call.is_cut or call.member_id != key[1] or call.client.has_ended:
                continue
            for stream in call.broker.member_streams:
                self._must(
                    stream.member_id != key[1]
                    or stream.attachment != attachment
                    or not self._cluster.is_calm(call, _STALL_S)
                    or not stream._membership.may_deliver(now),
                    "in use",
                    f"the instance of {call} is taken while it is at work",
                )

    # Whether it flows.

    def check_flow(self) -> None:
        """Check that members whom nothing disturbs are sent what there is."""
        now = self._world.loop.time()
        for call in self._cluster.calls:
            if call.is_cut or call.is_over or not self._cluster.is_calm(call, _STALL_S):
                continue
            self._check_given_up(call, now)
            if call.is_half_closed and not self._cluster.is_calm_home(call.group_id, _STALL_S):
                continue  # it is sent what is committed, and nothing may be
            for partition, instance in call.instances.items():
                if instance.stopped or instance.position is None:
                    continue
                written = self._cluster.written_at(partition, instance.position)
                self._must(
                    written is None or now - max(written, instance.told_at) < _STALL_S,
                    "stalled",
                    f"{call} is not sent {partition} from {instance.position} on, written at {written}",
                )

    def _check_given_up(self, call: Any, now: float) -> None:
        """Check that nobody waits for what was given up, where nothing disturbs the coordinator either."""
        if not self._cluster.is_calm_home(call.group_id, _STALL_S):
            return
        value = self._assignments.get((call.group_id, call.member_id))
        for partition in value.revoking if value is not None else ():
            given_up_at = self._given_up.get((call.number, partition))
            self._must(
                given_up_at is None or now - given_up_at < _STALL_S,
                "given up",
                f"{call} has given up {partition} at {given_up_at}, and others wait for it still",
            )

    # Inside.

    def _story(self, group_id: str, partition: PartitionId) -> _Story:
        return self._stories.setdefault((group_id, partition), _Story())

    def _must(self, holds: bool, rule: str, text: str) -> None:
        self.checks += 1
        if not holds:
            self._world.broken(rule, text)
