"""Calls that wait for their turn at a coordinator, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.runtime.group_turn import Answer, Turn, refuse

T = TypeVar("T")

Act: TypeAlias = Callable[[Turn], Answer[T]]
"""Carries a call out: writes what it takes, and returns what says the answer; or raises a Refusal.

A refusal leaves everything as it was.
"""

# What a call that says nothing of its size is taken for.
_CALL_BYTES: Final = 200


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """One call.

    Attributes:
        group_id: of which group.
        act: carries it out.
        size_bytes: of what it writes, about.
        knows_offsets: it looks at committed offsets, so none may be on their way before it.
        done: the answer.
    """

    group_id: str
    act: Act[T]
    size_bytes: int = _CALL_BYTES
    knows_offsets: bool = False
    done: asyncio.Future[T] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class CallQueue:
    """Calls in the order in which they came.

    Transitions: open -> closed (`close`); whatever comes then is refused.

    Args:
        waiting_max: how many may wait.
        turn_bytes: what a turn aims at; one call alone may write more.
    """

    def __init__(self, waiting_max: int, turn_bytes: int) -> None:
        self._waiting: deque[Call[Any]] = deque()
        self._waiting_max = waiting_max
        self._turn_bytes = turn_bytes
        self._closed: Refusal | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no call waits."""
        return not self._waiting

    def put(self, call: Call[T]) -> asyncio.Future[T]:
        """Let a call wait for its turn.

        Raises:
            Refusal: OVERLOADED; why it was closed.
        """
        if self._closed is not None:
            raise again(self._closed)
        if len(self._waiting) >= self._waiting_max:
            raise Refusal(
                Reason.OVERLOADED,
                f"{len(self._waiting)} calls wait for the coordinator of group {call.group_id!r} and "
                "no more may; commit less often, or again after a moment",
            )
        self._waiting.append(call)
        return call.done

    def serve(self, turn: Turn) -> None:
        """Carry calls out until the turn is full; each is answered with it."""
        while self._waiting:
            call = self._waiting[0]
            if not turn.is_empty and (
                turn.size_bytes + call.size_bytes > self._turn_bytes
                or (call.knows_offsets and turn.has_offsets)
            ):
                return
            self._waiting.popleft()
            if call.done.done():
                continue  # its caller is gone
            try:
                turn.answer(call.done, call.act(turn))
            except Refusal as refusal:
                # It may rest on what this turn has written.
                turn.answer(call.done, refusal)

    def refuse(self, why: Callable[[str], Refusal]) -> None:
        """Fail what waits with a reason for its group; nothing of it has happened."""
        while self._waiting:
            call = self._waiting.popleft()
            refuse(call.done, why(call.group_id))

    def refuse_all(self, why: Refusal) -> None:
        """Fail what waits with one reason; nothing of it has happened."""
        self.refuse(lambda _: again(why))

    def close(self, why: Refusal) -> None:
        """Fail what waits, and whatever comes from now on; nothing of it has happened."""
        self._closed = why
        self.refuse_all(why)


def again(refusal: Refusal) -> Refusal:
    """Return another one that says the same: one that is raised twice collects both tracebacks."""
    return Refusal(refusal.reason, refusal.message)
