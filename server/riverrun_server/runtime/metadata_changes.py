"""Changes of metadata that clients ask for, one after the other, each carried out whoever still waits for it.

A change runs in a task of its own: a caller that goes away does not leave it half done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, cast

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.steps import Step
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from riverrun_server.ports.metadata import MetadataError
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated, refusal_of

T = TypeVar("T")

# A plan is outdated only when somebody else wrote in between; so often in a row is a livelock.
ATTEMPTS: Final = 10


class Plan(Protocol):
    """What is to be done; nothing where it is so already."""

    @property
    def steps(self) -> Sequence[Step]:
        """To be carried out in order."""
        ...


P = TypeVar("P", bound=Plan)


@dataclass(slots=True)
class _Waiting:
    what: str
    run: Callable[[], Awaitable[object]]
    done: asyncio.Future[object]


class MetadataChanges:
    """The one writer, in this process, of what clients ask for.

    Transitions of a change: waiting -> under way -> answered; waiting | under way -> given up
    (shutdown).

    Attributes:
        image: the metadata as applied; changes are planned on it.

    Args:
        image: as above.
        applied: moves on once what the image shows has taken effect.
        writer: of metadata.
        limits: of the broker.
    """

    def __init__(
        self, image: ClusterImage, applied: Applied, writer: MetadataWriter, limits: Limits
    ) -> None:
        self.image = image
        self._applied = applied
        self._writer = writer
        self._limit_s = limits.topic_change_timeout_ms / 1_000
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(limits.max_waiting_topic_changes)
        self._stopped = False

    # --- one at a time ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out changes until cancelled."""
        while True:
            waiting = await self._queue.get()
            try:
                result = await waiting.run()
            except asyncio.CancelledError:
                if not waiting.done.done():
                    waiting.done.set_exception(interrupted(waiting.what))
                raise
            except MetadataError as error:
                _fail(waiting, refusal_of(error, waiting.what))
            except Exception as error:  # noqa: BLE001 - the caller gets it, the next change goes on
                _fail(waiting, error)
            else:
                if not waiting.done.done():
                    waiting.done.set_result(result)

    def stop(self) -> None:
        """Refuse what waits and what comes."""
        self._stopped = True
        while not self._queue.empty():
            _fail(self._queue.get_nowait(), _shutting_down())

    async def in_turn(self, what: str, run: Callable[[], Awaitable[T]], look_at: str) -> T:
        """Have a change carried out when those before it are.

        Args:
            what: it is, in words.
            run: carries it out.
            look_at: what shows afterwards how a change ended that nobody waited for any more.

        Raises:
            Refusal: SHUTTING_DOWN, OVERLOADED, REQUEST_TIMED_OUT; whatever `run` raises, errors of the
                store as refusals.
        """
        if self._stopped:
            raise _shutting_down()
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(what, run, done))
        except asyncio.QueueFull:
            raise Refusal(
                Reason.OVERLOADED,
                f"{what}: {self._queue.maxsize} changes of the metadata wait already, which is the "
                "most; try again",
            ) from None
        return cast("T", await self.limited(what, done, look_at))

    async def limited(self, what: str, work: Awaitable[T], look_at: str) -> T:
        """Wait for what goes on by itself, for as long as a change is waited for.

        Raises:
            Refusal: REQUEST_TIMED_OUT; whatever `work` raises.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                return await work
        except TimeoutError:
            raise Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"{what} takes more than {self._limit_s:g} s and goes on; describe {look_at} to see "
                "how it ended",
            ) from None

    # --- what changes are made of ----------------------------------------------------------------

    async def carry_out(self, plan: Callable[[], P]) -> P:
        """Commit a plan, made anew as long as others come in between; return it once it has taken effect.

        Raises:
            Refusal, MetadataError: whatever `plan` and the store raise.
        """
        for _ in range(ATTEMPTS):
            planned = plan()
            if not planned.steps:
                return planned
            try:
                revision = await self.commit(planned.steps)
            except PlanOutdated as outdated:
                await self.wait_for(outdated.revision)
                continue
            await self.wait_for(revision)
            return planned
        raise PlanOutdated(self.image.revision)

    async def commit(self, steps: Iterable[Step]) -> int:
        """Apply steps in order; return the revision of the last one.

        Raises:
            MetadataError: as MetadataWriter.commit.
        """
        return await self._writer.commit(steps)

    async def wait_for(self, revision: int) -> None:
        """Wait until all up to a revision has taken effect here.

        Raises:
            Refusal: REQUEST_TIMED_OUT, at a shutdown.
        """
        if not await self._applied.reached(revision):
            raise interrupted("the change")

    async def moved(self, what: str) -> None:
        """Wait until anything has taken effect here.

        Raises:
            Refusal: as `wait_for`.
        """
        if not await self._applied.moved():
            raise interrupted(what)


def interrupted(what: str) -> Refusal:
    """Return what is told of a change that a shutdown cut off."""
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        f"{what} was interrupted by a shutdown of the broker and may still take effect; look once "
        "it is back",
    )


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _shutting_down() -> Refusal:
    return Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down; ask again after a moment")
