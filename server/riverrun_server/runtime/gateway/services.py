"""What all routed partitions of a broker share, and what the answers of a leader become for clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.gateway.lane import WAIT_S
from riverrun_server.ports.gateways import Leaders, Origin
from riverrun_server.runtime.gateway.remote_cursor import LittleRoom

# Said by a broker that does not lead, or not yet, or no more: the next one will serve.
MOVED: Final = frozenset(
    {
        Reason.NOT_LEADER,
        Reason.FENCED_LEADER_EPOCH,
        Reason.UNKNOWN_LEADER_EPOCH,
        Reason.LEADER_NOT_AVAILABLE,
    }
)
# Said by another broker, these are about that one; said by this broker, they are about the client's.
AWAY: Final = MOVED | {Reason.SHUTTING_DOWN, Reason.NOT_READY}


@dataclass(frozen=True, slots=True)
class GatewayServices:
    """What all routed partitions of a broker share.

    Attributes:
        broker_id: of this broker.
        leaders: the streams to the others.
        origin: says for whom the call is made that is being served.
        endpoints: where clients reach each broker, by id and listener; kept up to date.
        room: for what idle readers are sent.
        wait_s: how long an append or a question waits for a leader.
    """

    broker_id: int
    leaders: Leaders
    origin: Callable[[], Origin]
    endpoints: Mapping[int, Mapping[str, str]]
    room: LittleRoom = field(default_factory=LittleRoom)
    wait_s: float = WAIT_S

    def hint(self, broker_id: int, leader_epoch: int) -> LeaderHint:
        """Return what clients are told of a leader."""
        return LeaderHint(broker_id, leader_epoch, self.endpoints.get(broker_id, {}))

    def for_clients(self, refusal: Refusal, *, remote: bool) -> Refusal:
        """Return what a client of this gateway is told of a refusal.

        It has asked no particular broker, so it is not told that one does not lead, or goes away: the
        leadership is moving, and asking again after a moment is right.

        Args:
            refusal: of whoever was asked.
            remote: whether that is another broker.
        """
        hint = refusal.leader
        if refusal.reason not in (AWAY if remote else MOVED):
            return refusal
        return Refusal(
            Reason.LEADER_NOT_AVAILABLE,
            f"the leadership is moving, and nothing happened: {refusal.message}",
            leader=None if hint is None else self.hint(hint.broker_id, hint.leader_epoch),
        )


def again(refusal: Refusal) -> Refusal:
    """Return a new one: an exception that is raised twice collects both tracebacks."""
    return Refusal(refusal.reason, refusal.message, leader=refusal.leader)
