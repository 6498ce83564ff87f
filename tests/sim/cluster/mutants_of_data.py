"""Bugs planted into what keeps, deletes and throws away data, and into appends with conditions."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

from riverrun_server.core.cluster import deletions
from riverrun_server.core.cluster.values import TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.replication.leadership import Leadership
from riverrun_server.core.replication.progress import Followers
from riverrun_server.core.replication.refetching import Refetching, Step
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.appender import Appender
from riverrun_server.runtime.replication import replicas
from tests.sim.cluster.options import Options
from tests.sim.cluster.planting import CUTS, damaged, mutant

# Damage.


def slowly_fed(options: Options) -> Options:
    """Return a cluster of damaged pairs, in which who begins anew comes back in many small steps."""
    options = damaged(options)
    terms = dataclasses.replace(
        options.terms, lag_s=4.0, probe_s=0.3, max_push_bytes=1, max_under_way_bytes=300
    )
    return dataclasses.replace(options, replication_factor=2, terms=terms)


@mutant("what is damaged may go, whoever counts on it", "flipped_bit", *CUTS, options=damaged)
def what_may_be_elected_is_thrown_away():
    with patch.object(Refetching, "_is_out", lambda self, value: value.leader != self._me):
        yield


@mutant(
    "who is out stays out: no request can bring it back",
    "flipped_bit",
    "slow_store",
    options=lambda options: dataclasses.replace(
        damaged(options),
        kinds=("flipped_bit", "flipped_bit", "slow_store"),
        produce_every_s=0.3,
        partitions=1,
        faults_s=20.0,
    ),
)
def what_is_under_way_is_not_stopped():
    def next_step(self, value, leader, now):
        self._settled_in = value.leader_epoch
        return original(self, value, leader, now)

    original = Refetching.next_step
    with patch.object(Refetching, "next_step", next_step):
        yield


@mutant(
    "what a replica had on its disk it has for as long as its process lives",
    "flipped_bit",
    "slow_disk",
    "broken_streams",
    options=slowly_fed,
)
def leaders_believe_what_was_said_before():
    def went_offline(self, broker, broker_epoch):
        progress = self.followers.heard(broker, broker_epoch)
        if progress is not None:
            progress.offline = True
            self.feeds.end(broker)

    with (
        patch.object(Followers, "doubt", lambda self, broker: None),
        patch.object(Leadership, "went_offline", went_offline),
    ):
        yield


@mutant("to have said once that one cannot serve is enough",
        "flipped_bit", "broken_streams", "isolated_broker",
        options=lambda options: dataclasses.replace(damaged(options), replication_factor=2))  # fmt: skip
def a_stop_is_told_once():
    def next_step(self, value, leader, now):
        step = original(self, value, leader, now)
        return None if step is Step.TELL else step

    original = Refetching.next_step
    with patch.object(Refetching, "next_step", next_step):
        yield


# Topics that are deleted.


@mutant("the first broker that has deleted its data speaks for all",
        "another_topic", "kill", "power_cut", "slow_watch")  # fmt: skip
def one_confirmation_is_enough():
    def confirm_deletion(image, tombstone, broker_id):
        value = dataclasses.replace(tombstone.value, pending=(broker_id,))
        return original(image, dataclasses.replace(tombstone, value=value), broker_id)

    original = deletions.confirm_deletion
    with patch.object(deletions, "confirm_deletion", confirm_deletion):
        yield


@mutant("a partition that the metadata have is one of a topic",
        "another_topic", "kill", "slow_watch", "quick_restart")  # fmt: skip
def partitions_need_no_topic():
    def partitions(image, topic_ids):
        for topic_id in list(image.partitions) if topic_ids is None else topic_ids:
            found = image.topic_by_id(topic_id)
            topic = (
                found.value
                if found
                else TopicValue(topic="?", topic_id=topic_id, partitions=1, replication_factor=1)
            )
            for number, value in image.partitions.get(topic_id, {}).items():
                yield topic, PartitionId(topic_id, number), value

    with patch.object(replicas, "_partitions", partitions):
        yield


# Appends with conditions.


def conditional(options: Options) -> Options:
    """Return a cluster whose producers all say where they append."""
    return dataclasses.replace(options, producers=("if", "if once", "if once"))


@mutant("what a producer expects is a wish", "kill", options=conditional)
def expected_offsets_are_not_looked_at():
    def decide(self, header, expected_offset, now_ms):
        return original(self, header, None, now_ms)

    original = PartitionMachine.decide
    with patch.object(PartitionMachine, "decide", decide):
        yield


@mutant("the log ends where it is committed", "kill", "slow_disk", options=conditional)
def expected_offsets_are_compared_with_what_is_committed():
    def decide(self, header, expected_offset, now_ms):
        if expected_offset is not None and expected_offset != self.high_watermark:
            end = (self.log_start, self.high_watermark)
            raise Refusal(Reason.EXPECTED_OFFSET_MISMATCH, "elsewhere", available=end)
        return original(self, header, None, now_ms)

    original = PartitionMachine.decide
    with patch.object(PartitionMachine, "decide", decide):
        yield


@mutant("whoever waits for the leader alone need not wait for its disk",
        "slow_disk", "kill",
        options=lambda options: dataclasses.replace(options, producers=("leader", "none")))  # fmt: skip
def appends_for_the_leader_are_answered_at_once():
    def answer(self, append, answer, needed):
        if append.acks is Acks.LEADER:
            append.done(answer)
        else:
            original(self, append, answer, needed)

    original = Appender._answer
    with patch.object(Appender, "_answer", answer):
        yield
