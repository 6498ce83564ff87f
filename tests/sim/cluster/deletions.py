"""One broker's part in deleting topics: it drops what it stores, proves that, and says so in the metadata."""

from __future__ import annotations

from collections.abc import Callable

from riverrun_server.core.cluster import deletions
from riverrun_server.core.cluster.values import Id, TombstoneState
from riverrun_server.ports.log import StorageError
from riverrun_server.ports.metadata import TransactionResult
from riverrun_server.runtime.replication.replicas import Replicas
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.session import Session

RETRY_S = 0.3


class Deletions:
    """Works off the tombstones of one process's image, one at a time.

    Transitions of one: pending -> dropped (`look`) -> durable (`synced`) -> confirmed.

    Args:
        session: has the image and commits.
        replicas: of which those of the topic are forgotten.
        disk: from which they are dropped.
        broker: whose part this is.
        note: writes into the trace.
    """

    def __init__(
        self,
        session: Session,
        replicas: Replicas,
        disk: SimDisk,
        broker: int,
        note: Callable[..., None],
    ) -> None:
        self._session, self._replicas, self._disk = session, replicas, disk
        self._broker = broker
        self._note = note
        self._dropped: Id | None = None
        self._is_busy = False

    def look(self) -> None:
        """Begin with the next one, if there is one and no other is under way."""
        topic_id = self._next()
        if self._is_busy or topic_id is None:
            return
        self._is_busy = True
        for partition in [each.partition for each in self._replicas]:
            if partition.topic_id == topic_id:
                self._replicas.forget(partition, "its topic has been deleted")
        try:
            for partition in self._disk.store.partitions():
                if partition.topic_id == topic_id:
                    self._disk.store.drop(partition)
        except StorageError:
            self._again()
            return
        self._note(f"deletions {self._broker}", "dropped", topic_id)
        self._dropped = topic_id

    def take(self) -> Id | None:
        """Return what a sync that begins now will prove to be gone."""
        dropped, self._dropped = self._dropped, None
        return dropped

    def synced(self, topic_id: Id) -> None:
        """Say in the metadata that nothing of a topic is stored here any more."""
        image = self._session.image
        found = image.tombstones.get(topic_id)
        if found is None or self._broker not in found.value.pending:
            self._again()
            return
        steps = deletions.confirm_deletion(image, found, self._broker)

        def committed(answer: object) -> None:
            applied = isinstance(answer, TransactionResult) and answer.succeeded
            self._note(f"deletions {self._broker}", "confirmed" if applied else "tried", topic_id)
            self._again()

        self._session.commit(steps, committed)

    def _next(self) -> Id | None:
        for topic_id, found in sorted(self._session.image.tombstones.items()):
            value = found.value
            if value.state is TombstoneState.DELETING and self._broker in value.pending:
                return topic_id
        return None

    def _again(self) -> None:
        """Look again in a while: the image has to show first what was confirmed."""

        def again() -> None:
            self._is_busy = False
            self.look()

        self._session.later(RETRY_S, again)
