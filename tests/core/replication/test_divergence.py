"""Two logs of any history are made to agree: in finitely many rounds, and no further than they must.

A log is a list of (leader epoch, record). Histories are made by an oracle that knows both logs: it
copies what a correct follower would have copied, as far as it likes, and loses what was not synced.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster.values import Id, PartitionValue, Replica
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.core.replication.feeding import Feeds, Windows
from riverrun_server.core.replication.following import Following, FollowingState
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.leadership import Handshake, Leadership
from riverrun_server.core.replication.messages import Diverged, Push
from riverrun_server.core.replication.terms import Terms

ID = PartitionId(b"t" * 16, 0)


def machine_of(log, committed=0) -> PartitionMachine:
    state = LogState(log_end_offset=len(log), high_watermark=committed)
    machine = PartitionMachine(state, ProducerTable(1), leader_epoch=0, replicated=True)
    machine.synced(len(log))
    return machine


def epochs_of(log) -> EpochMap:
    epochs = EpochMap()
    for offset, (leader_epoch, _) in enumerate(log):
        epochs.begin(leader_epoch, offset)
    return epochs


def leadership(log, leader_epoch: int) -> Leadership:
    machine, epochs = machine_of(log), epochs_of(log)
    epochs.begin(leader_epoch, len(log))
    value = PartitionValue(
        leader=1,
        leader_epoch=leader_epoch,
        leader_broker_epoch=50,
        replicas=(1, 2),
        isr=(Replica(1, Id(bytes(16))),),
    )
    feeds = Feeds(1_000, 1_000, Windows(1_000), lambda: None)
    insync = InSyncSet(1, value, 9)
    return Leadership(machine, epochs, insync, feeds, 1, len(log), Terms(), 0.0)


def reconcile(leader_log, follower_log, leader_epoch: int, committed: int = 0):
    """Return the follower's log once both agree, its state, and how many rounds that took."""
    leader = leadership(leader_log, leader_epoch)
    machine, epochs = machine_of(follower_log, committed), epochs_of(follower_log)
    following = Following(ID, leader_epoch, machine, epochs, 1.0)
    log = list(follower_log)
    for rounds in range(len(leader_log) + len(follower_log) + 2):
        answer = leader.followed(2, 60, following.ask(0.0), 0)
        if answer is Handshake.FEED:
            return log, following, rounds
        assert isinstance(answer, Diverged)
        target = following.diverged(answer)
        if target is None:
            return log, following, rounds
        assert target < len(log)
        del log[target:]
        epochs.truncate_from(target)
        machine.cut(dataclasses.replace(machine.state, log_end_offset=target))
    raise AssertionError("the rounds do not end")


def common(one, other) -> int:
    """Return how long the prefix is that two logs have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


# In each epoch: who leads, how much it writes, and for each replica how far it copies (None: it is
# away) and how much of its end it loses then.
away = st.none() | st.tuples(st.integers(0, 12), st.integers(0, 2))
histories = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.tuples(away, away, away)), max_size=8
)


def play(history):
    logs, record = [[], [], []], 0
    for leader_epoch, (leader, count, others) in enumerate(history, start=1):
        for _ in range(count):
            logs[leader].append((leader_epoch, record))
            record += 1
        for number, how in enumerate(others):
            if how is None:
                continue
            reach, lost = how
            log, source = logs[number], logs[leader]
            if number != leader:
                same = common(log, source)
                log[:] = source[: max(same, min(reach, len(source)))]
            del log[len(log) - min(lost, len(log)) :]
    return logs


@settings(max_examples=150, deadline=None)
@given(histories, st.permutations([0, 1, 2]))
# A follower of epoch 1 led epoch 2 alone, the leader of epoch 3 never had it (KIP-279, scenario 1).
@example([(0, 2, (None, (2, 0), None)), (1, 2, (None, None, None)), (0, 1, (None,) * 3)], [0, 1, 2])
# Twice over, so that one round cannot be enough.
@example(
    [
        (0, 1, (None, (1, 0), None)),
        (1, 1, (None,) * 3),
        (0, 1, (None,) * 3),
        (1, 1, (None,) * 3),
        (0, 1, (None,) * 3),
    ],
    [0, 1, 2],
)
def test_any_two_logs_agree_in_finitely_many_rounds_and_lose_only_where_they_differ(history, order):
    logs = play(history)
    leader, *followers = (logs[each] for each in order)
    for log in followers:
        found, following, rounds = reconcile(leader, log, len(history) + 1)
        assert following.state is not FollowingState.STOPPED
        assert found == log[: common(leader, log)]
        assert rounds <= len(history) + 1


def test_one_round_is_not_always_enough():
    """The follower's epochs 2 and 4 are unknown to the leader, the leader's 3 and 5 to it (KIP-279)."""
    leader = [(1, 0), (3, 2), (3, 3), (5, 5)]
    follower = [(1, 0), (2, 1), (4, 4), (4, 6), (4, 7)]
    found, _, rounds = reconcile(leader, follower, 6)
    assert found == [(1, 0)]
    assert rounds == 2


def test_what_is_committed_is_not_truncated_but_the_replica_stops():
    leader, follower = [(1, 0), (3, 2)], [(1, 0), (2, 1)]
    found, following, _ = reconcile(leader, follower, 4, committed=2)
    assert following.state is FollowingState.STOPPED
    assert "committed" in following.why_stopped
    assert found == follower


def test_after_an_election_that_lost_data_what_was_committed_is_truncated():
    leader, follower = [(1, 0)], [(1, 0), (2, 1)]
    machine = machine_of(follower, committed=2)
    epoch = 2 + EPOCHS_LOST_MAX + 1
    following = Following(ID, epoch, machine, epochs_of(follower), 1.0)
    answer = leadership(leader, epoch).followed(2, 60, following.ask(0.0), 0)
    assert following.diverged(answer) == 1


def test_a_log_of_which_everything_was_deleted_is_cut_where_the_leaders_ends():
    state = LogState(12, 12, 12)
    machine = PartitionMachine(state, ProducerTable(1), leader_epoch=0, replicated=True)
    following = Following(ID, 4, machine, EpochMap(), 1.0)
    answer = leadership([(1, 0)], 4).followed(2, 60, following.ask(0.0), 0)
    assert following.diverged(answer) == 1


def test_records_of_the_leaders_own_epoch_are_not_truncated_but_the_replica_stops():
    machine = machine_of([(4, 0), (4, 1)])
    following = Following(ID, 4, machine, epochs_of([(4, 0), (4, 1)]), 1.0)
    following.ask(0.0)
    assert following.diverged(Diverged(ID, 4, 4, 1, 4)) is None
    assert following.state is FollowingState.STOPPED


@pytest.mark.parametrize("asked", [3, None])
def test_the_answer_to_an_older_question_truncates_nothing(asked):
    log = [(1, 0), (5, 1), (5, 2)]
    following = Following(ID, 7, machine_of(log), epochs_of(log), 1.0)
    following.ask(0.0)
    assert following.diverged(Diverged(ID, 7, 1, 1, asked)) is None
    assert following.diverged(Diverged(ID, 7, 1, 1, 5)) == 1


def test_once_the_logs_agreed_nothing_is_truncated_in_that_epoch():
    log = [(1, 0), (5, 1)]
    following = Following(ID, 7, machine_of(log), epochs_of(log), 1.0)
    following.ask(0.0)
    assert following.pushed(Push(ID, 7, 5, (), 0, 0, 1, 2), 0.0).fits
    following.ask(1.0)
    assert following.diverged(Diverged(ID, 7, 1, 1, 5)) is None
