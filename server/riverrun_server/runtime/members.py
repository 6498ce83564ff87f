"""The members of groups whose streams this broker holds: it speaks for them, and tells that they live."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.membership import Coordination
from riverrun_server.runtime.beats import Beats
from riverrun_server.runtime.member_stream import MemberStream


class Members:
    """All member streams of a broker.

    Transitions: made -> running (`run`) -> closed (`run` is cancelled); nobody is served but while it runs.

    Args:
        coordination: finds the coordinators of groups.
        dice: spreads what is tried again.

    Attributes:
        coordination: finds the coordinators of groups.
        dice: spreads what is tried again.
    """

    def __init__(self, coordination: Coordination, dice: Dice) -> None:
        self.coordination = coordination
        self.dice = dice
        self._beats = Beats()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def count(self) -> int:
        """How many members this broker speaks for."""
        return len(self._beats.streams)

    async def run(self) -> None:
        """Tell coordinators which members live, until cancelled; the owner of every task that is spawned."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._beats.run()
            finally:
                # At once: a group that is ending takes tasks only as long as it has some.
                self._tasks = None

    def check_running(self) -> None:
        """Check that members can be served.

        Raises:
            Refusal: NOT_READY.
        """
        if self._tasks is None:
            raise Refusal(
                Reason.NOT_READY,
                "the broker does not serve members of groups yet or any more; ask again, or another one",
            )

    def enter(self, stream: MemberStream) -> None:
        """Tell of a stream's member that it lives, for as long as it does."""
        self._beats.enter(stream)

    def leave(self, stream: MemberStream) -> None:
        """Tell nothing of it any more."""
        self._beats.streams.pop(stream, None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task for as long as this runs; where it does not, coordinators will notice by themselves."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work, name=name)
