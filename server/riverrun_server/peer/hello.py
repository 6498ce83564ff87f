"""Who speaks on a stream between brokers, said first by both sides and held against what is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from riverrun_server.peer.v1.replication_pb2 import PeerHello

HELLO_S: Final = 5.0
"""So long either side waits for the other's introduction."""


class WrongPeer(Exception):
    """Whoever answers there is not the broker that was meant, or speaks of another cluster."""


@dataclass(frozen=True, slots=True)
class Myself:
    """This broker's process, as it introduces itself.

    Attributes:
        cluster_id: of its cluster.
        broker_id: configured.
        broker_epoch: of its process.
        now_ms: its guarded clock.
    """

    cluster_id: str
    broker_id: int
    broker_epoch: int
    now_ms: Callable[[], int]

    def hello(self) -> PeerHello:
        """Introduce this broker."""
        return PeerHello(
            cluster_id=self.cluster_id,
            broker_id=self.broker_id,
            broker_epoch=self.broker_epoch,
            now_ms=self.now_ms(),
        )

    def check(self, hello: PeerHello, expected: int | None = None) -> None:
        """Check who introduces itself.

        Args:
            hello: what it says.
            expected: the broker that it should be; None where anybody of the cluster may be there.

        Raises:
            WrongPeer
        """
        if hello.cluster_id != self.cluster_id:
            raise WrongPeer(
                f"broker {hello.broker_id} is of cluster {hello.cluster_id!r}, and this is broker "
                f"{self.broker_id} of cluster {self.cluster_id!r}; look at --metadata of both"
            )
        if hello.broker_id == self.broker_id or expected not in (None, hello.broker_id):
            wanted = "another broker" if expected is None else f"broker {expected}"
            raise WrongPeer(
                f"broker {hello.broker_id} is where broker {self.broker_id} expected {wanted}; look "
                "at the peer addresses that brokers advertise"
            )
