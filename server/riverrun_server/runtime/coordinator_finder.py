"""Finds the coordinators of groups, and asks them again where they move, for as long as a call may wait."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeAlias, TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.scouts import Scouts
from riverrun_server.core.groups.search import CoordinatorSearch, is_moving
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import Home
from riverrun_server.ports.leadership import Leadership, Leaderships
from riverrun_server.runtime.offsets_topic import OffsetsTopic

T = TypeVar("T")


class Found(NamedTuple):
    """A coordinator, as far as is known.

    Attributes:
        home: the partition of the offsets topic.
        leadership: who leads it: this broker, or another one.
    """

    home: PartitionId
    leadership: Leadership

    @property
    def there(self) -> Home:
        """How another broker is asked."""
        assert self.leadership.leader is not None, "nobody is asked where nobody leads"
        return Home(self.home, self.leadership.leader, self.leadership.leader_epoch)


Once: TypeAlias = Callable[[Found, float], "asyncio.Future[T]"]
"""Asks a coordinator once, whose caller waits for so many seconds."""


class CoordinatorFinder:
    """Knows where groups are kept, and who coordinates them.

    Transitions: closed -> open (`open`) -> closed (`close`); closed, everything is refused with NOT_READY.

    Args:
        topic: the offsets topic.
        leaderships: who leads what.
        wait_s: how long a call waits for its coordinator.
    """

    def __init__(self, topic: OffsetsTopic, leaderships: Leaderships, wait_s: float) -> None:
        self.wait_s = wait_s
        self._topic = topic
        self._leaderships = leaderships
        self._is_open = False
        self._searching: dict[PartitionId, dict[CoordinatorSearch, asyncio.Event]] = {}
        self._scouts: dict[PartitionId, Scouts] = {}
        self._watching: list[Callable[[PartitionId], None]] = []

    def open(self) -> None:
        """Begin to answer."""
        self._is_open = True

    def close(self) -> None:
        """Refuse everything."""
        self._is_open = False

    def watch(self, changed: Callable[[PartitionId], None]) -> None:
        """Call `changed` for good, where a partition is led by another, or its coordinator has loaded."""
        self._watching.append(changed)

    # Where a group is kept.

    def homes(self) -> list[PartitionId]:
        """Return the partitions of the offsets topic; none where no such topic is known.

        Raises:
            Refusal: NOT_READY.
        """
        if not self._is_open:
            raise not_serving()
        return self._topic.partitions()

    def home(self, group_id: str) -> PartitionId | None:
        """Return the partition of a group, or None where no offsets topic is known.

        Raises:
            Refusal: NOT_READY.
        """
        homes = self.homes()
        return homes[zlib.crc32(group_id.encode()) % len(homes)] if homes else None

    async def known_home(self, group_id: str) -> PartitionId | None:
        """Return the partition of a group, or None where there is no offsets topic, for certain.

        Raises:
            Refusal: NOT_READY.
        """
        home = self.home(group_id)
        if home is None:
            await self._topic.caught_up()
            home = self.home(group_id)
        return home

    async def made_home(self, group_id: str) -> PartitionId:
        """Return the partition of a group; the first one who needs it makes the offsets topic.

        Raises:
            Refusal: NOT_READY; why it could not be made.
        """
        home = self.home(group_id)
        if home is None:
            await self._topic.make()
            home = self.home(group_id)
            assert home is not None, "the offsets topic was made"
        return home

    # Who leads that.

    def stand(self, home: PartitionId) -> tuple[Found, Hashable]:
        """Return who leads a partition, and what tells one leadership from another; None is nobody."""
        leadership = self._leaderships.of(home)
        is_here = leadership.here is not None
        if not is_here and leadership.leader is None:
            return Found(home, leadership), None
        stand = (leadership.leader, leadership.leader_epoch, is_here)
        return Found(home, leadership), stand

    def search(
        self, group_id: str, *, changes: bool, wait_s: float | None = None
    ) -> CoordinatorSearch:
        """Return a search for the coordinator of a group."""
        deadline = now() + (self.wait_s if wait_s is None else wait_s)
        return CoordinatorSearch(group_id, deadline, changes=changes)

    async def news(
        self,
        home: PartitionId,
        searches: Iterable[CoordinatorSearch],
        stir: asyncio.Event,
        timeout_s: float,
    ) -> None:
        """Wait until something has changed for a partition, `stir` is set, or time has passed."""
        searching = self._searching.setdefault(home, {})
        searching.update(dict.fromkeys(searches, stir))
        try:
            async with asyncio.timeout(timeout_s):
                await stir.wait()
        except TimeoutError:
            pass
        finally:
            for search in searches:
                searching.pop(search, None)

    def changed(self, home: PartitionId) -> None:
        """Learn that a partition is led by another, or that its coordinator has loaded, or cannot."""
        for search, stir in self._searching.get(home, {}).items():
            search.hurry()
            stir.set()
        for watching in self._watching:
            watching(home)

    # Asking.

    async def ask(
        self, group_id: str, home: PartitionId, search: CoordinatorSearch, once: Once[T]
    ) -> T:
        """Ask the coordinator of a group, again where that may help, until its search is over.

        Args:
            group_id: the group.
            home: its partition.
            search: for its coordinator.
            once: asks it once.

        Raises:
            Refusal
        """
        return await self._ask(group_id, home, search, once, Scouts())

    async def ask_among_many(
        self, group_id: str, home: PartitionId, search: CoordinatorSearch, once: Once[T]
    ) -> T:
        """Ask as `ask` does; while the coordinator cannot be had, one of those who do asks for all.

        Raises:
            Refusal
        """
        scouts = self._scouts.setdefault(home, Scouts())
        is_answered = False
        try:
            answer = await self._ask(group_id, home, search, once, scouts)
            is_answered = True
        except Refusal as refusal:
            is_answered = not is_moving(refusal)
            raise
        finally:
            self._over(home, scouts, search, is_answered=is_answered)
        return answer

    def doubt(self, home: PartitionId, lost_at: float) -> None:
        """Learn that what stood with a coordinator was lost: one looks for it, for all of its groups."""
        self._scouts.setdefault(home, Scouts()).doubted(lost_at)

    async def _ask(
        self,
        group_id: str,
        home: PartitionId,
        search: CoordinatorSearch,
        once: Once[T],
        scouts: Scouts,
    ) -> T:
        stir = asyncio.Event()
        while True:
            found, stand = self.stand(home)
            stir.clear()
            pause_s = search.pause_s(stand, now())
            if not scouts.may_ask(search, stand):
                pause_s = max(pause_s, search.deadline - now())
            if pause_s > 0:
                await self.news(home, [search], stir, pause_s)
                continue
            search.asked(stand)
            scouts.asked(search, stand)
            try:
                within_s = max(0.0, search.deadline - now())
                return await _within(within_s, once(found, within_s), group_id)
            except Refusal as refusal:
                search.refused(refusal, now(), alone=found.leadership.leader is None)
                scouts.refused(search, stand)
                if search.needs_other(stand) and scouts is self._scouts.get(home):
                    # It must not ask here again; others that wait for it may.
                    self._over(home, scouts, search, is_answered=False)

    def _over(
        self, home: PartitionId, scouts: Scouts, search: CoordinatorSearch, *, is_answered: bool
    ) -> None:
        """Have those who have waited for a search go on, now that it is over."""
        is_news = scouts.answered(now()) if is_answered else scouts.left(search)
        if is_news:
            for each, stir in self._searching.get(home, {}).items():
                each.hurry()
                stir.set()


async def _within(within_s: float, asked: asyncio.Future[T], group_id: str) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await asked
    except TimeoutError:
        raise Refusal(
            Reason.REQUEST_TIMED_OUT,
            f"the coordinator of group {group_id!r} did not answer within {within_s:.1f} s; ask again",
        ) from None


def not_serving() -> Refusal:
    """Return the refusal before offsets are served, and after."""
    return Refusal(Reason.NOT_READY, "the broker does not keep offsets yet or any more; ask again")


def now() -> float:
    """Return the time of everything that waits here, in seconds."""
    return asyncio.get_running_loop().time()
