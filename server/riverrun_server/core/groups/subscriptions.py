"""What members subscribe to, as the assignors take it: ids of topics that exist, by name and by pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic, Subscriber
from riverrun_server.core.groups.members import Assignor, MemberValue

# Compiled patterns that are kept; more are compiled anew.
_PATTERNS_MAX: Final = 1_000

# Whether a name of a topic matches.
Matcher = Callable[[str], bool]
# Makes one of a pattern; raises a Refusal where it is none.
Compile = Callable[[str], Matcher]


class Subscriptions:
    """Looks up what names and patterns stand for, in the topics that there are now.

    Args:
        compile_pattern: makes a matcher of a pattern.
    """

    def __init__(self, compile_pattern: Compile) -> None:
        self._compile = compile_pattern
        self._matchers: dict[str, Matcher] = {}
        self._matched: dict[str, frozenset[str]] = {}
        # The names that mean another thing since the last change, and the patterns that match one.
        self._news: frozenset[str] = frozenset()
        self._concerned: dict[str, bool] = {}
        self.topics: Mapping[str, AssignableTopic] = {}

    def check_pattern(self, pattern: str) -> None:
        """Check that a pattern can be matched.

        Raises:
            Refusal: what `compile_pattern` has against it.
        """
        self._matcher(pattern)

    def changed(self, topics: Mapping[str, AssignableTopic]) -> None:
        """Take over the topics that there are now, by name."""
        old = self.topics
        self.topics = dict(topics)
        self._matched.clear()
        self._concerned.clear()
        self._news = frozenset(
            name for name in old.keys() | topics.keys() if old.get(name) != topics.get(name)
        )

    def concerned(self, names: frozenset[str], patterns: Iterable[str]) -> bool:
        """Return whether one of these stands for something else since the topics changed last."""
        return not names.isdisjoint(self._news) or any(map(self._is_concerned, patterns))

    def subscribers(self, members: Mapping[str, MemberValue]) -> list[Subscriber]:
        """Return all members as the assignors take them."""
        # Most members of a group subscribe to the same: one set for all of them.
        found: dict[tuple[tuple[str, ...], str], frozenset[bytes]] = {}
        subscribers = []
        for member_id, member in members.items():
            wanted = (member.topics, member.pattern)
            ids = found.get(wanted)
            if ids is None:
                ids = found[wanted] = self._ids(member)
            subscribers.append(
                Subscriber(
                    member_id=member_id,
                    instance_id=member.instance_id,
                    rack=member.rack,
                    topics=ids,
                )
            )
        return subscribers

    def subscribed(self, subscribers: Sequence[Subscriber]) -> list[AssignableTopic]:
        """Return the topics that at least one of them reads."""
        ids = frozenset[bytes]().union(*{each.topics for each in subscribers})
        return [topic for topic in self.topics.values() if topic.topic_id in ids]

    def _is_concerned(self, pattern: str) -> bool:
        concerned = self._concerned.get(pattern)
        if concerned is None:
            if len(self._concerned) >= _PATTERNS_MAX:
                self._concerned.clear()
            concerned = any(self._matches(pattern, name) for name in self._news)
            self._concerned[pattern] = concerned
        return concerned

    def _ids(self, member: MemberValue) -> frozenset[bytes]:
        names = set(member.topics)
        if member.pattern:
            names |= self._names(member.pattern)
        return frozenset(self.topics[name].topic_id for name in names if name in self.topics)

    def _names(self, pattern: str) -> frozenset[str]:
        names = self._matched.get(pattern)
        if names is None:
            if len(self._matched) >= _PATTERNS_MAX:
                self._matched.clear()
            names = frozenset(name for name in self.topics if self._matches(pattern, name))
            self._matched[pattern] = names
        return names

    def _matches(self, pattern: str, name: str) -> bool:
        try:
            return self._matcher(pattern)(name)
        except Refusal:
            # It was taken once, by a broker of another version. Its member gets nothing by it; to fail
            # here would take every group of the partition away.
            return False

    def _matcher(self, pattern: str) -> Matcher:
        matcher = self._matchers.get(pattern)
        if matcher is None:
            if len(self._matchers) >= _PATTERNS_MAX:
                self._matchers.clear()
            matcher = self._matchers[pattern] = self._compile(pattern)
        return matcher


def voted(members: Iterable[MemberValue], present: Assignor | None, default: Assignor) -> Assignor:
    """Return the assignor that most members ask for.

    Of several with as many votes the present one stays, so that nothing moves for a tie; where
    nobody asks for any it is the default.
    """
    votes: dict[Assignor, int] = {}
    for member in members:
        if member.assignor is not None:
            votes[member.assignor] = votes.get(member.assignor, 0) + 1
    if not votes:
        return default
    return max(votes, key=lambda each: (votes[each], each is present, each.value))
