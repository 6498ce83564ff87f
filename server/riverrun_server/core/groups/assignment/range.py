"""The range assignor: a member gets the same partition numbers of all topics that are partitioned alike.

Topics are alike when they have as many partitions and the same members read them: then records with
the same key are in partitions of the same number, and a member can join them (Kafka's RangeAssignor).
The numbers are cut into one range for each member, in the order of members, and those that come
first have one more. Where racks are known, numbers go to members in whose rack these topics have
replicas (KIP-881), as many as leave the shares even, and the ranges have holes; if that brings nothing
nearer, they are whole.

It is a function of the members' names and racks and of the topics, not of what was before: a member
that comes back, or that takes its place under its instance id, gets the same again, and whatever moves
when members come and go, moves. The uniform assignor is for who wants even loads and few moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from riverrun_server.core.groups.assignment.dealing import deal
from riverrun_server.core.groups.assignment.subscriptions import Subscriptions
from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber, Targets
from riverrun_server.core.log.batch import PartitionId

# For each of some topics that are alike, the racks of members that have a replica.
_Racks = tuple[frozenset[str], ...]


def assign(
    subscribers: Iterable[Subscriber],
    topics: Iterable[AssignableTopic],
    current: Targets,  # noqa: ARG001 - what was before does not matter
) -> dict[str, frozenset[PartitionId]]:
    """Return what each member should have.

    Args:
        subscribers: the members.
        topics: those that exist.
        current: does not matter.
    """
    who = Subscriptions(subscribers, topics)
    members_of: dict[tuple[int, ...], list[int]] = {}
    alike: dict[tuple[int, tuple[int, ...]], list[AssignableTopic]] = {}
    for topic, readers in zip(who.topics, who.readers, strict=True):
        alike.setdefault((topic.partitions, readers), []).append(topic)
    targets: list[list[PartitionId]] = [[] for _ in who.members]
    for (partitions, readers), group in alike.items():
        if readers not in members_of:
            among = frozenset(readers)
            members_of[readers] = [at for at, number in enumerate(who.of) if number in among]
        members = members_of[readers]
        racks = [*zip(*map(who.racks, group), strict=True)]
        shares = _near(
            [who.members[at].rack for at in members], racks, _ranges(partitions, members)
        )
        for at, numbers in zip(members, shares, strict=True):
            targets[at].extend(
                PartitionId(topic.topic_id, number) for topic in group for number in numbers
            )
    return {
        member.member_id: frozenset(mine) for member, mine in zip(who.members, targets, strict=True)
    }


def _ranges(partitions: int, members: Sequence[int]) -> list[range]:
    """Cut the numbers of partitions into ranges that differ by one in length."""
    share, more = divmod(partitions, len(members))
    cuts = [at * share + min(at, more) for at in range(len(members) + 1)]
    return [range(*cut) for cut in itertools.pairwise(cuts)]


def _near(
    members: Sequence[str], racks: Sequence[_Racks], ranges: Sequence[range]
) -> Sequence[Sequence[int]]:
    """Return the numbers for each member, as many as possible near to it.

    Args:
        members: the rack of each.
        racks: what is near to whom, for each number.
        ranges: what they get where nothing else is nearer.
    """
    types = {rack: at for at, rack in enumerate(dict.fromkeys(members))}
    type_of = [types[rack] for rack in members]
    kinds = _kinds(racks, [*types])
    costs = [dict(enumerate(far)) for far in zip(*kinds, strict=True)]
    kind_of = {number: kind for kind, each in enumerate(kinds.values()) for number in each}

    def cost(shares: Sequence[Sequence[int]]) -> int:
        return sum(
            costs[of_type][kind_of[number]]
            for of_type, share in zip(type_of, shares, strict=True)
            for number in share
        )

    if cost(ranges) == sum(min(far) * len(each) for far, each in kinds.items()):
        return ranges
    had: list[dict[int, list[int]]] = []
    for share in ranges:
        had.append({})
        for number in share:
            had[-1].setdefault(kind_of[number], []).append(number)
    nearer = deal([*kinds.values()], costs, type_of, had, sticky=False)
    return nearer if cost(nearer) < cost(ranges) else ranges


def _kinds(racks: Sequence[_Racks], places: Sequence[str]) -> dict[tuple[int, ...], list[int]]:
    """Put together the numbers that are alike: for each place, far for as many topics."""
    far: dict[_Racks, tuple[int, ...]] = {}
    kinds: dict[tuple[int, ...], list[int]] = {}
    for number, near in enumerate(racks):
        if near not in far:
            far[near] = tuple(sum(place not in each for each in near) for place in places)
        kinds.setdefault(far[near], []).append(number)
    return kinds
