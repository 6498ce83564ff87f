"""Who is fenced, because it is not seen alive, and who is let back.

A liveness key that is gone proves nothing where the store, or the way to it, was the one to fail: then
many keys go at once, or the controller's own session was interrupted, and everybody gets the time to
come back. Fencing too early costs an election and fencing too late costs time; neither costs data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.steps import ABSENT, Erase, Guard, Step, Write

# A broker that two others find refusing connections has no process that listens.
_WITNESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What fencing asks for at one moment.

    Attributes:
        fence: brokers whose liveness keys are gone.
        fence_early: brokers whose keys are there, and which others find gone; the keys go with it,
            so that whoever is alive after all has to show it anew.
        let_back: fenced brokers whose keys are there.
        again_at: when to look again though nothing changes; None is never.
    """

    fence: tuple[int, ...] = ()
    fence_early: tuple[int, ...] = ()
    let_back: tuple[int, ...] = ()
    again_at: float | None = None


class Fencing:
    """Judges by liveness keys, and by what brokers tell of each other.

    Transitions: sure -> in doubt (`interrupted`, or `look` finds more than half of the keys gone, or
    this broker's own gone or made anew) -> sure (one TTL later). A new term raises no doubt by
    itself: who takes over in ordinary succession fences its predecessor at once.

    Args:
        broker_id: the controller's own broker, which it never fences.
        ttl_s: for how long a liveness key outlives its process.
        witness_s: for how long a report that a broker refuses connections counts.
    """

    def __init__(self, broker_id: int, ttl_s: float, witness_s: float = 1.0) -> None:
        assert ttl_s > 0, ttl_s
        self._broker_id = broker_id
        self._ttl_s = ttl_s
        self._witness_s = witness_s
        self._sure_at = float("-inf")
        self._many_gone = False
        self._own_key: int | None = None
        # By broker and witness: the process that was found refusing, and when.
        self._reports: dict[tuple[int, int], tuple[int, float]] = {}
        self._early: set[tuple[int, int]] = set()

    def interrupted(self, now: float) -> None:
        """Take note that this broker had lost the store for longer than its lease may be relied on."""
        self._sure_at = max(self._sure_at, now + self._ttl_s)

    def refuses(self, witness: int, broker: int, epoch: int, now: float) -> None:
        """Take note that a broker which had been reached refuses connections now.

        Args:
            witness: the broker that found it.
            broker: the one that refuses.
            epoch: its process, as the witness knew it.
            now: when the report came, on the monotonic clock.
        """
        if witness != broker:
            self._reports[broker, witness] = (epoch, now)

    def answers(self, witness: int, broker: int) -> None:
        """Take note that a witness reaches a broker again."""
        self._reports.pop((broker, witness), None)

    def look(self, image: ClusterImage, now: float) -> None:
        """See what tells that keys are not to be believed, in a term as controller or before it."""
        own = image.live.get(self._broker_id)
        if own is None or self._own_key not in (None, own.mod_revision):
            self.interrupted(now)
        if own is not None:
            self._own_key = own.mod_revision
        # The own key counts: where it is gone, too, nobody's says anything.
        serving = _serving(image)
        many_gone = 2 * len(serving - set(image.live)) > len(serving)
        if many_gone and not self._many_gone:
            self.interrupted(now)
        self._many_gone = many_gone

    def judge(self, image: ClusterImage, now: float) -> Verdict:
        """Say who is to be fenced or let back; the same until the image shows it."""
        self.look(image, now)
        self._forget(image, now)
        serving = _serving(image)
        gone = serving - set(image.live) - {self._broker_id}
        fenced = set(image.brokers) - serving
        let_back = tuple(sorted(fenced & set(image.live)))
        if now < self._sure_at:
            return Verdict(let_back=let_back, again_at=self._sure_at if gone else None)
        early = [each for each in sorted(serving - gone) if self._found_gone(image, each)]
        return Verdict(tuple(sorted(gone)), tuple(early), let_back)

    def _found_gone(self, image: ClusterImage, broker: int) -> bool:
        if broker == self._broker_id:
            return False
        witnesses = [
            witness
            for found, witness in self._reports
            if found == broker and _is_alive(image, witness)
        ]
        return len(witnesses) >= _WITNESSES

    def _forget(self, image: ClusterImage, now: float) -> None:
        """Drop reports that are old, of an earlier process, or have done what they were for.

        They do it once for each process: one that came back from it is alive, and cannot be reached.
        """
        processes = {(each, broker_epoch(found)) for each, found in image.brokers.items()}
        self._early &= processes
        for (broker, witness), (epoch, at) in [*self._reports.items()]:
            found = image.brokers.get(broker)
            if found is not None and found.value.fenced:
                self._early.add((broker, broker_epoch(found)))
            if (broker, epoch) not in processes - self._early or now - at > self._witness_s:
                del self._reports[broker, witness]


def _serving(image: ClusterImage) -> set[int]:
    return {each for each, found in image.brokers.items() if not found.value.fenced}


def _is_alive(image: ClusterImage, broker: int) -> bool:
    found = image.brokers.get(broker)
    return found is not None and not found.value.fenced and broker in image.live


def fencing_steps(image: ClusterImage, verdict: Verdict, in_term: Guard) -> Iterator[Step]:
    """Fence and let back, each broker in a step of its own that insists on what its key showed."""
    for broker in verdict.fence:
        yield _fencing_step(image, broker, in_term, Guard(keys.live(broker), ABSENT), fenced=True)
    for broker in verdict.fence_early:
        key = Erase(keys.live(broker), image.live[broker].mod_revision)
        yield _fencing_step(image, broker, in_term, key, fenced=True)
    for broker in verdict.let_back:
        shown = Guard(keys.live(broker), image.live[broker].mod_revision)
        yield _fencing_step(image, broker, in_term, shown, fenced=False)


def _fencing_step(
    image: ClusterImage, broker: int, in_term: Guard, key: Guard | Erase, *, fenced: bool
) -> Step:
    found = image.brokers[broker]
    # The revision moves on with this write, and the process stays the same.
    value = dataclasses.replace(found.value, fenced=fenced, broker_epoch=broker_epoch(found))
    return Step((in_term, key, Write(keys.broker(broker), value, found.mod_revision)))
