"""Groups to assign partitions to, and judges of an assignment that know nothing of how it is made."""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import strategies as st

from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber
from riverrun_server.core.log.batch import PartitionId


def topic_id(name):
    return name.encode().ljust(16, b".")


def topic(name, partitions, racks=()):
    return AssignableTopic(
        topic_id=topic_id(name),
        partitions=partitions,
        racks=tuple(frozenset(each.split()) for each in racks),
    )


def member(name, topics="t", rack="", instance=""):
    return Subscriber(
        member_id=name,
        instance_id=instance,
        rack=rack,
        topics=frozenset(topic_id(each) for each in topics.split()),
    )


def parts(*names):
    """t0 is partition 0 of topic t."""
    return frozenset(PartitionId(topic_id(name[:1]), int(name[1:])) for name in names)


def names(targets):
    """The inverse of parts, of a whole answer."""
    return {
        member_id: " ".join(f"{p.topic_id.decode().rstrip('.')}{p.partition}" for p in sorted(mine))
        for member_id, mine in targets.items()
    }


RACKS = ["a", "b", "c"]


@st.composite
def some_topics(draw, topics_max=3, partitions_max=3):
    made = []
    for name in "tuvwxyz"[: draw(st.integers(1, topics_max))]:
        count = draw(st.integers(1, partitions_max))
        near = st.lists(st.sampled_from(RACKS), max_size=2).map(" ".join)
        known = draw(st.booleans())
        made.append(topic(name, count, [draw(near) for _ in range(count)] if known else ()))
    return made


@st.composite
def some_members(draw, topics, members_max=4, alike=False):
    ids = [each.topic_id for each in topics]
    # One topic that does not exist may be among them.
    subscription = st.frozensets(st.sampled_from([*ids, topic_id("gone")]))
    same = draw(subscription)
    return [
        Subscriber(
            member_id=f"m{number}",
            rack=draw(st.sampled_from(["", *RACKS])),
            topics=same if alike else draw(subscription),
        )
        for number in draw(st.permutations(range(draw(st.integers(1, members_max)))))
    ]


@st.composite
def some_targets(draw, topics, members):
    """What was before: of members that are gone too, and partitions; each with one member."""
    every = [
        PartitionId(each.topic_id, number) for each in topics for number in range(each.partitions)
    ]
    every += [PartitionId(topics[0].topic_id, topics[0].partitions), *parts("q0")]
    owners = st.sampled_from([None, "gone", *(each.member_id for each in members)])
    targets = {}
    for partition in every:
        owner = draw(owners)
        if owner is not None:
            targets.setdefault(owner, set()).add(partition)
    return {owner: frozenset(mine) for owner, mine in targets.items()}


def readers(members, topics):
    """For each partition that somebody reads, who may have it."""
    found = {
        PartitionId(each.topic_id, number): [m for m in members if each.topic_id in m.topics]
        for each in topics
        for number in range(each.partitions)
    }
    return {partition: able for partition, able in found.items() if able}


def check_valid(members, topics, targets):
    """Each member is there, each partition that somebody reads once, with one that reads it."""
    assert targets.keys() == {each.member_id for each in members}
    given = [(partition, owner) for owner, mine in targets.items() for partition in mine]
    able = readers(members, topics)
    assert sorted(partition for partition, _ in given) == sorted(able)
    for partition, owner in given:
        assert owner in {each.member_id for each in able[partition]}


def moves(members, topics, before, after):
    """How many partitions leave a member that could keep them."""
    able = readers(members, topics)
    return sum(
        partition not in after[m.member_id]
        for m in members
        for partition in before.get(m.member_id, ())
        if m in able.get(partition, ())
    )


def near(members, topics, targets):
    """How many partitions have a replica in their member's rack."""
    racks = {
        PartitionId(each.topic_id, number): where
        for each in topics
        for number, where in enumerate(each.racks)
    }
    return sum(m.rack in racks.get(p, ()) for m in members for p in targets[m.member_id])


def cost(members, topics, before, after):
    """Smaller is better: the largest loads first, then moves, then what is far."""
    loads = sorted((len(mine) for mine in after.values()), reverse=True)
    return (
        loads,
        moves(members, topics, before, after),
        -near(members, topics, after),
    )


def every_assignment(members, topics):
    """All that are valid."""
    able = readers(members, topics)
    for owners in itertools.product(*able.values()):
        targets = {each.member_id: frozenset() for each in members}
        for partition, owner in zip(able, owners, strict=True):
            targets[owner.member_id] |= {partition}
        yield targets


def uneven_chain(members, topics, targets):
    """A chain of members, each of which could give the next one a partition, that would even out."""
    able = readers(members, topics)
    loads = {owner: len(mine) for owner, mine in targets.items()}
    gives = {
        owner: {m.member_id for partition in mine for m in able[partition]}
        for owner, mine in targets.items()
    }
    for start in targets:
        came = {start: None}
        queue = deque(came)
        while queue:
            at = queue.popleft()
            if loads[at] + 2 <= loads[start]:
                return at, came
            for following in sorted(gives[at] - came.keys()):
                came[following] = at
                queue.append(following)
    return None


def cheaper_cycle(members, topics, before, after):
    """Whether passing partitions on in a circle, or from one member to another, would be better.

    An assignment is the best there is exactly when there is none (the theory of flows with convex
    costs). Members and a pool that evens out loads are the nodes, single partitions the arcs; the
    cheapest ways between all of them are found as by Floyd and Warshall.
    """
    able = readers(members, topics)
    racks = {
        PartitionId(each.topic_id, number): where
        for each in topics
        for number, where in enumerate(each.racks)
    }
    names = [each.member_id for each in members]
    many = len(able) + 1
    ways = {}

    def way(start, end, weight):
        ways[start, end] = min(ways.get((start, end), weight), weight)

    for giver in members:
        load = len(after[giver.member_id])
        way(giver.member_id, None, (2 * load + 1) * many**2)
        if load:
            way(None, giver.member_id, (1 - 2 * load) * many**2)
        for partition in after[giver.member_id]:
            where = racks.get(partition, ())
            for taker in able[partition]:
                had = [partition in before.get(m.member_id, ()) for m in (giver, taker)]
                far = (giver.rack in where) - (taker.rack in where)
                way(giver.member_id, taker.member_id, (had[0] - had[1]) * many + far)
    for middle, start, end in itertools.product([None, *names], repeat=3):
        if (start, middle) in ways and (middle, end) in ways:
            way(start, end, ways[start, middle] + ways[middle, end])
    return any(start == end and weight < 0 for (start, end), weight in ways.items())


def fewest_moves_where_all_read_the_same(members, topics, before):
    """By counting: everybody keeps a fair share, and as many as there are rests keep one more."""
    able = readers(members, topics)
    had = [
        sum(m in able.get(partition, ()) for partition in before.get(m.member_id, ()))
        for m in members
    ]
    share, rest = divmod(len(able), max(1, len(members)))
    kept = sum(min(each, share) for each in had) + min(rest, sum(each > share for each in had))
    return sum(had) - kept
