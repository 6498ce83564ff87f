"""Offsets and groups in one log: replay tells them apart, and a rewrite keeps what either needs."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord, OffsetsLimits
from riverrun_server.core.groups.offsets_partition import OffsetsPartition
from tests.core.groups_world import compile_pattern, hard_state, part, share, topic

NOW = 1_000
ALWAYS = lambda _: True  # noqa: E731 - a name for an argument
T = Join(topics=("t",))


class Log:
    """A log and what is known of it."""

    def __init__(self, limits=None):
        self.limits = limits or OffsetsLimits()
        self.records, self.start = [], 0
        self.known = self.replayed()

    def replayed(self):
        groups = GroupsLimits(pause_us_per_member=0)
        make = partial(Groups, groups, lambda _: share, compile_pattern)
        known = OffsetsPartition(self.limits, make)
        known.groups.topics_changed({"t": topic("t", 2)})
        for offset in range(self.start, len(self.records)):
            known.replay(self.records[offset], offset)
        known.loaded(self.start, len(self.records), NOW)
        return known

    def append(self, records):
        for record in records:
            self.records.append(record)
            self.known.replay(record, len(self.records) - 1)

    def join(self, group, number):
        records, _ = self.known.groups.attach(group, T, NOW, f"m{number}", b"token")
        self.append(records)

    def leave(self, group):
        for member_id in sorted(_members(self.known, group)):
            self.append(self.known.groups.remove_member(group, member_id))

    def commit(self, group, offset):
        self.append([OffsetRecord(group, part("t", 0), CommittedOffset(offset, None, "", NOW))])

    def settle(self):
        while not self.known.groups.is_settled:
            self.append(self.known.groups.settle(NOW))

    def rewrite(self, limit_bytes, pieces_max=10**6):
        known = self.known
        known.begin_rewrite()
        while pieces_max and (records := known.rewritten(limit_bytes, ALWAYS)):
            assert known.trimmable() is None
            self.append(records)
            pieces_max -= 1
        point = known.trimmable()
        self.start = self.start if point is None else point
        known.end_rewrite(self.start)
        return point


def _members(known, group):
    found = known.groups.registry.get(group)
    return found.members if found else {}


def said(known, groups="gh"):
    return hard_state(known.groups), {each: known.offsets.committed(each) for each in groups}


def test_each_record_is_told_to_whom_it_concerns():
    log = Log()
    log.join("g", 1)
    log.commit("g", 5)
    log.settle()
    assert log.known.offsets.count == 1
    assert log.known.groups.registry.count == 3
    assert log.known.offsets.next_offset == len(log.records) == 4
    assert said(log.replayed()) == said(log.known)


def test_a_group_is_remembered_for_its_offsets():
    log = Log()
    log.join("g", 1)
    log.commit("g", 5)
    log.join("h", 2)
    log.settle()
    log.leave("g")
    log.leave("h")
    log.settle()
    (listing,) = log.known.groups.operations.list_groups()
    assert listing == ("g", GroupState.EMPTY, listing.epoch, 0)


def test_a_log_full_of_members_is_not_too_long():
    log = Log(OffsetsLimits(rewrite_records_min=4, rewrite_factor=2))
    for number in range(10):
        log.join("g", number)
    log.settle()
    assert not log.known.rewrite_due()
    for offset in range(30):
        log.commit("g", offset)
    assert log.known.rewrite_due()
    log.rewrite(100)
    assert not log.known.rewrite_due()


def test_what_was_said_before_is_forgotten_with_everything_else():
    log = Log()
    log.join("g", 1)
    log.commit("g", 5)
    log.settle()
    log.known.begin_rewrite()
    log.known.reload()
    assert not log.known.rewriting
    assert not log.known.rewrite_due()
    assert log.known.groups.registry.count == 0


GROUPS = st.sampled_from("gh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), GROUPS, st.just(0)),
        st.tuples(st.just("leave"), GROUPS, st.just(0)),
        st.tuples(st.just("commit"), GROUPS, st.integers(0, 9)),
        st.tuples(st.just("rewrite"), st.just(""), st.sampled_from((1, 300, 10_000))),
        st.tuples(st.just("given up"), st.just(""), st.integers(0, 3)),
    ),
    max_size=30,
)


@given(STEPS)
def test_a_rewrite_loses_nothing_wherever_it_ends(steps):
    log = Log()
    for number, (what, group, value) in enumerate(steps):
        match what:
            case "join":
                log.join(group, number)
                log.settle()
            case "leave":
                log.leave(group)
                log.settle()
            case "commit":
                log.commit(group, value)
            case "rewrite":
                before = said(log.known)
                assert log.rewrite(value) is not None
                assert said(log.known) == before
                live = log.known.offsets.count + log.known.groups.registry.count
                assert len(log.records) - log.start == live
            case "given up":
                log.rewrite(1, pieces_max=value)
        assert said(log.replayed()) == said(log.known)
        assert not log.known.rewriting
