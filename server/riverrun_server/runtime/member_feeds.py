"""Who is told what the members of a coordinator's groups have: one feed for each stream that speaks for one."""

from __future__ import annotations

from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import MemberKey
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.membership import Beat, taken_over, unknown_member
from riverrun_server.ports.coordination import MemberEvents


class _Feed(NamedTuple):
    attachment: int
    gateway: int
    events: MemberEvents


class MemberFeeds:
    """The feeds of the streams that speak for members.

    Transitions of a feed: open (`open`) -> over: told the end, by news of the machine, with another
    leadership, or where a reload finds that its stream does not speak any more; or closed by whoever
    opened it, and told nothing.
    """

    def __init__(self) -> None:
        self._feeds: dict[MemberKey, _Feed] = {}
        # Also of streams that have ended; of members that are gone it is forgotten when they are.
        self._gateways: dict[MemberKey, int] = {}

    def __len__(self) -> int:
        """Return how many streams are told."""
        return len(self._feeds)

    def gateway(self, member: MemberKey) -> int | None:
        """Return the broker that has a member's stream, or had the last one; None where nobody knows."""
        return self._gateways.get(member)

    def open(self, member: MemberKey, attachment: int, gateway: int, events: MemberEvents) -> None:
        """Tell a stream what its member has from now on; the one before is told its end by the news."""
        before = self._feeds.get(member)
        if before is not None and before.attachment != attachment:
            before.events.ended(taken_over(*member, before.attachment, attachment))
        self._feeds[member] = _Feed(attachment, gateway, events)
        self._gateways[member] = gateway

    def close(self, member: MemberKey, attachment: int) -> None:
        """Tell a stream nothing any more; one that was replaced is not told anyway."""
        feed = self._feeds.get(member)
        if feed is not None and feed.attachment == attachment:
            del self._feeds[member]

    def tell(self, groups: Groups) -> None:
        """Tell what is new in committed groups."""
        news = groups.take_news()
        for ended in news.ended:
            feed = self._feeds.get(ended.member)
            if feed is not None and feed.attachment == ended.attachment:
                del self._feeds[ended.member]
                feed.events.ended(ended.why)
            if groups.view(*ended.member) is None:
                self._gateways.pop(ended.member, None)
        for member in news.changed:
            feed = self._feeds.get(member)
            view = groups.view(*member)
            if feed is not None and view is not None:
                feed.events.changed(view)

    def reloaded(self, groups: Groups, now_ms: int) -> None:
        """Go on with a machine that has been loaded anew in the same leadership.

        A stream that speaks for its member in the log does so still, and its member has its whole session
        timeout from now. The others were replaced, or their members are gone.
        """
        for member, feed in [*self._feeds.items()]:
            (beat,) = groups.beat([(*member, feed.attachment)], now_ms)
            view = groups.view(*member)
            if beat is Beat.OK and view is not None:
                feed.events.changed(view)
                continue
            del self._feeds[member]
            if beat is Beat.TAKEN_OVER:
                newest = groups.registry.groups[member.group_id].members[member.member_id]
                why = taken_over(*member, feed.attachment, newest.attachment)
            else:
                why = unknown_member(*member)
            feed.events.ended(why)

    def end(self) -> None:
        """Tell every stream that this coordinator is one no more."""
        feeds, self._feeds = self._feeds, {}
        self._gateways.clear()
        for feed in feeds.values():
            feed.events.ended(elsewhere())


def elsewhere() -> Refusal:
    """Return what is told of a coordinator that is one no more, or does not know what it is."""
    return Refusal(
        Reason.COORDINATOR_LOADING,
        "the group's coordinator is another one now, or reads its state anew; ask again",
    )
