"""Chains of moves that make a sharing cheaper, until there is none: then it is the cheapest.

A chain is a cycle in a graph: a member gives one of a kind, another takes it and gives one of another
kind, and so on, back to the first member, or through the pool: then the first member's load falls by
one, and the last one's rises. The graph is the residual network of a flow whose costs are convex, and
such a flow is the cheapest exactly when no cycle has a negative cost (Ahuja, Magnanti, Orlin: Network
Flows, chapter 14). Cycles are found by correcting labels: each node knows the least cost, found so
far, of a chain that ends there, and from where that came.

    member --> kind            gives one
    kind --> type --> member   takes one, at what one costs where that member is
    kind --> member            takes back one that it had
    pool --> member            has one less
    member --> pool            has one more
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from riverrun_server.core.groups.assignment.sharing import Sharing


def improve(sharing: Sharing, steps: int) -> None:
    """Move along chains that make it cheaper.

    Args:
        sharing: is changed.
        steps: how much work may be done: looks at an arc of the graph. Each chain makes the sharing
            cheaper, so that it is a good one also where work ends before chains do.
    """
    search = _Search(sharing, steps)
    while chain := search.next_chain():
        search.follow(chain)


class _Search:
    """The graph, and its labels.

    Wherever a label could be lower by one arc, the tail of that arc is in the queue: so the labels
    stand, and no cycle is negative, when the queue is empty.
    """

    def __init__(self, sharing: Sharing, steps: int) -> None:
        self._sharing = sharing
        self._steps = steps
        problem = sharing.problem
        self._kinds_at = len(problem.type_of)
        self._types_at = self._kinds_at + len(problem.sizes)
        self._pool = self._types_at + len(problem.types)
        self._types_of_kind: list[list[tuple[int, int]]] = [[] for _ in problem.sizes]
        for number, kinds in enumerate(problem.types):
            for kind, cost in kinds.items():
                self._types_of_kind[kind].append((self._types_at + number, cost))
        self._members_of_type: list[list[int]] = [[] for _ in problem.types]
        for member, number in enumerate(problem.type_of):
            self._members_of_type[number].append(member)
        # For each kind those who have fewer of it than they had, in a dict for its order.
        self._missing: list[dict[int, None]] = [{} for _ in problem.sizes]
        for member, had in enumerate(problem.had):
            for kind in had:
                self._note(member, kind)
        self._labels = [0] * (self._pool + 1)
        self._came_from: list[int | None] = [None] * (self._pool + 1)
        self._queue: deque[int] = deque()
        self._queued = [False] * (self._pool + 1)
        self._push(self._pool)
        for node in range(self._types_at):
            self._push(node)

    def next_chain(self) -> list[int]:
        """Return the nodes of a cycle with a negative cost; empty where there is none."""
        labels, came_from = self._labels, self._came_from
        while self._queue and self._steps > 0:
            tail = self._queue.popleft()
            self._queued[tail] = False
            for head, cost in self._arcs(tail):
                self._steps -= 1
                label = labels[tail] + cost
                if label < labels[head]:
                    chain = self._path(head, tail)
                    if chain:
                        return chain
                    labels[head] = label
                    came_from[head] = tail
                    self._push(head)
        return []

    def follow(self, chain: list[int]) -> None:
        """Move along a chain for as long as that makes the sharing cheaper."""
        moves = self._moves(chain)
        ends = self._ends(chain)
        assert self._is_cheaper(moves, ends)
        while self._is_cheaper(moves, ends):
            for giver, kind, taker in moves:
                self._sharing.give(giver, kind)
                self._sharing.take(taker, kind)
        for giver, kind, taker in moves:
            self._note(giver, kind)
            self._note(taker, kind)
        # Arcs between nodes of the chain have other costs now: ways over them may be none any more.
        self._came_from = [None] * len(self._came_from)
        for node in chain:
            self._push(node)

    def _arcs(self, node: int) -> Iterator[tuple[int, int]]:
        sharing, problem = self._sharing, self._sharing.problem
        if node < self._kinds_at:
            yield self._pool, (2 * sharing.loads[node] + 1) * problem.load_cost
            for kind in sharing.held[node]:
                yield self._kinds_at + kind, sharing.give_cost(node, kind)
        elif node < self._types_at:
            kind = node - self._kinds_at
            yield from self._types_of_kind[kind]
            for member in self._missing[kind]:
                yield member, sharing.take_cost(member, kind)
        elif node < self._pool:
            for member in self._members_of_type[node - self._types_at]:
                yield member, 0
        else:
            for member, load in enumerate(sharing.loads):
                if load:
                    yield member, (1 - 2 * load) * problem.load_cost

    def _path(self, start: int, end: int) -> list[int]:
        """Return the nodes on the way by which the end's label came from the start; else nothing."""
        path = []
        node: int | None = end
        while node is not None:
            path.append(node)
            if node == start:
                return path[::-1]
            node = self._came_from[node]
        return []

    def _moves(self, chain: list[int]) -> list[tuple[int, int, int]]:
        """Return who gives which kind to whom."""
        nodes = [node for node in chain if not self._types_at <= node < self._pool]
        return [
            (nodes[at - 1], node - self._kinds_at, nodes[(at + 1) % len(nodes)])
            for at, node in enumerate(nodes)
            if self._kinds_at <= node < self._types_at
        ]

    def _ends(self, chain: list[int]) -> tuple[int, int] | None:
        """Return whose load falls and whose rises."""
        if self._pool not in chain:
            return None
        at = chain.index(self._pool)
        return chain[(at + 1) % len(chain)], chain[at - 1]

    def _is_cheaper(self, moves: list[tuple[int, int, int]], ends: tuple[int, int] | None) -> bool:
        sharing = self._sharing
        if not all(sharing.held[giver].get(kind) for giver, kind, _ in moves):
            return False
        cost = sum(
            sharing.give_cost(giver, kind) + sharing.take_cost(taker, kind)
            for giver, kind, taker in moves
        )
        if ends is not None:
            falls, rises = (sharing.loads[member] for member in ends)
            cost += 2 * (rises + 1 - falls) * sharing.problem.load_cost
        return cost < 0

    def _note(self, member: int, kind: int) -> None:
        if self._sharing.misses(member, kind):
            self._missing[kind][member] = None
        else:
            self._missing[kind].pop(member, None)

    def _push(self, node: int) -> None:
        if not self._queued[node]:
            self._queued[node] = True
            self._queue.append(node)
