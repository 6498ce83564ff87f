"""Bugs planted into coordinators and gateways, one at a time: a simulator that misses one of them proves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from unittest.mock import patch

from riverrun_server.core.errors import Refusal
from riverrun_server.core.gateway.membership import Membership
from riverrun_server.core.groups import groups, membership, reconciling
from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.groups import Groups
from riverrun_server.runtime import found_coordinators, group_operations
from riverrun_server.runtime.acknowledging import Acknowledging
from riverrun_server.runtime.group_calls import take_beats
from riverrun_server.runtime.group_turn import Answer, Turn
from riverrun_server.runtime.member_feeds import MemberFeeds
from riverrun_server.runtime.member_stream import MemberStream
from riverrun_server.runtime.offsets_log import OffsetsLog
from riverrun_server.runtime.offsets_rewrite import OffsetsRewrite
from tests.sim.groups.nemesis import KINDS
from tests.sim.groups.options import Options


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    Attributes:
        says: what the broken code believes.
        plant: puts it in and takes it out again.
        kinds: the faults that it takes; those that are drawn where none is named.
        options: what the groups are like, where not as drawn.
    """

    says: str
    plant: Callable[[], contextlib.AbstractContextManager[object]]
    kinds: tuple[str, ...]
    options: Callable[[Options], Options]


MUTANTS: dict[str, Mutant] = {}


def _busy(options: Options) -> Options:
    """Return groups in which much happens at every moment."""
    return dataclasses.replace(options, mean_gap_s=0.3, append_s=0.05, produce_every_s=0.05)


def _shortened(options: Options) -> Options:
    """Return groups whose log is rewritten again and again."""
    return dataclasses.replace(_busy(options), rewrite_records=20)


def mutant(
    says: str, *kinds: str, options: Callable[[Options], Options] = _busy
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Register a planted bug under its function's name."""
    for kind in kinds:
        assert kind in KINDS, kind

    def register(plant: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        MUTANTS[plant.__name__] = Mutant(says, contextlib.contextmanager(plant), kinds, options)
        return plant

    return register


# When it counts.


@mutant("what is written is as good as committed", "leader_moved", "broker_killed")
def answered_before_it_is_committed():
    original = OffsetsLog._append

    async def append(self, turn):
        turn.succeed()
        await original(self, turn)

    with patch.object(OffsetsLog, "_append", append):
        yield


@mutant("members may know what is about to be written", "leader_moved", "broker_killed")
def told_before_it_is_committed():
    original = OffsetsLog._append

    async def append(self, turn):
        self.feeds.tell(self.partition.groups)
        await original(self, turn)

    with patch.object(OffsetsLog, "_append", append):
        yield


@mutant("what a coordinator remembers is true", "replicas_scarce", "member_more", "member_left")
def remembered_although_it_was_not_written():
    def failed(self, refusal, turn, offset):
        return refusal

    with patch.object(OffsetsLog, "_failed", failed):
        yield


# Who leads.


@mutant("whoever has led leads", "broker_cut_off", "broker_paused")
def beats_of_a_deposed_coordinator_count():
    async def beat(self, beats, leader_epoch=None):
        self._check(beats[0].group_id, leader_epoch)
        return take_beats(self.partition.groups, beats, self._services.now_ms())

    with patch.object(OffsetsLog, "beat", beat):
        yield


@mutant("whoever has led knows", "broker_cut_off", "offsets_read", "stream_lost")
def a_deposed_coordinator_tells_offsets():
    async def committed(self, group_id, leader_epoch=None):
        self.partition.offsets.check_ready(group_id)
        return self.partition.offsets.committed(group_id)

    with patch.object(OffsetsLog, "committed", committed):
        yield


@mutant(
    "who was silent before an election is silent behind it", "leader_moved", "leader_elected_again"
)
def sessions_go_on_behind_an_election():
    original = Group.loaded

    def loaded(self, now_ms, doubt_ms):
        original(self, now_ms - 1000, doubt_ms)

    with patch.object(Group, "loaded", loaded):
        yield


# Who has what.


@mutant("who is asked to give something up does so at once", "member_more", "member_slow")
def given_before_it_is_given_up():
    def is_free(group, partition):
        return not group.is_held(partition)

    with patch.object(reconciling, "_is_free", is_free):
        yield


@mutant("a lease is as good as a session", "broker_paused", "broker_cut_off", "links_cut")
def delivered_without_a_lease():
    with patch.object(MemberStream, "_look_at_lease", lambda self: None):
        yield


@mutant("a lease runs from when it is confirmed", "broker_paused", "broker_cut_off")
def leases_run_from_the_answer():
    def confirmed(self, sent_at):
        now = asyncio.get_running_loop().time()
        self._lease_until = max(self._lease_until, now + self._session_timeout_s * 0.8)

    with patch.object(Membership, "confirmed", confirmed):
        yield


@mutant("who asks for a place in the group gets it", "member_twice")
def an_instance_is_taken_from_who_is_at_work():
    with patch.object(membership, "_check_not_held", lambda *_: None):
        yield


@mutant("who leaves for a moment leaves", "member_restarted")
def a_moment_is_for_good():
    original = membership.leave

    def leave(group, member_id, *, temporary):
        return original(group, member_id, temporary=False)

    with patch.object(membership, "leave", leave):
        yield


# Commits.


@mutant("every member commits what it likes", "member_paused", "member_slow", "offsets_reset")
def commits_of_what_was_lost_count():
    with patch.object(groups, "refused_partitions", lambda *_: {}):
        yield


@mutant("a member is known by its id", "stream_lost", "broker_paused", "links_cut")
def streams_that_were_replaced_commit():
    original = membership.speaking

    def speaking(group, group_id, member_id, attachment):
        del attachment
        return original(group, group_id, member_id, None)

    with patch.object(membership, "speaking", speaking):
        yield


@mutant("a stream is as good as the one after it", "stream_lost", "leader_elected_again")
def an_older_stream_gets_in_front_of_a_newer_one():
    with patch.object(membership, "_check_newest", lambda *_: None):
        yield


@mutant("whoever gives up has committed", "member_more", "topic_grown")
def given_up_ahead_of_commits():
    async def given_up(self, partitions, epoch):
        self._acknowledge(partitions or self._membership.unacknowledged, epoch)

    with patch.object(MemberStream, "given_up", given_up):
        yield


@mutant("nobody works while offsets are reset", "offsets_reset")
def reset_in_the_middle_of_work():
    def reset_offsets(group_id, records, within_s, resets, done):
        def act(turn: Turn) -> Answer[None]:
            turn.store(group_id, records)
            turn.answer(done, lambda: None)
            return lambda: None

        return act

    with patch.object(group_operations, "reset_offsets", reset_offsets):
        yield


# The log.


@mutant("what a rewrite says is the newest", "offsets_reset", options=_shortened)
def old_offsets_are_written_behind_new_ones():
    original = Turn.rewrite

    def rewrite(self, stale, limit_bytes):
        stored, self._stored = self._stored, set()
        original(self, stale, limit_bytes)
        self._stored |= stored

    with patch.object(Turn, "rewrite", rewrite):
        yield


@mutant("a rewrite is done when it has begun", "leader_moved", options=_shortened)
def trimmed_too_early():
    async def end(self):
        partition = self._partition
        await self._access.trim(partition.offsets.next_offset)
        partition.end_rewrite(partition.offsets.next_offset)

    with (
        patch.object(
            OffsetsRewrite, "is_written", property(lambda self: self._partition.rewriting)
        ),
        patch.object(OffsetsRewrite, "end", end),
    ):
        yield


# What has to go on.


@mutant("topics are there from the beginning", "topic_grown", "topic_created")
def new_partitions_are_nobodys():
    with patch.object(OffsetsLog, "_topics_are_new", lambda self: None):
        yield


@mutant("members leave in order", "member_killed", "stream_lost")
def nobody_is_ever_silent_for_too_long():
    with patch.object(Groups, "expire", lambda self, now_ms: []):
        yield


def _patient(options: Options) -> Options:
    """Return groups whose members may take long to give something up."""
    return dataclasses.replace(_busy(options), revocation_timeout_ms=8000, static=0)


@mutant(
    "a new coordinator knows what the old one was told",
    "leader_moved",
    "links_cut",
    "member_more",
    options=_patient,
)
def given_up_is_said_once():
    def attached(self, attachment):
        self._attachment = attachment
        self._stirred.set()

    async def run(self):
        while True:
            self._stirred.clear()
            pending = {
                each: epoch
                for each, epoch in self._membership.to_acknowledge().items()
                if self._said.get(each) != epoch
            }
            if not pending or self._attachment is None:
                await self._stirred.wait()
                continue
            self._said.update(pending)
            with contextlib.suppress(Refusal):
                await self._attachment.revoked(pending)

    with (
        patch.object(Acknowledging, "attached", attached),
        patch.object(Acknowledging, "run", run),
    ):
        yield


@mutant("who is attached stays so", "leader_moved", "leader_elected_again", "broker_cut_off")
def an_attachment_outlives_its_coordinator():
    with (
        patch.object(found_coordinators.FoundCoordinators, "_changed", lambda *_: None),
        patch.object(MemberFeeds, "end", lambda self: self._feeds.clear()),
        patch.object(MemberStream, "doubted", lambda *_: None),
    ):
        yield
