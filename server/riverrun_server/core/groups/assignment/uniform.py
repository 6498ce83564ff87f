"""The uniform assignor: as even as can be, then as few moves as can be, then as near as can be.

What it guarantees, in this order, each as far as what stands above it allows:

1. Balance. No partition, and no chain of partitions that are passed on from member to member, could
   be moved so that a member with two or more fewer gets one. Where all subscribe alike, the numbers of
   partitions of any two members differ by one at most.
2. As few partitions as possible leave a member that is still there and still reads their topic.
3. As many partitions as possible are with a member in whose rack they have a replica (KIP-881).

A group so large and uneven that the work for this is over its bound (dealing.py) gets a complete and
valid answer that falls short of these. Which of several equally good answers is given depends on
nothing but what is asked, in whichever order it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from riverrun_server.core.groups.assignment.dealing import deal
from riverrun_server.core.groups.assignment.subscriptions import Subscriptions
from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber, Targets
from riverrun_server.core.log.batch import PartitionId

# Which subscriptions have the topic, and which racks of members have a replica.
_Kind = tuple[tuple[int, ...], frozenset[str]]


def assign(
    subscribers: Iterable[Subscriber], topics: Iterable[AssignableTopic], current: Targets
) -> dict[str, frozenset[PartitionId]]:
    """Return what each member should have.

    Args:
        subscribers: the members.
        topics: those that exist.
        current: what should have been so far.
    """
    who = Subscriptions(subscribers, topics)
    if not who.members:
        return {}
    partitions_of = _kinds(who)
    kinds = [*partitions_of.values()]
    types, type_of = _types(who, [*partitions_of])
    had = _had(who, kinds, [types[number].keys() for number in type_of], current)
    hands = deal(kinds, types, type_of, had, sticky=True)
    return {
        member.member_id: frozenset(hand) for member, hand in zip(who.members, hands, strict=True)
    }


def _kinds(who: Subscriptions) -> dict[_Kind, list[PartitionId]]:
    """Put together the partitions that no member can tell apart."""
    kinds: dict[_Kind, list[PartitionId]] = {}
    for topic, readers in zip(who.topics, who.readers, strict=True):
        for number, racks in enumerate(who.racks(topic)):
            kinds.setdefault((readers, racks), []).append(PartitionId(topic.topic_id, number))
    return kinds


def _types(who: Subscriptions, kinds: Sequence[_Kind]) -> tuple[list[dict[int, int]], list[int]]:
    """Return what members of each type may take, and the type of each member.

    A partition that is far costs one, unless it is far from everybody.
    """
    numbers: dict[tuple[int, str], int] = {}
    type_of = [
        numbers.setdefault((subscription, member.rack), len(numbers))
        for member, subscription in zip(who.members, who.of, strict=True)
    ]
    takes: list[list[int]] = [[] for _ in who.distinct]
    for number, (readers, _) in enumerate(kinds):
        for subscription in readers:
            takes[subscription].append(number)
    types = [
        {kind: _far(rack, kinds[kind][1]) for kind in takes[subscription]}
        for subscription, rack in numbers
    ]
    return types, type_of


def _far(rack: str, near: frozenset[str]) -> int:
    return 1 if near and rack not in near else 0


def _had(
    who: Subscriptions,
    kinds: Sequence[Sequence[PartitionId]],
    may_take: Sequence[Iterable[int]],
    current: Targets,
) -> list[dict[int, list[PartitionId]]]:
    """Return what each member has of what it may have, by kind; what two have, the first has."""
    kind_of = {partition: kind for kind, each in enumerate(kinds) for partition in each}
    had: list[dict[int, list[PartitionId]]] = []
    for member, allowed in zip(who.members, may_take, strict=True):
        mine: dict[int, list[PartitionId]] = {}
        for partition in sorted(current.get(member.member_id, ())):
            kind = kind_of.get(partition)
            if kind is not None and kind in allowed:
                mine.setdefault(kind, []).append(partition)
                del kind_of[partition]
        had.append(mine)
    return had
