"""Notices that etcd is not what it was: another cluster, or one that has gone back in time; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from riverrun_server.ports.metadata import StoreEnded

_WHAT_TO_DO: Final = (
    "nothing is done on the strength of it. If it is right, because etcd was restored or replaced on "
    "purpose, start the broker once with --set etcd.confirm_store=true; what was changed since is "
    "lost, topics that were made included"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a store has been seen.

    Attributes:
        cluster_id: etcd's own number of its cluster; 0 is none seen yet.
        revision: the newest one.
    """

    cluster_id: int = 0
    revision: int = 0


class Standing:
    """The newest that any linearizable answer has shown; every later one must show as much.

    Transitions: sound -> ended (`see` found another store; everything is refused from then on).
    """

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self._ended: str | None = None

    def check(self) -> None:
        """Refuse to go on with a store that was found to be another one.

        Raises:
            StoreEnded
        """
        if self._ended is not None:
            raise StoreEnded(self._ended)

    def end(self, why: str) -> None:
        """Refuse everything from now on."""
        self._ended = self._ended or why

    def see(self, cluster_id: int, revision: int, at_least: int) -> None:
        """Take note of an answer.

        Args:
            cluster_id: of whoever answered.
            revision: of its store.
            at_least: the newest revision that was known when the question was asked; answers may
                overtake each other.

        Raises:
            StoreEnded: it is another cluster, or an older state of this one.
        """
        if self.mark.cluster_id not in (0, cluster_id):
            self.end(
                f"etcd says it is cluster {cluster_id:x}, and it was {self.mark.cluster_id:x} "
                f"before; {_WHAT_TO_DO}"
            )
        elif revision < at_least:
            self.end(f"etcd is at revision {revision}, and was at {at_least} before; {_WHAT_TO_DO}")
        self.check()
        self.mark = Mark(cluster_id, max(revision, self.mark.revision))
