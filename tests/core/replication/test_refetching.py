"""When a replica may throw damaged data away."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster.values import Id, PartitionValue, Replica
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.messages import Diverged, Push, Restart
from riverrun_server.core.replication.refetching import Refetching, Step
from riverrun_server.core.replication.terms import Registered, Terms

ID = PartitionId(b"t" * 16, 0)


def life(broker: int) -> Replica:
    return Replica(broker, Id(bytes([broker]) * 16))


OUT = PartitionValue(
    leader=1,
    leader_epoch=7,
    leader_broker_epoch=10,
    replicas=(1, 2, 3),
    isr=(life(1), life(3)),
    min_isr=2,
)
LEADER = Registered(10, life(1), 4)
RESTART = Restart(ID, 7, 5, (), (5, b"producers"))
FIRST = Push(ID, 7, None, (), 3, 0, 1, 0)


class Damaged:
    """The way back of broker 2, a second at a time."""

    def __init__(self) -> None:
        self.core = Refetching(2, Terms())
        self.core.begin()
        self.now = 100.0

    def step(self, value: PartitionValue = OUT, leader: Registered | None = LEADER) -> Step | None:
        self.now += 1.0
        return self.core.next_step(value, leader, self.now)

    def asked(self, value: PartitionValue = OUT) -> Damaged:
        assert self.step(value) is Step.SETTLE
        self.core.settled(value)
        assert self.step(value) is Step.ASK
        return self


def test_the_steps_follow_each_other_and_the_leaders_answer_is_the_last():
    it = Damaged().asked()
    assert it.core.may_throw_away(OUT, RESTART)
    assert it.core.may_throw_away(OUT, FIRST)


@pytest.mark.parametrize(
    "change",
    [
        {"isr": (life(1), life(2))},
        {"isr": (life(1),), "elr": (life(2),)},
        {"isr": (life(1), Replica(2, Id(b"another life    ")))},
        {"isr": (life(3),)},
    ],
    ids=["in sync", "eligible", "another life of it in sync", "the leader is not in sync"],
)
def test_as_long_as_that_is_so_it_only_tells(change):
    it = Damaged()
    value = dataclasses.replace(OUT, **change)
    assert [it.step(value) for _ in range(5)] == [Step.TELL] * 5
    it.core.settled(value)
    assert it.step(value) is Step.TELL
    it = Damaged().asked()
    assert not it.core.may_throw_away(value, RESTART)


@pytest.mark.parametrize(
    "leader",
    [None, dataclasses.replace(LEADER, fenced=True), dataclasses.replace(LEADER, broker_epoch=11)],
    ids=["gone", "fenced", "another process"],
)
def test_without_a_leader_who_is_there_it_only_tells(leader):
    assert Damaged().step(OUT, leader) is Step.TELL


def test_who_leads_or_holds_no_replica_has_nothing_to_do():
    it = Damaged()
    assert it.step(dataclasses.replace(OUT, leader=2)) is None
    assert it.step(dataclasses.replace(OUT, replicas=(1, 3))) is None


def test_what_contradicts_the_leader_is_told_and_never_thrown_away():
    core = Refetching(2, Terms())
    assert core.next_step(OUT, LEADER, 1.0) is Step.TELL
    core.settled(OUT)
    assert core.next_step(OUT, LEADER, 3.0) is Step.TELL
    assert not core.may_throw_away(OUT, RESTART)


def test_nothing_but_an_answer_to_its_question_is_one():
    it = Damaged()
    assert not it.core.may_throw_away(OUT, RESTART)
    assert it.step() is Step.SETTLE
    assert not it.core.may_throw_away(OUT, RESTART)
    it.core.settled(OUT)
    assert not it.core.may_throw_away(OUT, RESTART)
    assert it.step() is Step.ASK
    assert not it.core.may_throw_away(OUT, dataclasses.replace(FIRST, base_offset=3))
    assert not it.core.may_throw_away(OUT, Diverged(ID, 7, 7, 3, 7))


def test_in_another_leader_epoch_it_begins_with_the_change_of_nothing_again():
    it = Damaged().asked()
    later = dataclasses.replace(OUT, leader_epoch=8)
    assert not it.core.may_throw_away(later, RESTART)
    assert it.step(later) is Step.SETTLE
    assert not it.core.may_throw_away(later, RESTART)


def test_damage_that_is_found_again_takes_all_steps_again():
    it = Damaged().asked()
    it.core.ended(it.now)
    it.core.begin()
    assert not it.core.may_throw_away(OUT, RESTART)
    it.now += 1_000
    it.asked()


def test_the_steps_are_taken_in_peace():
    core = Refetching(2, Terms(retry_s=1.0))
    core.begin()
    assert core.next_step(OUT, LEADER, 0.0) is Step.SETTLE
    assert core.next_step(OUT, LEADER, 0.9) is None
    assert core.next_step(OUT, LEADER, 1.0) is Step.SETTLE
    core.hurry()
    assert core.next_step(OUT, LEADER, 1.1) is Step.SETTLE


def test_each_round_waits_twice_as_long_as_the_one_before_up_to_a_bound():
    core = Refetching(2, Terms(refetch_s=10.0))
    waits = []
    now = 0.0
    for _ in range(9):
        core.ended(now)
        core.begin()
        waited = 0.0
        while core.next_step(OUT, LEADER, now + waited) is None:
            waited += 1.0
        waits.append(waited)
        now += waited
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 640.0, 640.0]


def test_the_change_of_nothing_changes_nothing_and_insists_on_the_leader():
    change = Damaged().core.settling(OUT, 9, LEADER)
    assert change.value == dataclasses.replace(OUT, partition_epoch=1)
    assert (change.mod_revision, change.guards) == (9, ((1, 4),))
