"""Who is the controller: the process that wrote the one key, for as long as its lease keeps it.

The key is written only where there is none, and never again: its revision names the term, and whatever
the controller does is a transaction that insists on that revision. Two processes may believe that they
are the controller; the writes of one of them do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Guard
from riverrun_server.core.cluster.values import ControllerValue


@dataclass(frozen=True, slots=True)
class Claim:
    """What takes the controller's key, in one transaction.

    It has to go with the lease of the process's own liveness key, so that whoever is not seen alive
    controls nothing either.

    Attributes:
        key: to be written where it is absent.
        value: what to write.
        registration: insists that the process is still the one that is registered.
    """

    key: str
    value: ControllerValue
    registration: Guard


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a process has to do about the controller's key.

    Attributes:
        claim: to be made now.
        again_at: when to look again though nothing changes; None is never.
    """

    claim: Claim | None = None
    again_at: float | None = None


def term(image: ClusterImage, broker_id: int, broker_epoch: int) -> Guard | None:
    """Return what insists on a process's term as controller; None where it is not the controller."""
    found = image.controller
    if found is None or (found.value.broker_id, found.value.broker_epoch) != (
        broker_id,
        broker_epoch,
    ):
        return None
    return Guard(keys.CONTROLLER, found.mod_revision)


class ControllerElection:
    """One process's part in it.

    All who are alive may take a vacant key. They do it one after the other, those that are to stay first,
    so that usually one asks and nobody is turned away; the order is a courtesy and nothing rests on it.

    Transitions: taken -> vacant (the key is gone) -> taken.

    Args:
        broker_id: of this broker.
        broker_epoch: of this process.
        stagger_s: how long each lets the one before it go first.
    """

    def __init__(self, broker_id: int, broker_epoch: int, stagger_s: float = 0.1) -> None:
        self._broker_id = broker_id
        self._broker_epoch = broker_epoch
        self._stagger_s = stagger_s
        self._vacant_since: float | None = None

    def look(self, image: ClusterImage, now: float) -> Outlook:
        """Say whether to claim the key."""
        if image.controller is not None:
            self._vacant_since = None
            return Outlook()
        if self._vacant_since is None:
            self._vacant_since = now
        standing = Standing(image.brokers)
        order = sorted(
            (each for each in image.live if each in image.brokers),
            key=lambda each: (not standing.stays(each), each),
        )
        if self._broker_id not in order or standing.epoch(self._broker_id) != self._broker_epoch:
            return Outlook()
        due = self._vacant_since + self._stagger_s * order.index(self._broker_id)
        if now < due:
            return Outlook(again_at=due)
        value = ControllerValue(broker_id=self._broker_id, broker_epoch=self._broker_epoch)
        return Outlook(Claim(keys.CONTROLLER, value, standing.guard(self._broker_id)))
