"""Sharing out in single steps: what nobody has goes to who has least, and who has most gives.

Where all members subscribe alike and racks do not matter this is already the cheapest way; elsewhere
chains of moves improve on it (chains.py).
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, Sequence

from riverrun_server.core.groups.assignment.sharing import Sharing

# For a kind, the types that may take it and what one costs there.
_TakerTypes = list[tuple[int, int]]


def release(sharing: Sharing) -> None:
    """Take from members what is more than anybody's share, where all may take the same.

    It has to move in any case, and `fill` sees better than `level` where each of many is near.
    """
    problem = sharing.problem
    if any(kinds.keys() != problem.types[0].keys() for kinds in problem.types):
        return
    share_max = -(-sum(problem.sizes) // len(problem.type_of))
    for member, held in enumerate(sharing.held):
        while sharing.loads[member] > share_max:
            # What is far goes first, then that of which it has most, so that something of each is left.
            costs = ((sharing.give_cost(member, kind), -held[kind], kind) for kind in held)
            sharing.give(member, min(costs)[2])


def fill(sharing: Sharing) -> None:
    """Share out what nobody has yet.

    At first only to members where it is cheapest and that are below the average, so that no member
    takes from the share of another what is near to that one; then to whoever has least.
    """
    problem = sharing.problem
    missing = [*problem.sizes]
    for held in sharing.held:
        for kind, count in held.items():
            missing[kind] -= count
    takers: dict[int, _TakerTypes] = {kind: [] for kind, count in enumerate(missing) if count}
    for number, kinds in enumerate(problem.types):
        for kind in kinds.keys() & takers.keys():
            takers[kind].append((number, kinds[kind]))
    near = {kind: _cheapest(types) for kind, types in takers.items()}
    average = sum(problem.sizes) // len(problem.type_of)
    least = _LeastLoaded(sharing)
    for among, ceiling in ((near, average), (takers, None)):
        queues = {kind: _Takers(sharing, least, kind, types) for kind, types in among.items()}
        for _, kind in sorted(_turns(missing)):
            if queues[kind].take(ceiling):
                missing[kind] -= 1
    assert not any(missing)


def level(sharing: Sharing, steps: int) -> int:
    """Let members give to members that have at least two less, one partition at a time.

    Args:
        sharing: is changed.
        steps: how much work may be done: looks at a type of members, or at a kind that one may take.

    Returns:
        How much work is left to be done.
    """
    loads = sharing.loads
    least = _LeastLoaded(sharing)
    most = [(-load, member) for member, load in enumerate(loads)]
    heapq.heapify(most)
    while most and steps > 0:
        load, giver = heapq.heappop(most)
        if loads[giver] != -load:
            continue
        step, looks = _best_step(sharing, least, giver)
        steps -= looks
        if step is not None:
            taker, kind = step
            sharing.give(giver, kind)
            sharing.take(taker, kind)
            for member in (giver, taker):
                least.changed(member)
                heapq.heappush(most, (-loads[member], member))
    return steps


class _LeastLoaded:
    """Which member of each type has least.

    Attributes:
        of: for each type the load and the member.
        order: the same and the types, those with less first.
    """

    def __init__(self, sharing: Sharing) -> None:
        self._loads = sharing.loads
        self._type_of = sharing.problem.type_of
        self._heaps: list[list[tuple[int, int]]] = [[] for _ in sharing.problem.types]
        for member, number in enumerate(self._type_of):
            self._heaps[number].append((self._loads[member], member))
        for heap in self._heaps:
            heapq.heapify(heap)
        self.of = [heap[0] for heap in self._heaps]
        self.order = sorted((*found, number) for number, found in enumerate(self.of))

    def changed(self, member: int) -> None:
        """Note that a member's load is another now."""
        number = self._type_of[member]
        heap = self._heaps[number]
        heapq.heappush(heap, (self._loads[member], member))
        while heap[0][0] != self._loads[heap[0][1]]:
            heapq.heappop(heap)
        if heap[0] != self.of[number]:
            del self.order[bisect.bisect_left(self.order, (*self.of[number], number))]
            self.of[number] = heap[0]
            bisect.insort(self.order, (*heap[0], number))


class _Takers:
    """Who may take one of a kind, those with least first."""

    def __init__(
        self, sharing: Sharing, least: _LeastLoaded, kind: int, types: _TakerTypes
    ) -> None:
        self._sharing = sharing
        self._least = least
        self._kind = kind
        self._heap = [self._entry(number, cost) for number, cost in types]
        heapq.heapify(self._heap)

    def take(self, ceiling: int | None) -> bool:
        """Give one to whoever has least, unless that is as much as the ceiling."""
        heap = self._heap
        # In `fill` loads only rise, so that an entry that is out of date is too low, never too high.
        while heap[0] != (now := self._entry(heap[0][3], heap[0][1])):
            heapq.heapreplace(heap, now)
        load, _, member, _ = heap[0]
        if ceiling is not None and load >= ceiling:
            return False
        self._sharing.take(member, self._kind)
        self._least.changed(member)
        return True

    def _entry(self, number: int, cost: int) -> tuple[int, int, int, int]:
        load, member = self._least.of[number]
        return load, cost, member, number


def _cheapest(types: _TakerTypes) -> _TakerTypes:
    least = min(cost for _, cost in types)
    return [each for each in types if each[1] == least]


def _turns(missing: Sequence[int]) -> Iterator[tuple[float, int]]:
    """Return when each partition's turn is, so that every kind has its share at any time.

    Kind by kind, the first ones would fill members that are the only near ones of the last.
    """
    for kind, count in enumerate(missing):
        for at in range(count):
            yield (at + 0.5) / count, kind


def _best_step(
    sharing: Sharing, least: _LeastLoaded, giver: int
) -> tuple[tuple[int, int] | None, int]:
    """Return to whom a member should give one and of which kind, and how much work that was.

    It is None where nobody who could take one has two less.
    """
    gives = {kind: sharing.give_cost(giver, kind) for kind in sharing.held[giver]}
    cheapest = min(gives.values(), default=0)
    load_max = sharing.loads[giver] - 2
    best: tuple[int, int, int] | None = None
    looks = 0
    for load, taker, number in least.order:
        looks += 1
        if load > load_max:
            break
        kinds = sharing.problem.types[number]
        for kind in gives.keys() & kinds.keys():
            looks += 1
            step = (gives[kind] + sharing.take_cost(taker, kind), taker, kind)
            if best is None or step < best:
                best, load_max = step, load
        if best is not None and best[0] <= cheapest:
            break
    return (None if best is None else best[1:]), looks
