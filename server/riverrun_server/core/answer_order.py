"""The order of a produce stream's answers: each partition's come in the order of its appends.

Appends are answered by their partitions in any order: a refusal overtakes what waits for the disk,
and one append may go to several partitions. Here each waits until it is first in every lane that it
is in, a lane being a partition as this stream sees it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Part(Generic[L, T]):
    """What one partition was asked to append, and its answer once there is one."""

    lane: L
    answer: T | None = None


@dataclass(slots=True, eq=False)
class Pending(Generic[L, T]):
    """One append on its way to its answer.

    Attributes:
        tag: the client's number for it.
        size_bytes: what it occupies until it is answered.
        deadline: when it is overdue, in the driver's time.
        parts: what became of it where.
    """

    tag: int
    size_bytes: int
    deadline: float
    parts: list[Part[L, T]] = field(default_factory=list)
    sealed: bool = False
    ready: bool = False
    unanswered: int = 0


class AnswerOrder(Generic[L, T]):
    """Every append of one stream that has not been sent its answer yet.

    Transitions of an append: begun -> sealed (all of its parts are known) -> answered (every part
    is) -> ready (first in all of its lanes) -> taken.
    """

    def __init__(self) -> None:
        self._lanes: dict[L, deque[Pending[L, T]]] = {}
        self._ready: deque[Pending[L, T]] = deque()
        self._open = 0

    def __len__(self) -> int:
        """Return how many appends have not been taken yet."""
        return self._open

    @property
    def has_ready(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._ready)

    def begin(self, tag: int, size_bytes: int, deadline: float) -> Pending[L, T]:
        """Return a new append; its parts are added one by one, then it is sealed."""
        self._open += 1
        return Pending(tag, size_bytes, deadline)

    def add(self, pending: Pending[L, T], lane: L) -> Part[L, T]:
        """Add a part to an append, at the end of the part's lane."""
        assert not pending.sealed, pending
        part: Part[L, T] = Part(lane)
        pending.parts.append(part)
        pending.unanswered += 1
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
        queue.append(pending)
        return part

    def seal(self, pending: Pending[L, T]) -> None:
        """Say that an append has all of its parts."""
        pending.sealed = True
        if not pending.unanswered:
            self._advance(pending)

    def answer(self, pending: Pending[L, T], part: Part[L, T], answer: T) -> None:
        """Take in the answer of one part; one that comes after it was overdue is dropped."""
        if part.answer is not None:
            return
        part.answer = answer
        pending.unanswered -= 1
        if not pending.unanswered and pending.sealed:
            self._advance(pending)

    def overdue(self, now: float) -> list[Pending[L, T]]:
        """Return the appends whose deadline has passed without an answer; the driver answers them."""
        return [
            pending
            for pending in {id(p): p for lane in self._lanes.values() for p in lane}.values()
            if pending.deadline <= now and pending.unanswered and pending.sealed
        ]

    def take(self, limit: int) -> list[Pending[L, T]]:
        """Return, and forget, up to `limit` appends whose answers may be sent, in order."""
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._open -= len(taken)
        return taken

    def _advance(self, pending: Pending[L, T]) -> None:
        """Move what is answered and first in all of its lanes behind what is ready already."""
        candidates = [pending]
        while candidates:
            first = candidates.pop()
            # It may be a candidate twice, as the next one in two lanes.
            if first.unanswered or not first.sealed or first.ready:
                continue
            lanes = {part.lane: self._lanes[part.lane] for part in first.parts}
            if any(queue[0] is not first for queue in lanes.values()):
                continue
            for lane, queue in lanes.items():
                while queue and queue[0] is first:
                    queue.popleft()
                if queue:
                    candidates.append(queue[0])
                else:
                    del self._lanes[lane]
            first.ready = True
            self._ready.append(first)
