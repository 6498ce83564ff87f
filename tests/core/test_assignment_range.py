"""Range: the same numbers of topics that are alike, in the order of members, near where that fits."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.groups.assignment.choice import choose
from riverrun_server.core.groups.assignment.range import assign
from riverrun_server.core.groups.assignment.values import Subscriber
from riverrun_server.core.groups.members import Assignor
from tests.core.assignment_world import (
    check_valid,
    every_assignment,
    member,
    names,
    near,
    parts,
    some_members,
    some_targets,
    some_topics,
    topic,
)


def numbers(targets):
    """The numbers that each member has of each topic."""
    found = defaultdict(set)
    for owner, mine in targets.items():
        for partition in mine:
            found[owner, partition.topic_id].add(partition.partition)
    return found


def alike(members, topics):
    """Topics with as many partitions and the same readers, together; those that nobody reads apart."""
    groups = defaultdict(list)
    for each in topics:
        able = frozenset(m.member_id for m in members if each.topic_id in m.topics)
        if able:
            groups[each.partitions, able].append(each)
    return groups


def is_range_like(members, topics, targets):
    """Whether topics that are alike are cut alike, into shares that differ by one at most."""
    found = numbers(targets)
    for (_, able), group in alike(members, topics).items():
        for owner in able:
            if len({frozenset(found[owner, each.topic_id]) for each in group}) > 1:
                return False
        sizes = [len(found[owner, group[0].topic_id]) for owner in able]
        if max(sizes) - min(sizes) > 1:
            return False
    return True


@settings(max_examples=100, deadline=None)
@given(st.data(), some_topics(topics_max=6, partitions_max=6))
def test_topics_that_are_alike_are_cut_alike_into_even_shares(data, topics):
    members = data.draw(some_members(topics, members_max=8))
    after = assign(members, topics, {})
    check_valid(members, topics, after)
    assert is_range_like(members, topics, after)


@settings(max_examples=100, deadline=None)
@given(st.data(), some_topics(topics_max=3, partitions_max=2))
def test_no_other_ranges_are_nearer(data, topics):
    """Against all assignments that are cut alike."""
    members = data.draw(some_members(topics, members_max=3))
    after = assign(members, topics, {})
    best = max(
        near(members, topics, each)
        for each in every_assignment(members, topics)
        if is_range_like(members, topics, each)
    )
    assert near(members, topics, after) == best


@settings(max_examples=50, deadline=None)
@given(st.data(), some_topics(topics_max=1, partitions_max=7))
def test_no_other_shares_of_one_topic_are_nearer(data, topics):
    members = data.draw(some_members(topics, members_max=3, alike=True))
    after = assign(members, topics, {})
    best = max(
        near(members, topics, each)
        for each in every_assignment(members, topics)
        if is_range_like(members, topics, each)
    )
    assert near(members, topics, after) == best


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12))
def test_without_racks_shares_are_ranges_in_the_order_of_members(partitions, count):
    members = [member(f"m{at:02}") for at in range(count)]
    after = assign(members, [topic("t", partitions)], {})
    found = [sorted(p.partition for p in after[each.member_id]) for each in members]
    assert [*itertools.chain(*found)] == [*range(partitions)]
    sizes = [*map(len, found)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@settings(max_examples=80, deadline=None)
@given(st.data(), some_topics(topics_max=4, partitions_max=6), st.randoms(use_true_random=False))
def test_neither_order_nor_what_was_before_matters(data, topics, dice):
    members = data.draw(some_members(topics, members_max=6))
    after = assign(members, topics, {})
    others, again = [*members], [*topics]
    dice.shuffle(others)
    dice.shuffle(again)
    assert assign(others, again, data.draw(some_targets(topics, members))) == after


@settings(max_examples=80, deadline=None)
@given(st.data(), some_topics(topics_max=4, partitions_max=6))
def test_an_instance_that_comes_back_under_another_member_id_has_the_same(data, topics):
    members = data.draw(some_members(topics, members_max=6))
    at = data.draw(st.integers(0, len(members) - 1))

    def named(member_id):
        group = [*members]
        group[at] = Subscriber(
            member_id=member_id,
            instance_id="i",
            rack=members[at].rack,
            topics=members[at].topics,
        )
        return assign(group, topics, {})

    before, after = named("a"), named("z")
    assert after.pop("z") == before.pop("a")
    assert after == before


def test_a_member_has_the_same_numbers_of_topics_that_are_joined():
    members = [member("a", "t u"), member("b", "t u")]
    after = assign(members, [topic("t", 3), topic("u", 3)], {})
    assert names(after) == {"a": "t0 t1 u0 u1", "b": "t2 u2"}


def test_members_beyond_the_number_of_partitions_get_nothing():
    after = assign([member("a"), member("b"), member("c")], [topic("t", 2)], {})
    assert names(after) == {"a": "t0", "b": "t1", "c": ""}


def test_instances_come_first_in_the_order_of_their_names():
    members = [member("a"), member("b", instance="2"), member("c", instance="1")]
    after = assign(members, [topic("t", 3)], {})
    assert names(after) == {"a": "t2", "b": "t1", "c": "t0"}


def test_a_topic_that_another_member_reads_too_is_cut_by_itself():
    members = [member("a", "t u"), member("b", "t u"), member("c", "u")]
    after = assign(members, [topic("t", 3), topic("u", 3)], {})
    assert names(after) == {"a": "t0 t1 u0", "b": "t2 u1", "c": "u2"}


def test_numbers_go_to_racks_where_all_of_their_topics_are_near():
    members = [member("a", "t u", rack="r"), member("b", "t u", rack="s")]
    topics = [topic("t", 4, ["s", "r", "s", "r"]), topic("u", 4, ["s", "r", "s q", "r"])]
    after = assign(members, topics, {})
    assert names(after) == {"a": "t1 t3 u1 u3", "b": "t0 t2 u0 u2"}


def test_a_number_goes_where_more_of_its_topics_are_near():
    members = [member("a", "t u v", rack="r"), member("b", "t u v", rack="s")]
    topics = [topic("t", 2, ["r", "s"]), topic("u", 2, ["s", "r"]), topic("v", 2, ["s", "r"])]
    after = assign(members, topics, {})
    assert names(after) == {"a": "t1 u1 v1", "b": "t0 u0 v0"}


def test_where_all_is_as_near_as_it_can_be_ranges_stay_whole():
    members = [member("a", rack="r"), member("b", rack="s"), member("c", rack="x")]
    after = assign(members, [topic("t", 6, ["r s x", "r", "s", "s r", "x", "q"])], {})
    assert names(after) == {"a": "t0 t1", "b": "t2 t3", "c": "t4 t5"}


def test_nobody_gets_nothing():
    assert assign([], [topic("t", 2)], {"a": parts("t0")}) == {}
    assert assign([member("a", "x")], [topic("t", 2)], {}) == {"a": frozenset()}
    assert assign([member("a", "t")], [topic("t", 0)], {}) == {"a": frozenset()}


def test_it_is_the_one_that_is_chosen_by_its_name():
    assert choose(Assignor.RANGE) is assign
    assert all(choose(each) for each in Assignor)


_IN_A_PROCESS = """
from riverrun_server.core.groups.assignment.choice import choose
from riverrun_server.core.groups.members import Assignor
from tests.core.assignment_world import member, names, topic
words = "tuvwxyz"
topics = [topic(name, 5 + at % 2, [f"r{i % 3} r{at % 3}" for i in range(5 + at % 2)])
          for at, name in enumerate(words)]
members = [member(f"m{at}", " ".join(words[at % 3 :: 1 + at % 2]), f"r{at % 4}") for at in range(9)]
for assignor in Assignor:
    targets = choose(assignor)(members, topics, {})
    fewer = choose(assignor)(members[2:], topics, targets)
    print(names(targets), names(fewer))
"""


def test_the_order_in_which_a_process_hashes_does_not_matter():
    found = Counter(
        subprocess.run(
            [sys.executable, "-c", _IN_A_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    )
    assert len(found) == 1, found
    assert "m8" in next(iter(found))
