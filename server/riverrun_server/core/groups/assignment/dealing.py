"""From kinds to partitions: how many of each kind a member gets, and then which.

A member keeps what it has, as far as its share goes; what is left is dealt out in rounds, like cards,
so that partitions that stand side by side come to different members.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

from riverrun_server.core.groups.assignment import chains, filling
from riverrun_server.core.groups.assignment.sharing import Counts, Problem, Sharing

# How much work an assignor may do beyond what gives each partition to somebody: half a second or so,
# in which nothing else happens. When a member comes or goes, a thousand that subscribe alike take a
# hundredth of it, and so do a hundred that do not.
_STEPS_MAX = 1_000_000

T = TypeVar("T")


def deal(
    kinds: Sequence[Sequence[T]],
    types: Sequence[Mapping[int, int]],
    type_of: Sequence[int],
    had: Sequence[Mapping[int, Sequence[T]]],
    *,
    sticky: bool,
) -> list[list[T]]:
    """Share everything out among the members, balanced first and then as cheap as can be.

    Args:
        kinds: what there is of each kind.
        types: for each type of member the kinds that it may take, and what one costs there. Each
            kind is in one of them that some member is of.
        type_of: the type of each member; at least one.
        had: what each member has already of the kinds that it may take.
        sticky: whether what a member has stays with it before costs are looked at; else it stays
            where that costs nothing.
    """
    total = sum(map(len, kinds))
    place_cost = max((cost for each in types for cost in each.values()), default=0)
    move_cost = total * place_cost + 1 if sticky else 0
    problem = Problem(
        sizes=[*map(len, kinds)],
        types=types,
        type_of=type_of,
        had=[{kind: len(things) for kind, things in each.items()} for each in had],
        load_cost=total * (move_cost + place_cost) + 1,
        move_cost=move_cost,
    )
    sharing = Sharing(problem, problem.had if sticky else [{} for _ in had])
    filling.release(sharing)
    filling.fill(sharing)
    chains.improve(sharing, filling.level(sharing, _STEPS_MAX))
    return _hand_over(kinds, had, sharing.held)


def _hand_over(
    kinds: Sequence[Sequence[T]],
    had: Sequence[Mapping[int, Sequence[T]]],
    shares: Sequence[Counts],
) -> list[list[T]]:
    hands: list[list[T]] = []
    taken: list[set[T]] = [set() for _ in kinds]
    takers: list[deque[tuple[int, int]]] = [deque() for _ in kinds]
    for member, share in enumerate(shares):
        hand: list[T] = []
        for kind, count in share.items():
            kept = had[member].get(kind, ())[:count]
            hand.extend(kept)
            taken[kind].update(kept)
            if len(kept) < count:
                takers[kind].append((member, count - len(kept)))
        hands.append(hand)
    for kind, waiting in enumerate(takers):
        for thing in kinds[kind] if waiting else ():
            if thing not in taken[kind]:
                member, count = waiting.popleft()
                hands[member].append(thing)
                if count > 1:
                    waiting.append((member, count - 1))
        assert not waiting, "a share is as large as what there is"
    return hands
