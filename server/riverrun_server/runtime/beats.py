"""Says of all members of this broker that they live: one call for those that have a coordinator in common."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from riverrun_server.core.errors import Refusal
from riverrun_server.ports.coordination import BeatRefused, MemberBeat
from riverrun_server.ports.membership import CoordinatorTerm
from riverrun_server.runtime.member_stream import MemberStream

# Between two beats: no longer, and of the shortest session timeout no more.
_INTERVAL_MAX_S: Final = 1.0
_INTERVAL_MIN_S: Final = 0.2
_SESSION_SHARE: Final = 0.2
# Beats of one coordinator that are not answered.
_UNANSWERED_MAX: Final = 4

_log = structlog.stdlib.get_logger(__name__)


class _Beating(NamedTuple):
    """A member that is said to live, as of its last heartbeat."""

    stream: MemberStream
    beat: MemberBeat
    heartbeat_id: int


class Beats:
    """The beats of all members of a broker.

    Transitions: made -> beating (`run`) -> over (`run` is cancelled).

    Attributes:
        streams: of members; in the order in which they came.
    """

    def __init__(self) -> None:
        self.streams: dict[MemberStream, None] = {}
        self._entered = asyncio.Event()
        self._unanswered: dict[CoordinatorTerm, int] = {}

    def enter(self, stream: MemberStream) -> None:
        """Beat for a stream, too."""
        self.streams[stream] = None
        self._entered.set()

    async def run(self) -> None:
        """Beat until cancelled; not while nobody is there."""
        while True:
            while not self.streams:
                self._entered.clear()
                await self._entered.wait()
            self.beat()
            await asyncio.sleep(self._interval_s())

    def beat(self) -> None:
        """Say once who lives."""
        now = asyncio.get_running_loop().time()
        by_coordinator: dict[CoordinatorTerm, list[_Beating]] = {}
        for stream in self.streams:
            if (beat := stream.beat(now)) is not None:
                beating = _Beating(stream, beat, stream.heartbeats.newest)
                by_coordinator.setdefault(stream.coordinator, []).append(beating)
        for coordinator, all_of_it in by_coordinator.items():
            self._say(coordinator, all_of_it, now)

    def _interval_s(self) -> float:
        shortest = min((each.session_timeout_s for each in self.streams), default=_INTERVAL_MAX_S)
        return max(_INTERVAL_MIN_S, min(_INTERVAL_MAX_S, shortest * _SESSION_SHARE))

    def _say(self, coordinator: CoordinatorTerm, beating: Sequence[_Beating], now: float) -> None:
        if self._unanswered.get(coordinator, 0) >= _UNANSWERED_MAX:
            return
        try:
            asked = coordinator.beat([each.beat for each in beating])
        except Refusal:
            return  # their leases say how long that may go on
        self._unanswered[coordinator] = self._unanswered.get(coordinator, 0) + 1

        def answered(asked: asyncio.Future[Sequence[BeatRefused]]) -> None:
            self._unanswered[coordinator] -= 1
            if not self._unanswered[coordinator]:
                del self._unanswered[coordinator]
            if asked.cancelled():
                return
            error = asked.exception()
            if error is None:
                _answered(beating, asked.result(), now)
            elif not isinstance(error, Refusal):
                _log.error("beats of members failed", exc_info=error)

        asked.add_done_callback(answered)


def _answered(beating: Sequence[_Beating], refused: Sequence[BeatRefused], sent_at: float) -> None:
    not_counted = {each.beat for each in refused}
    for stream, beat, heartbeat_id in beating:
        if beat in not_counted:
            stream.doubted(beat.attachment)
        else:
            stream.confirmed(beat.attachment, sent_at, heartbeat_id)
