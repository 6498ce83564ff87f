"""When the replicas in sync of a partition that becomes durable are named as lives that outlast a crash.

What counted while it was only written is on no disk for that. Whoever acknowledges in an epoch of the class
`syncing` has synced since it took the epoch up, and counts nothing since then that is not synced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from riverrun_server.core.cluster.values import Durability, Replica
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.terms import Change, Registered


def becoming_durable(
    insync: InSyncSet,
    registered: Mapping[int, Registered],
    held: Callable[[Replica], int | None],
    needed: int,
) -> Change | None:
    """Return the change to be asked for, pending from here on; None where that is not due.

    The members must be registered as the processes that acknowledged.

    Args:
        insync: the replicas in sync.
        registered: by broker id.
        held: up to where a member has said in this leader epoch that everything is on its disk.
        needed: up to where something may have counted.
    """
    value = insync.committed
    if value.durability is not Durability.SYNCING or insync.is_too_small:
        return None
    members = []
    for replica in value.isr:
        registration, end = registered.get(replica.broker), held(replica)
        if registration is None or not registration.is_life(replica) or end is None or end < needed:
            return None
        members.append(registration)
    changed = insync.become_durable([each.life(Durability.FSYNC) for each in members])
    if changed is None:
        return None
    guards = tuple((each.replica.broker, each.mod_revision) for each in members)
    return Change(changed, insync.revision, guards)
