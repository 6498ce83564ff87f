"""Keeps a member's own stream open, at whichever broker answers, for as long as it is a member."""

from __future__ import annotations

from collections.abc import Awaitable

from riverrun._core.leader_map import ANY
from riverrun._core.partition_reader import PartitionReader
from riverrun._net.channel import Connection
from riverrun._net.subscribe_outlet import SubscribeOutlet


class MemberOutlet(SubscribeOutlet):
    """As `SubscribeOutlet`, with a stream also where there is nothing to read: the group may give something."""

    def lose(self, reader: PartitionReader) -> None:
        """Keep the stream: what is read from elsewhere the member has all the same."""

    def _is_wanted(self) -> bool:
        return True

    def _connect(self) -> Awaitable[Connection]:
        return self._cluster.connect_to(ANY, again=self._contact.begun)

    def _is_through(self) -> bool:
        # Whether everything has come that was asked for, the group has a say in (`MemberLoop.through`).
        return False
