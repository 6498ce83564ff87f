"""One stream of a member that reads from leaders itself: it tells what the member has, and delivers nothing."""

from __future__ import annotations

from typing import Final

from riverrun._core.partition_reader import StartedPosition
from riverrun._core.records import TopicPartition
from riverrun._net.member_stream import MemberStream
from riverrun.v1 import consumer_pb2 as pb

# What the streams from the leaders say of themselves.
_SAID_BY_LEADERS: Final = frozenset(
    {"delivery", "caught_up", "position_reset", "partition_error", "seek_done"}
)


class DirectStream(MemberStream):
    """As `MemberStream`, for membership alone."""

    def reads(self, partition: TopicPartition) -> bool:  # noqa: ARG002
        """Nothing is read from it."""
        return False

    def _start(self) -> pb.SubscribeStart:
        start = super()._start()
        start.membership_only = True
        return start

    def _take(self, response: pb.SubscribeResponse) -> None:
        if response.WhichOneof("kind") not in _SAID_BY_LEADERS:
            super()._take(response)

    def _go_on(self, at: StartedPosition) -> None:
        """Let it be: the streams from leaders go on by themselves."""
