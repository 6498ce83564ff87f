"""A coordinator, clients that hold views, and whatever may happen to both, in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from riverrun_server.core.errors import Reason
from riverrun_server.core.groups.group import held_by
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.holds import HoldState
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import AssignmentRecord, GroupRecord, MemberRecord
from riverrun_server.core.groups.membership import Attached, Beat
from riverrun_server.core.log.batch import PartitionId
from tests.core.groups_world import (
    NOTHING,
    Client,
    G,
    Late,
    World,
    compacted,
    hard_state,
    part,
    share,
    topic,
    tried,
)

NAMES = ("ta", "tb", "ub")
CLIENTS = st.integers(0, 3)
SESSION_MS, REVOCATION_MS = 3_000, 4_000
# What the driver does behind a step: as a rule the whole batch, and sometimes not yet.
THEN = st.sampled_from(("run", "run", "run", "settle", "step", "nothing"))
FENCED = {Reason.UNKNOWN_MEMBER, Reason.MEMBER_TAKEN_OVER}


class GroupsModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        limits = GroupsLimits(pause_us_per_member=0, doubt_ms=500)
        self.world = World({"ta": topic("ta", 3)}, limits).start()
        self.world.watchers.append(self.on_record)
        self.clients = [Client(), Client("one"), Client("two"), Client()]
        self.checked = (-1, -1)
        # (member, partition) that may become free now: given up, or lost with its member or its time.
        self.may_free: set[tuple[str, PartitionId]] = set()
        self.may_remove: set[str] = set()
        self.known: dict = {}
        self.holds: dict[int, set[PartitionId]] = {}
        self.heard: dict[str, int] = {}
        # Members whose stream is attached, as far as the coordinator can know.
        self.held: set[str] = set()

    @property
    def group(self):
        return self.world.machine.registry.get(G)

    # What holds for each record.

    def on_record(self, record) -> None:
        key = (type(record), getattr(record, "member_id", ""))
        old = self.known.get(key)
        assert record.value != old, "only what has changed is written"
        self.known[key] = record.value
        if isinstance(record, GroupRecord) and old and record.value:
            assert record.value.epoch > old.epoch or record.value.emptied_at_ms is None
        if isinstance(record, MemberRecord) and old:
            if record.value is None:
                assert record.member_id in self.may_remove, "it leaves only where it may"
            else:
                assert record.value.attachment >= old.attachment
        if isinstance(record, AssignmentRecord):
            self.on_assignment(record, old)
        self.check_exclusive()

    def on_assignment(self, record, old) -> None:
        for partition in held_by(old) - held_by(record.value):
            freed = (record.member_id, partition)
            assert freed in self.may_free or record.member_id in self.may_remove, freed
        if old is None or record.value is None:
            return
        new = record.value
        assert new.epoch >= old.epoch
        told = old.owned.keys() != new.owned.keys() or old.revoking.keys() != new.revoking.keys()
        assert not told or new.epoch > old.epoch, "each view has its own number"
        for partition in held_by(old) & held_by(new):
            before = old.owned.get(partition, old.revoking.get(partition))
            assert before == new.owned.get(partition, new.revoking.get(partition))
        assert not old.revoking.keys() & new.owned.keys(), "nobody takes back what it gives up"
        for partition in new.owned.keys() - old.owned.keys():
            assert new.owned[partition] == new.epoch
            assert not any(partition in held for held in self.holds.values()), "it is held"

    def check_exclusive(self) -> None:
        group = self.group
        if group is None:
            return
        holders = {}
        for member_id, has in group.assignments.items():
            assert has.epoch <= group.epoch
            assert not has.owned.keys() & has.revoking.keys()
            for partition in held_by(has):
                assert holders.setdefault(partition, member_id) == member_id
                assert (has.owned | has.revoking)[partition] <= has.epoch
        assert holders == group.holders
        instances = {
            each.instance_id: member_id
            for member_id, each in group.members.items()
            if each.instance_id
        }
        assert instances == group.instances
        assert len(instances) == sum(bool(each.instance_id) for each in group.members.values())

    def do(self, records, free=(), remove=()) -> None:
        self.may_free, self.may_remove = set(free), set(remove)
        self.world.do(records)
        self.may_free, self.may_remove = set(), set()

    @initialize()
    def begin(self):
        for n in range(3):
            self.enter(n, {"ta"}, "")
        self.then("run")

    def then(self, what: str) -> None:
        """Do what the driver does after a step: settle a part or all of it, and commit."""
        if what != "nothing":
            self.settle_step()
        while what in {"run", "settle"} and not self.world.machine.is_settled:
            self.settle_step()
        if what == "run":
            self.commit()

    # What clients do.

    @rule(
        n=CLIENTS,
        topics=st.sets(st.sampled_from(NAMES)),
        pattern=st.sampled_from(("", "u*")),
        then=THEN,
    )
    def join(self, n, topics, pattern, then):
        self.enter(n, topics, pattern)
        self.then(then)

    def enter(self, n, topics, pattern):
        client = self.clients[n]
        if client.attached or client.asked or not (topics or pattern):
            return
        wanted = Join(
            topics=tuple(topics),
            pattern=pattern,
            instance_id=client.instance,
            session_timeout_ms=SESSION_MS,
            revocation_timeout_ms=REVOCATION_MS,
        )
        holder = self.group and self.group.instances.get(client.instance)
        before = self.group.assignments.get(holder) if holder else None
        answer = tried(self.world.attach, wanted)
        if isinstance(answer, Reason):
            assert answer in {Reason.INSTANCE_IN_USE, Reason.COORDINATOR_LOADING}
            assert (answer is Reason.INSTANCE_IN_USE) == (holder in self.held)
            return
        client.asked = answer
        if holder:
            assert client.asked.member_id == holder
            assert holder not in self.held
            assert self.group.assignments.get(holder) == before, "nothing moves for it"
        self.heard[client.asked.member_id] = self.world.now
        self.held.add(client.asked.member_id)

    @rule(n=CLIENTS, then=THEN)
    def reattach(self, n, then):
        """Come back over another gateway; the old one may not know."""
        client = self.clients[n]
        if not client.attached or client.asked:
            return
        was = client.attached
        answer = tried(self.world.attach, Reattach(member_id=was.member_id, token=was.token))
        if isinstance(answer, Reason):
            assert answer in FENCED
            client.gone()
            return
        client.asked = answer
        assert client.asked.attachment > was.attachment
        self.heard[was.member_id] = self.world.now
        self.held.add(was.member_id)
        self.then(then)

    @rule(n=CLIENTS, told=st.booleans())
    def end(self, n, told):
        self.die(n, told)

    def die(self, n, told):
        """Die without a word; its gateway may say that the stream has ended."""
        client = self.clients[n]
        if client.attached and told:
            member_id, attachment, _ = client.attached
            self.world.machine.detached(G, member_id, attachment)
            member = self.group and self.group.members.get(member_id)
            if member and member.attachment == attachment:
                self.held.discard(member_id)
        client.gone()

    @rule(n=CLIENTS, told=st.booleans(), beaten=st.booleans(), then=THEN)
    def restart(self, n, told, beaten, then):
        """Die and be there again at once, before or after a beat of those who are well."""
        if beaten:
            self.wait(0)
        self.die(n, told)
        self.enter(n, {"ta"}, "")
        self.then(then)

    @rule(n=CLIENTS)
    def hang(self, n):
        """Stop answering, for as long as it takes to be thrown out, or to be heard of again."""
        self.clients[n].is_silent = not self.clients[n].is_silent

    @rule(n=CLIENTS, temporary=st.booleans(), then=THEN)
    def leave(self, n, temporary, then):
        client = self.clients[n]
        if not client.attached or client.asked:
            return
        member_id, attachment, _ = client.attached
        is_kept = temporary and client.instance
        records = tried(
            self.world.machine.leave,
            G,
            member_id,
            attachment,
            self.world.now,
            temporary=temporary,
        )
        if isinstance(records, Reason):
            assert records in FENCED
        else:
            self.do(records, remove=[] if is_kept else [member_id])
            self.held.discard(member_id)
            assert (self.group is not None and member_id in self.group.members) == bool(is_kept)
            self.heard[member_id] = self.world.now
        client.gone()
        self.then(then)

    @rule(n=CLIENTS, then=THEN)
    def acknowledge(self, n, then):
        client = self.clients[n]
        if client.attached and client.view.revoking:
            self.say_revoked(Late(client.attached, client.view))
        self.then(then)

    @rule(n=CLIENTS, data=st.data(), then=THEN)
    def say_something_late(self, n, data, then):
        """Acknowledge and commit as of a view of the past, maybe of another life."""
        past = self.clients[n].past
        if past:
            late = data.draw(st.sampled_from(past))
            self.say_revoked(late)
            self.commit_under(late)
        self.then(then)

    def say_revoked(self, late: Late) -> None:
        """Acknowledge what a view says; nothing is freed that was given after it."""
        member_id, attachment, _ = late.attached
        has = self.group and self.group.assignments.get(member_id)
        records = tried(
            self.world.machine.revoked,
            G,
            member_id,
            attachment,
            late.view.revoking,
            late.view.epoch,
        )
        speaks = self.speaks(late)
        if isinstance(records, Reason):
            assert records in FENCED
            assert not speaks
            return
        assert speaks
        same = has.revoking.items() & late.view.revoking.items() if has else ()
        self.do(records, [(member_id, partition) for partition, _ in same])
        left = self.group.assignments[member_id].revoking.items() if has else ()
        assert not set(left) & set(same)

    def commit_under(self, late: Late) -> dict[PartitionId, Reason]:
        """Commit what was read under a view: it counts for what is the same assignment until now."""
        member_id, attachment, _ = late.attached
        view, group = late.view, self.group
        partitions = {part(name, number) for name in NAMES for number in range(4)}
        check = self.world.machine.check_commit
        refused = tried(check, G, member_id, attachment, view.epoch, partitions)
        if isinstance(refused, Reason):
            assert refused in FENCED
            assert not self.speaks(late)
            return dict.fromkeys(partitions, refused)
        assert self.speaks(late)
        for partition in partitions:
            read_in = (view.owned | view.revoking).get(partition)
            has = group.assignments.get(member_id)
            given_in = (has.owned | has.revoking).get(partition) if has else None
            if read_in is not None:
                assert (partition not in refused) == (given_in == read_in)
            elif partition not in refused:
                assert given_in is not None
                assert given_in <= view.epoch
        has = group.assignments.get(member_id)
        untold = has.epoch + 1 if has else 1
        assert check(G, member_id, attachment, untold, partitions).keys() == partitions
        return {partition: each.reason for partition, each in refused.items()}

    def speaks(self, late: Late) -> bool:
        """Return whether the stream of back then speaks for its member now."""
        member_id, attachment, _ = late.attached
        member = self.group and self.group.members.get(member_id)
        return member is not None and member.attachment == attachment

    @rule()
    def commit_of_nobody(self):
        answer = tried(self.world.machine.check_commit, G, None, None, 0, [part("ta", 0)])
        has_members = self.group is not None and self.group.members
        assert answer == (Reason.GROUP_HAS_MEMBERS if has_members else {})

    # What the time and gateways do.

    @rule(ms=st.sampled_from((0, 100, 600, 1_000, 2_000, 5_000)), then=THEN)
    def pass_time(self, ms, then):
        self.wait(ms)
        self.then(then)

    def wait(self, ms):
        """Let time pass; clients that are well are heard of first and are never thrown out."""
        world = self.world
        beating = [c for c in self.clients if c.attached and not c.is_silent and not c.asked]
        for client, beat in zip(
            beating, world.beat(*(each.attached for each in beating)), strict=True
        ):
            member_id, attachment, _ = client.attached
            member = self.group and self.group.members.get(member_id)
            if member is None or member.is_away:
                assert beat is Beat.UNKNOWN
                client.gone()
            elif member.attachment > attachment:
                assert beat is Beat.TAKEN_OVER
                client.gone()
            else:
                assert beat is Beat.OK
                self.held.add(member_id)
                self.heard[member_id] = world.now
        end = world.now + ms
        members = dict(self.group.members) if self.group else {}
        silent = {
            member_id
            for member_id in members
            if self.heard[member_id] + members[member_id].session_timeout_ms <= end
        }
        late = {
            (member_id, partition)
            for member_id, has in (self.group.assignments.items() if self.group else ())
            for partition in has.revoking
            if self.revoked_at(member_id, partition) <= end
        }
        self.may_free, self.may_remove = set(late), set(silent)
        world.pass_time(ms)
        self.may_free, self.may_remove = set(), set()
        self.holds_are_kept()
        left = set(self.group.members) if self.group else set()
        assert left == members.keys() - silent, "who is silent goes, and nobody else"
        for member_id, partition in late:
            if member_id in left:
                assert partition not in self.group.assignments[member_id].revoking

    def revoked_at(self, member_id, partition) -> int:
        by_ms = self.group.presence[member_id].revoke_by_ms
        assert partition in by_ms, "the time of everything that is to be given up runs"
        assert by_ms[partition] <= self.world.now + REVOCATION_MS
        return by_ms[partition]

    @rule(name=st.sampled_from(NAMES), partitions=st.integers(0, 4), then=THEN)
    def topics_change(self, name, partitions, then):
        topics = dict(self.world.topics)
        topics.pop(name, None)
        if partitions:
            topics[name] = topic(name, partitions)
        self.world.topics = topics
        self.world.machine.topics_changed(topics)
        self.then(then)

    # What operators do.

    @precondition(lambda self: self.group is not None and self.group.members)
    @rule(data=st.data())
    def remove_member(self, data):
        member_id = data.draw(st.sampled_from(sorted(self.group.members)))
        self.do(self.world.machine.remove_member(G, member_id), remove=[member_id])

    @precondition(lambda self: self.group is not None)
    @rule(partitions=st.sets(st.integers(0, 2), min_size=1), then=THEN)
    def hold(self, partitions, then):
        wanted = {part("ta", number) for number in partitions}
        operations = self.world.machine.operations
        answer = tried(operations.hold, G, wanted, self.world.now + 3_000)
        if any(wanted & held for held in self.holds.values()):
            assert answer is Reason.CONFLICT
        else:
            self.holds[answer] = wanted
        self.then(then)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def lift(self, data):
        number = data.draw(st.sampled_from(sorted(self.holds)))
        self.world.machine.operations.lift(G, number)

    @rule()
    def delete(self):
        answer = tried(self.world.machine.operations.delete_group, G, [])
        if self.group is None:
            assert answer is Reason.GROUP_NOT_FOUND
        elif self.group.members:
            assert answer is Reason.GROUP_HAS_MEMBERS
        else:
            self.do(answer)

    @rule(has_offsets=st.booleans())
    def offsets(self, has_offsets):
        self.world.offsets = {G} if has_offsets else set()

    # What the driver does.

    @rule()
    def settle_one_step(self):
        self.settle_step()

    def settle_step(self) -> None:
        group = self.group
        away = set()
        if group is not None:
            away = {
                (member_id, partition)
                for member_id, has in group.assignments.items()
                if member_id in group.members and group.members[member_id].is_away
                for partition in held_by(has)
            }
        self.do(self.world.machine.settle(self.world.now), free=away)

    @rule()
    def commit(self):
        self.world.told.clear()
        self.world.commit()
        for client in self.clients:
            if client.asked:
                if client.attached is None or client.attached.member_id != client.asked.member_id:
                    client.view = NOTHING
                client.attached, client.asked = client.asked, None
        for ended in self.world.ended:
            for client in self.clients:
                if client.attached and (*ended.member, ended.attachment) == (
                    G,
                    *client.attached[:2],
                ):
                    client.gone()
        self.world.ended.clear()
        for client in self.clients:
            told = client.attached and self.world.told.get(client.attached.member_id)
            if told:
                assert told.epoch > client.view.epoch or told == client.view
                client.view = told
                client.past.append(Late(client.attached, told))

    @rule(data=st.data())
    def crash(self, data):
        """Begin anew with the log, of which some may be lost that nobody was told of."""
        world = self.world
        survived = data.draw(st.integers(0, len(world.log) - world.committed))
        world.crash(survived)
        self.holds.clear()
        self.held.clear()
        self.known = {
            (kind, member_id): value
            for (kind, _, member_id), value in hard_state(world.machine).items()
        }
        for client in self.clients:
            # Nobody hears the answers of what waited; who had asked for a new place asks again.
            client.asked = None
        for member_id in self.group.members if self.group else ():
            self.heard[member_id] = world.now

    @rule(limit=st.sampled_from((1, 300, 10_000)))
    def rewrite(self, limit):
        self.commit()
        self.known.clear()
        before = hard_state(self.world.machine)
        watchers, self.world.watchers = self.world.watchers, []
        self.world.rewrite(limit)
        self.world.watchers = watchers
        assert hard_state(self.world.machine) == before
        self.known = {(kind, member_id): value for (kind, _, member_id), value in before.items()}

    # What always holds.

    @invariant()
    def holds_are_kept(self):
        operations = self.world.machine.operations
        for number, wanted in [*self.holds.items()]:
            state = operations.hold_state(G, number)
            if state is HoldState.OVER:
                del self.holds[number]
            else:
                is_free = wanted.isdisjoint(self.group.holders)
                assert (state is HoldState.FREE) == is_free

    @invariant()
    def nobody_waits_for_who_is_away(self):
        if self.group is None or not self.world.machine.is_settled:
            return
        for member_id, member in self.group.members.items():
            has = self.group.assignments.get(member_id)
            assert not member.is_away or not has or not has.revoking

    @invariant()
    def a_view_counts_until_it_is_taken(self):
        for client in self.clients:
            if client.attached:
                self.commit_under(Late(client.attached, client.view))

    @invariant()
    def the_log_says_it_all(self):
        world = self.world
        if self.checked == (len(world.log), world.log_start):
            return
        self.checked = (len(world.log), world.log_start)
        state = hard_state(world.machine)
        assert hard_state(world.started(world.stored())) == state
        assert hard_state(world.started(compacted(world.stored()))) == state
        assert world.machine.registry.count == len(state)
        fresh = world.started(world.stored()).registry
        assert world.machine.registry.size_bytes == fresh.size_bytes
        assert world.machine.registry.members == fresh.members

    def teardown(self):
        """Whoever is left acknowledges everything, and everybody has what it should in a few steps."""
        world = self.world
        for number in [*self.holds]:
            world.machine.operations.lift(G, number)
        self.holds.clear()
        for _ in range(8):
            self.settle_step()
            self.settle_step()
            self.settle_step()
            assert world.machine.is_settled
            self.commit()
            if self.group is None or self.group.is_settled:
                break
            for member_id, has in [*self.group.assignments.items()]:
                attached = Attached(member_id, self.group.members[member_id].attachment, b"")
                self.say_revoked(Late(attached, MemberView(has.epoch, {}, dict(has.revoking))))
        if self.group is not None:
            self.check_everybody_has_their_share()

    def check_everybody_has_their_share(self):
        group, machine = self.group, self.world.machine
        assert group.is_settled
        wanted = machine._subscriptions.subscribers(group.members)
        topics = machine._subscriptions.subscribed(wanted)
        everything = {
            PartitionId(each.topic_id, number)
            for each in topics
            for number in range(each.partitions)
        }
        assert group.holders.keys() == everything
        if group.members:
            targets = {member_id: has.target for member_id, has in group.assignments.items()}
            assert share(wanted, topics, targets) == targets


TestGroups = GroupsModel.TestCase
TestGroups.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
