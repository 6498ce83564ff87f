"""Uniform: balanced, then sticky, then near; complete, and the same for the same input."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.groups.assignment import dealing
from riverrun_server.core.groups.assignment.choice import choose
from riverrun_server.core.groups.assignment.uniform import assign
from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber
from riverrun_server.core.groups.members import Assignor
from tests.core.assignment_world import (
    RACKS,
    cheaper_cycle,
    check_valid,
    cost,
    every_assignment,
    fewest_moves_where_all_read_the_same,
    member,
    moves,
    names,
    near,
    parts,
    some_members,
    some_targets,
    some_topics,
    topic,
    uneven_chain,
)


@settings(max_examples=150, deadline=None)
@given(st.data(), some_topics())
def test_no_other_assignment_is_better(data, topics):
    """Against all there are: loads, then moves, then racks."""
    members = data.draw(some_members(topics, members_max=3))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)
    check_valid(members, topics, after)
    best = min(cost(members, topics, before, each) for each in every_assignment(members, topics))
    assert cost(members, topics, before, after) == best


@settings(max_examples=60, deadline=None)
@given(st.data(), some_topics(topics_max=7, partitions_max=12))
def test_no_chain_of_moves_evens_out_what_different_subscriptions_allow(data, topics):
    members = data.draw(some_members(topics, members_max=12))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)
    check_valid(members, topics, after)
    assert uneven_chain(members, topics, after) is None


@settings(max_examples=150, deadline=None)
@given(st.data(), some_topics(topics_max=6, partitions_max=5))
def test_no_chain_of_moves_makes_a_larger_group_better(data, topics):
    """Loads, then moves, then racks, in groups that are too large to try everything."""
    members = data.draw(some_members(topics, members_max=7))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)
    assert not cheaper_cycle(members, topics, before, after)


@settings(max_examples=80, deadline=None)
@given(st.data(), some_topics(topics_max=4, partitions_max=20))
def test_members_that_read_the_same_differ_by_one_at_most_and_move_as_few_as_possible(data, topics):
    members = data.draw(some_members(topics, members_max=12, alike=True))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)
    check_valid(members, topics, after)
    loads = [len(mine) for mine in after.values()]
    assert max(loads) - min(loads) <= 1
    fewest = fewest_moves_where_all_read_the_same(members, topics, before)
    assert moves(members, topics, before, after) == fewest


@settings(max_examples=100, deadline=None)
@given(st.data(), some_topics(topics_max=4, partitions_max=8))
def test_what_is_as_good_as_can_be_stays(data, topics):
    members = data.draw(some_members(topics, members_max=6))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)
    assert assign(members, topics, after) == after


@settings(max_examples=100, deadline=None)
@given(st.data(), some_topics(topics_max=4, partitions_max=6), st.randoms(use_true_random=False))
def test_the_order_in_which_things_come_does_not_matter(data, topics, dice):
    members = data.draw(some_members(topics, members_max=6))
    before = data.draw(some_targets(topics, members))
    after = assign(members, topics, before)

    def shuffled(things):
        things = [*things]
        dice.shuffle(things)
        return things

    other = {owner: frozenset(shuffled(mine)) for owner, mine in shuffled(before.items())}
    again = assign(shuffled(members), shuffled(topics), other)
    assert again == after
    assert [*again] == [*after]


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_group_that_changes_stays_even_and_moves_no_more_than_it_must(seed, alike):
    dice = random.Random(seed)
    sizes = {name: dice.randint(1, 30) for name in "tuvw"}
    group = {}
    before = {}
    born = 0
    for _ in range(60):
        change = dice.choice(["come", "come", "go", "grow", "delete", "subscribe"])
        if change == "come" or not group:
            born += 1
            some = [*sizes] if alike else dice.sample([*sizes], dice.randint(0, len(sizes)))
            name = f"m{born:03}"
            group[name] = member(name, " ".join(some), dice.choice(["", *RACKS]))
        elif change == "go":
            del group[dice.choice([*group])]
        elif change == "grow":
            sizes[dice.choice([*sizes])] += dice.randint(1, 5)
        elif change == "delete":
            sizes[dice.choice([*sizes])] = dice.randint(1, 5)
        elif not alike:
            name = dice.choice([*group])
            some = dice.sample([*sizes], dice.randint(0, len(sizes)))
            group[name] = member(name, " ".join(some), group[name].rack)
        members = [*group.values()]
        topics = [
            topic(name, count, [RACKS[at % 3] for at in range(count)])
            for name, count in sizes.items()
        ]
        after = assign(members, topics, before)
        check_valid(members, topics, after)
        assert uneven_chain(members, topics, after) is None
        assert len(members) > 12 or not cheaper_cycle(members, topics, before, after)
        if alike:
            fewest = fewest_moves_where_all_read_the_same(members, topics, before)
            assert moves(members, topics, before, after) == fewest
        before = after


def test_the_first_member_gets_everything():
    assert names(assign([member("a")], [topic("t", 3)], {})) == {"a": "t0 t1 t2"}


def test_a_member_that_comes_takes_only_its_share():
    before = {"a": parts("t0", "t1", "t2"), "b": parts("t3", "t4", "t5")}
    after = assign([member("a"), member("b"), member("c")], [topic("t", 6)], before)
    assert names(after) == {"a": "t0 t1", "b": "t3 t4", "c": "t2 t5"}


def test_what_a_member_leaves_is_shared_out_and_nothing_else_moves():
    before = {"a": parts("t0", "t1"), "b": parts("t2", "t3"), "c": parts("t4", "t5")}
    after = assign([member("a"), member("c")], [topic("t", 6)], before)
    assert names(after) == {"a": "t0 t1 t2", "c": "t3 t4 t5"}


def test_partitions_of_a_topic_that_grows_go_to_who_has_least():
    before = {"a": parts("t0", "t1"), "b": parts("t2")}
    after = assign([member("a"), member("b")], [topic("t", 5)], before)
    assert names(after) == {"a": "t0 t1 t3", "b": "t2 t4"}


def test_a_member_that_has_one_more_keeps_it_where_somebody_must():
    before = {"a": parts("t0"), "b": parts("t1", "t2")}
    after = assign([member("a"), member("b")], [topic("t", 3)], before)
    assert after == before


def test_what_a_member_does_not_read_any_more_goes_to_who_does():
    before = {"a": parts("t0", "u0"), "b": parts("t1", "u1")}
    members = [member("a", "t"), member("b", "t u")]
    after = assign(members, [topic("t", 2), topic("u", 2)], before)
    assert names(after) == {"a": "t0 t1", "b": "u0 u1"}


def test_a_chain_evens_out_what_no_single_move_could():
    # a could give t only to b, which has one less only; b could give u to c, which has two less.
    before = {"a": parts("t0", "t1", "t2"), "b": parts("u0", "u1"), "c": parts("v0")}
    members = [member("a", "t"), member("b", "t u"), member("c", "u v")]
    after = assign(members, [topic("t", 3), topic("u", 2), topic("v", 1)], before)
    assert {owner: len(mine) for owner, mine in after.items()} == {"a": 2, "b": 2, "c": 2}
    assert moves(members, [topic("t", 3), topic("u", 2), topic("v", 1)], before, after) == 2


def test_a_partition_goes_to_a_member_in_the_rack_of_a_replica():
    members = [member("a", rack="r"), member("b", rack="s")]
    topics = [topic("t", 4, ["s", "r s", "r", "r q"])]
    assert names(assign(members, topics, {})) == {"a": "t2 t3", "b": "t0 t1"}


def test_racks_cost_no_balance():
    members = [member("a", rack="r"), member("b", rack="s")]
    after = assign(members, [topic("t", 4, ["r"] * 4)], {})
    assert [len(mine) for mine in after.values()] == [2, 2]


def test_racks_move_nothing():
    before = {"a": parts("t0", "t1"), "b": parts("t2", "t3")}
    members = [member("a", rack="r"), member("b", rack="s")]
    assert assign(members, [topic("t", 4, ["s", "s", "r", "r"])], before) == before


def test_of_what_must_move_the_far_partitions_do():
    before = {"a": parts("t0", "t1", "t2", "t3")}
    members = [member("a", rack="r"), member("b", rack="s")]
    after = assign(members, [topic("t", 4, ["s", "r", "s", "r"])], before)
    assert names(after) == {"a": "t1 t3", "b": "t0 t2"}


def test_partitions_side_by_side_go_to_different_members():
    members = [member("a", "t u"), member("b", "t u")]
    after = assign(members, [topic("t", 2), topic("u", 2)], {})
    assert names(after) == {"a": "t0 u0", "b": "t1 u1"}


def test_a_partition_that_two_members_had_goes_to_one():
    before = {"a": parts("t0", "t1"), "b": parts("t0", "t1")}
    after = assign([member("a"), member("b")], [topic("t", 2)], before)
    check_valid([member("a"), member("b")], [topic("t", 2)], after)
    assert [len(mine) for mine in after.values()] == [1, 1]


def test_nobody_gets_nothing():
    assert assign([], [topic("t", 2)], {"a": parts("t0")}) == {}
    assert assign([member("a", ""), member("b", "x")], [topic("t", 2)], {}) == {
        "a": frozenset(),
        "b": frozenset(),
    }


def test_it_is_the_one_that_is_chosen_by_its_name():
    assert choose(Assignor.UNIFORM) is assign


@settings(max_examples=40, deadline=None)
@given(st.data(), some_topics(topics_max=5, partitions_max=6), st.integers(0, 60))
def test_an_answer_is_valid_wherever_the_work_must_end(data, topics, steps):
    members = data.draw(some_members(topics, members_max=6))
    before = data.draw(some_targets(topics, members))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dealing, "_STEPS_MAX", steps)
        after = assign(members, topics, before)
    check_valid(members, topics, after)


@pytest.mark.parametrize("racks", [1, 3, 5])
def test_a_thousand_members_are_well_within_the_bound_on_work(racks):
    # The worst that happens to a group that size: all of it comes at once, and finds one member.
    dice = random.Random(racks)
    places = [f"r{at}" for at in range(racks)]
    members = [member(f"m{at:04}", rack=places[at % racks]) for at in range(1_000)]
    near_to = [" ".join(dice.sample(places, min(racks, 2))) for _ in range(3_000)]
    topics = [topic("t", 3_000, near_to)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dealing, "_STEPS_MAX", dealing._STEPS_MAX // 10)
        for before in ({}, assign(members[:1], topics, {})):
            after = assign(members, topics, before)
            assert {len(mine) for mine in after.values()} == {3}
            assert near(members, topics, after) == 3_000


def test_a_hundred_members_that_read_different_topics_are_well_within_the_bound_on_work():
    dice = random.Random(1)
    topics = [
        AssignableTopic(
            topic_id=bytes([at]) * 16,
            partitions=count,
            racks=tuple(frozenset(dice.choice(RACKS)) for _ in range(count)),
        )
        for at, count in enumerate(dice.randint(1, 40) for _ in range(50))
    ]
    members = [
        Subscriber(
            member_id=f"m{at:03}",
            rack=RACKS[at % 3],
            topics=frozenset(each.topic_id for each in dice.sample(topics, dice.randint(1, 20))),
        )
        for at in range(100)
    ]
    # All at once, and when nine in ten come later.
    for before, share in (({}, 6), (assign(members[:10], topics, {}), 2)):
        after = assign(members, topics, before)
        check_valid(members, topics, after)
        assert uneven_chain(members, topics, after) is None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dealing, "_STEPS_MAX", dealing._STEPS_MAX // share)
            assert assign(members, topics, before) == after
