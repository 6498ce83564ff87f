"""What committed offsets need of the other brokers; a broker that is alone leads everything itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn, cast

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import Home
from riverrun_server.ports.coordinators import Coordinators
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.leadership import Leadership, Leaderships
from riverrun_server.ports.partitions import Directory

NOBODY: Final = Leadership(None, 0)


class LedAlone:
    """Implements ports.leadership.Leaderships.

    Args:
        directory: finds partitions.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def of(self, partition: PartitionId) -> Leadership:
        """Return that this broker leads a partition, as long as its topic is there."""
        try:
            here = self._directory.partition("", partition.topic_id, partition.partition)
        except Refusal:
            return NOBODY
        return Leadership(None, 0, here)

    def watch(self, partition: PartitionId, changed: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 - the port's signature
        """Watch nothing: there is nobody else to lead."""
        return _nothing


class NoCoordinators:
    """Implements ports.coordinators.Coordinators by refusing, whatever is asked."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Return what refuses."""
        return _alone


def no_coordinators() -> Coordinators:
    """Return the others of a broker that is alone: whatever they are asked is refused."""
    return cast("Coordinators", NoCoordinators())


async def always_caught_up() -> None:
    """Return at once: nobody else changes the metadata."""


def _nothing() -> None:
    pass


def _alone(home: Home, *_: object) -> NoReturn:
    raise Refusal(
        Reason.NOT_READY,
        f"broker {home.leader} coordinates the group and this broker speaks to no other",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The other brokers of a cluster; the defaults are those of a broker that is alone.

    Attributes:
        leaderships: who leads what; None where this broker leads everything.
        coordinators: the others, as coordinators.
        caught_up: returns once everything is known here that the metadata said of topics before the
            call; raises a Refusal where that cannot be told.
        broker_id: this broker.
        origin: who makes the call that is being handled.
    """

    leaderships: Leaderships | None = None
    coordinators: Coordinators = field(default_factory=no_coordinators)
    caught_up: Callable[[], Awaitable[None]] = always_caught_up
    broker_id: int = 0
    origin: Callable[[], Origin] = Origin
