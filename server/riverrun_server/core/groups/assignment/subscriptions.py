"""Members and topics in an order that depends on nothing but their names, and who reads what.

Members of a group mostly subscribe alike, so what follows counts different subscriptions, not
members.
"""

from __future__ import annotations

from collections.abc import Iterable

from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber


class Subscriptions:
    """Who reads what.

    Attributes:
        members: those that have an instance id first and ordered by it, so that one that comes back
            under another member id has the same place.
        distinct: the different subscriptions, in the order of their first member.
        of: which of them each member has.
        topics: those that somebody reads, by id.
        readers: which of the subscriptions each of these topics is in.
    """

    def __init__(
        self, subscribers: Iterable[Subscriber], topics: Iterable[AssignableTopic]
    ) -> None:
        self.members = sorted(
            subscribers, key=lambda each: (not each.instance_id, each.instance_id, each.member_id)
        )
        numbers: dict[frozenset[bytes], int] = {}
        self.of = [numbers.setdefault(each.topics, len(numbers)) for each in self.members]
        self.distinct = [*numbers]
        read: dict[bytes, list[int]] = {}
        for number, subscription in enumerate(self.distinct):
            for topic_id in subscription:
                read.setdefault(topic_id, []).append(number)
        self.topics = sorted(
            (each for each in topics if each.topic_id in read), key=lambda each: each.topic_id
        )
        self.readers = [tuple(read[each.topic_id]) for each in self.topics]
        self._racks = frozenset(each.rack for each in self.members if each.rack)
        assert len({each.member_id for each in self.members}) == len(self.members)
        assert len({each.topic_id for each in self.topics}) == len(self.topics)

    def racks(self, topic: AssignableTopic) -> list[frozenset[str]]:
        """Return for each partition the racks of members in which it has a replica."""
        if not self._racks or not topic.racks:
            return [frozenset()] * topic.partitions
        return [self._racks & each for each in topic.racks]
