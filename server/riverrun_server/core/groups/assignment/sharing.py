"""How many partitions of each kind every member has, and what one more or one less would cost.

Partitions that no member can tell apart are of one kind: the same members may take them, and they
have replicas in the same racks. So is every member that may take the same kinds at the same cost of
one type. What is sought is the cheapest way to share the kinds out, where

    cost = load_cost * (the sum of the squares of the members' loads)
         + move_cost * (how many partitions a member had, may keep, and does not keep)
         + the cost of each partition where it is

and the weights let each line count only where the lines above it are equal. The least sum of squares
is the best balance there is, for all of max, min and everything between (Harvey, Ladner, Lovasz,
Tamir: Semi-matchings for bipartite graphs and load balancing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# How many of each kind, by the number of the kind; a kind of which there is none is not in it.
Counts = dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What there is to share out, and among whom.

    Attributes:
        sizes: how many partitions there are of each kind.
        types: for each type of member the kinds that it may take, and what one costs there.
        type_of: the type of each member.
        had: how many each member had of the kinds that it may take.
        load_cost: the weight of balance.
        move_cost: the weight of a partition that does not stay.
    """

    sizes: Sequence[int]
    types: Sequence[Mapping[int, int]]
    type_of: Sequence[int]
    had: Sequence[Counts]
    load_cost: int
    move_cost: int


class Sharing:
    """A way to share out, while it is being improved.

    Attributes:
        problem: what there is to share out.
        held: how many each member has of each kind.
        loads: how many each member has.
    """

    def __init__(self, problem: Problem, held: Sequence[Counts]) -> None:
        self.problem = problem
        self.held = [dict(each) for each in held]
        self.loads = [sum(each.values()) for each in held]

    def misses(self, member: int, kind: int) -> bool:
        """Return whether a member has fewer of a kind than it had."""
        return self.held[member].get(kind, 0) < self.problem.had[member].get(kind, 0)

    def give_cost(self, member: int, kind: int) -> int:
        """Return what it costs, load apart, that a member gives one up that it has."""
        problem = self.problem
        place_cost = problem.types[problem.type_of[member]][kind]
        if self.held[member][kind] <= problem.had[member].get(kind, 0):
            return problem.move_cost - place_cost
        return -place_cost

    def take_cost(self, member: int, kind: int) -> int:
        """Return what it costs, load apart, that a member takes one."""
        problem = self.problem
        place_cost = problem.types[problem.type_of[member]][kind]
        if problem.had[member] and self.misses(member, kind):
            return place_cost - problem.move_cost
        return place_cost

    def give(self, member: int, kind: int) -> None:
        """Take one from a member that has one."""
        held = self.held[member]
        held[kind] -= 1
        if not held[kind]:
            del held[kind]
        self.loads[member] -= 1

    def take(self, member: int, kind: int) -> None:
        """Give one to a member that may have it."""
        held = self.held[member]
        held[kind] = held.get(kind, 0) + 1
        self.loads[member] += 1
