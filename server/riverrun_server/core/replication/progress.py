"""What a leader knows of its followers: what is on their disks, and when they last kept up.

A probe is a moment that the leader remembers: when it was, and where the log ended then. A follower
that acknowledges a probe confirms that moment, never the one at which its answer arrived: between
the two it may have accepted another leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

# At one a second, what was sent longer ago than a minute is of no use to anybody.
_PROBES_REMEMBERED: Final = 64


class _Moment(NamedTuple):
    at: float
    log_end: int


class Probes:
    """The newest moments that a leader sent, numbered from 1."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque(maxlen=_PROBES_REMEMBERED)
        self.newest = 0

    def mark(self, now: float, log_end: int) -> int:
        """Remember this moment; return its number."""
        self._moments.append(_Moment(now, log_end))
        self.newest += 1
        return self.newest

    def find(self, probe: int) -> _Moment | None:
        """Return a moment; None where there was no such one or it is forgotten."""
        age = self.newest - probe
        if not 0 <= age < len(self._moments):
            return None
        return self._moments[-1 - age]


@dataclass(slots=True)
class Progress:
    """One follower's process.

    Attributes:
        broker_epoch: which process of the broker it is.
        caught_up_at: when it last had everything that the leader had, in seconds.
        acked_at: when it last acknowledged anything; None where it never did in this leader epoch.
        durable_end: everything below it is on its disk; None until it said so in this leader epoch.
        confirmed_at: when the newest probe that it confirmed was sent, in seconds.
        offline: it said that it cannot serve the partition.
        asked_from: where its log ended when it last asked and had a prefix of the leader's.
        doubted_at: what it has on its disk counts where it answers a later probe than this one.
    """

    broker_epoch: int
    caught_up_at: float
    acked_at: float | None = None
    durable_end: int | None = None
    confirmed_at: float | None = None
    offline: bool = False
    asked_from: int = 0
    doubted_at: int = -1


class Followers:
    """The followers of one partition in one leader epoch; only the newest process of each counts.

    Args:
        now: when the epoch began here; whoever is never heard of kept up until then.
    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._known: dict[int, Progress] = {}
        self.probes = Probes()

    def __iter__(self) -> Iterator[int]:
        """Yield the brokers that were heard of."""
        return iter(self._known)

    def of(self, broker: int, broker_epoch: int) -> Progress | None:
        """Return what is known of one process of a broker."""
        found = self._known.get(broker)
        return found if found is not None and found.broker_epoch == broker_epoch else None

    def heard(self, broker: int, broker_epoch: int) -> Progress | None:
        """Return the progress of a process that spoke; None where a later one of its broker has.

        What an earlier process had on its disk may be lost, so that is forgotten.
        """
        found = self._known.get(broker)
        if found is None or found.broker_epoch < broker_epoch:
            found = self._known[broker] = Progress(broker_epoch, self._since)
        return found if found.broker_epoch == broker_epoch else None

    def acked(
        self, progress: Progress, durable_end: int, probe: int, log_end: int, now: float
    ) -> None:
        """Take what a process acknowledged; acknowledgements may overtake each other.

        Args:
            progress: from `heard`.
            durable_end: what it has on its disk.
            probe: the newest one that it had seen.
            log_end: of the leader, now.
            now: in seconds.
        """
        progress.acked_at = now
        moment = self.probes.find(probe)
        if moment is not None and (
            progress.confirmed_at is None or progress.confirmed_at < moment.at
        ):
            progress.confirmed_at = moment.at
        if probe <= progress.doubted_at:
            return
        end = progress.durable_end = max(progress.durable_end or 0, durable_end)
        if end >= log_end:
            progress.caught_up_at = now
        if moment is not None and end >= moment.log_end:
            progress.caught_up_at = max(progress.caught_up_at, moment.at)

    def doubt(self, broker: int) -> None:
        """Count nothing that a broker has said so far of its disk, nor what is still under way."""
        found = self._known[broker]
        found.durable_end, found.doubted_at = None, self.probes.newest

    def forget(self, broker: int) -> None:
        """Know nothing of a broker any more: it holds no replica."""
        self._known.pop(broker, None)

    def caught_up_at(self, broker: int) -> float:
        """Return when a broker last had everything that the leader had."""
        found = self._known.get(broker)
        return self._since if found is None else found.caught_up_at

    def forgive(self, seconds: float, now: float) -> None:
        """Count no time in which the leader itself did not run: nobody could be heard then."""
        self._since = min(self._since + seconds, now)
        for each in self._known.values():
            each.caught_up_at = min(each.caught_up_at + seconds, now)
