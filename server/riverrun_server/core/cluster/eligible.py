"""Who stays eligible to lead beside a new set of replicas in sync (KIP-966)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from riverrun_server.core.cluster.values import PartitionValue, Replica


class Eligible(NamedTuple):
    """Replicas that have everything committed, out of sync though they are.

    Attributes:
        stayed: were eligible before.
        left: left the set just now.
    """

    stayed: tuple[Replica, ...] = ()
    left: tuple[Replica, ...] = ()


def eligible(
    before: PartitionValue, isr: Collection[Replica], keeps: Callable[[Replica], bool]
) -> Eligible:
    """Return who stays eligible; nobody while enough are in sync.

    While the set is too small nothing is committed, so whoever left it then, or made it so by
    leaving, has everything that is.

    Args:
        before: the partition's value, whose set is replaced.
        isr: the new set.
        keeps: whether a replica still has the data that it had.
    """
    if len(isr) >= before.min_isr:
        return Eligible()
    inside = {each.broker for each in isr}
    left = [each for each in before.isr if each.broker not in inside]
    # A broker's later life takes the place of an earlier one that had left before.
    gone = inside | {each.broker for each in left}
    stayed = [each for each in before.elr if each.broker not in gone]
    return Eligible(tuple(filter(keeps, stayed)), tuple(filter(keeps, left)))
