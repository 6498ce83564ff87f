"""Who leads: the newest story is believed, in whatever order the stories come."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun._core.leader_map import ANY, NO_LEADER, Leader, LeaderMap, TopicNews
from riverrun._core.records import TopicPartition

BROKERS = {1: "a:1", 2: "b:1", 3: "c:1"}
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
ID = b"i" * 16


def news(*leaders: tuple[int, int], topic_id: bytes = ID) -> list[TopicNews]:
    return [TopicNews("t", topic_id, tuple(Leader(*each) for each in leaders))]


def known(*leaders: tuple[int, int], revision: int = 1) -> LeaderMap:
    made = LeaderMap()
    made.learn(revision, BROKERS, news(*leaders))
    return made


def test_a_partition_goes_to_its_leader_and_an_unknown_one_to_anybody():
    leaders = known((2, 1), (NO_LEADER, 1))
    assert leaders.destination(T0) == 2
    assert leaders.destination(T1) == ANY
    assert leaders.destination(TopicPartition("t", 9)) == ANY
    assert leaders.destination(TopicPartition("u", 0)) == ANY


def test_with_one_broker_there_is_nothing_to_choose():
    leaders = LeaderMap()
    assert leaders.learn(1, {1: "a:1"}, news((1, 1))) == set()
    assert (leaders.destination(T0), leaders.several) == (ANY, False)
    assert leaders.learn(2, BROKERS, []) == {T0}
    assert leaders.destination(T0) == 1


def test_a_higher_epoch_is_believed_and_a_lower_one_is_old_news():
    leaders = known((1, 5))
    assert leaders.learn(9, BROKERS, news((2, 4))) == set()
    assert leaders.hinted(T0, 2, "b:1", 4) == set()
    assert leaders.hinted(T0, 2, "b:1", 6) == {T0}
    assert leaders.learn(9, BROKERS, news((1, 5))) == set()
    assert leaders.destination(T0) == 2


def test_of_two_stories_with_one_epoch_that_of_the_newer_metadata_is_believed():
    leaders = known((1, 5), revision=3)
    assert leaders.learn(2, BROKERS, news((NO_LEADER, 5))) == set()
    assert leaders.learn(4, BROKERS, news((NO_LEADER, 5))) == {T0}
    assert leaders.hinted(T0, 1, "a:1", 5) == {T0}, (
        "the leader is back, and somebody has heard of it"
    )


def test_a_hint_names_a_broker_that_is_not_known_yet():
    leaders = known((1, 5))
    assert leaders.hinted(T0, 9, "z:1", 6) == {T0}
    assert leaders.endpoints[9] == "z:1"


def test_a_topic_made_anew_begins_anew_and_its_predecessor_does_not_come_back():
    leaders = known((1, 5), revision=3)
    assert leaders.learn(4, BROKERS, news((2, 0), topic_id=b"j" * 16)) == {T0}
    assert leaders.learn(3, BROKERS, news((1, 6))) == set()
    assert leaders.partitions("t") == (b"j" * 16, 1)
    assert leaders.learn(5, BROKERS, [TopicNews("t", b"", ())]) == {T0}
    assert leaders.partitions("t") is None


def test_a_broker_that_cannot_be_reached_is_done_without_until_it_can():
    leaders = known((1, 1), (2, 1))
    assert leaders.unreachable(1) == {T0}
    assert leaders.destination(T0) == ANY
    assert leaders.unreachable_leaders == {1}
    assert leaders.reachable(1) == {T0}
    assert leaders.unreachable(9) == set()


def test_a_broker_that_has_moved_is_tried_where_it_is_now():
    leaders = known((1, 1))
    leaders.unreachable(1)
    assert leaders.learn(2, BROKERS | {1: "d:1"}, []) == {T0}
    assert leaders.destination(T0) == 1


def test_a_broker_that_the_metadata_says_is_gone_leads_nothing():
    leaders = known((1, 1))
    assert leaders.learn(2, {2: "b:1", 3: "c:1"}, []) == {T0}
    assert leaders.learn(1, BROKERS, []) == set(), "old news"
    assert leaders.destination(T0) == ANY


def test_a_broker_without_an_address_for_us_is_not_gone_to():
    leaders = LeaderMap()
    leaders.learn(1, BROKERS | {1: ""}, news((1, 1)))
    assert leaders.destination(T0) == ANY


def test_a_leader_that_denies_it_once_is_asked_again_and_one_that_goes_on_is_not():
    leaders = known((1, 1))
    assert leaders.denied(T0, 1) == set()
    assert leaders.denied(T0, ANY) == set()
    assert leaders.denied(T0, 2) == set()
    assert leaders.pardoned(T0) == set()
    assert [leaders.denied(T0, 1) for _ in range(3)] == [set(), set(), {T0}]
    assert leaders.destination(T0) == ANY
    assert leaders.pardoned(T0) == {T0}
    assert [leaders.denied(T0, 1) for _ in range(3)] == [set(), set(), {T0}]
    assert leaders.learn(2, BROKERS, news((1, 2))) == {T0}, "a newer election is another matter"


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_in_whatever_order_stories_come_the_newest_is_believed_in_the_end(seed):
    rng = random.Random(seed)
    # What really happened: each revision is one election, of which the epoch tells.
    history = [(rng.choice([1, 2, 3]), epoch) for epoch in range(1, 12)]
    stories = [*enumerate(history, 1)] * 2
    rng.shuffle(stories)
    leaders, at = LeaderMap(), {}
    newest = 0
    for revision, (leader, epoch) in stories:
        if rng.random() < 0.5 and newest:
            changed = leaders.hinted(T0, leader, BROKERS[leader], epoch)
        else:
            changed = leaders.learn(revision, BROKERS, news((leader, epoch)))
        newest = max(newest, epoch)
        assert leaders.leader(T0) == history[newest - 1], "an older story was believed"
        assert (T0 in changed) == (leaders.destination(T0) != at.get(T0, ANY))
        at[T0] = leaders.destination(T0)
