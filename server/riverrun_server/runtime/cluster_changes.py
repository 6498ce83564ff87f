"""Elects preferred leaders and drains brokers for operators: any broker may, for it only writes metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from riverrun_server.core.cluster import draining, preferred_elections
from riverrun_server.core.cluster.draining import DrainPlan
from riverrun_server.core.cluster.election import TopicPartition
from riverrun_server.core.cluster.preferred_elections import Prospect, Target
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.metadata import MetadataError
from riverrun_server.runtime.metadata_changes import ATTEMPTS, MetadataChanges
from riverrun_server.runtime.metadata_writer import PlanOutdated, refusal_of

_LOOK_AT: Final = "the cluster"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Elections:
    """What became of what was asked for.

    Attributes:
        before: each partition as it was, in the order of the request; where that named none, only those
            that their preferred leader did not lead.
        after: the same partitions as they are now.
        left: how many more are due than one call elects.
    """

    before: tuple[Prospect, ...]
    after: tuple[Prospect, ...]
    left: int


@dataclass(frozen=True, slots=True)
class Drained:
    """A broker that drains, or serves again.

    Attributes:
        plan: as it was carried out last.
        changed: it was not so before.
    """

    plan: DrainPlan
    changed: bool


async def elect_leaders(
    changes: MetadataChanges, targets: Sequence[Target], at_most: int
) -> Elections:
    """Make preferred leaders lead, where they serve and are in sync; return once that has taken effect.

    Args:
        changes: where it waits for its turn.
        targets: what for; none is everything.
        at_most: how many partitions are elected, and of how many it is told, where none are named.

    Raises:
        Refusal: as MetadataChanges.in_turn. What concerns one partition is in the result.
    """

    async def run() -> Elections:
        looked = preferred_elections.look(changes.image, targets)
        due = [each.here for each in looked if each.due]
        now, later = due[:at_most], set(due[at_most:])
        before = [each for each in looked if not (each.due and each.here in later)]
        if not targets:
            before = [each for each in before if each.due or each.obstacle]
            before = sorted(before, key=lambda each: not each.due)[:at_most]
        failure = await _elected(changes, now)
        after = _now(changes, before, failure)
        moved = sum(then.due and not now.due for then, now in zip(before, after, strict=True))
        if moved:
            _log.info("preferred leaders were elected as asked for", partitions=moved)
        return Elections(tuple(before), tuple(after), len(later))

    return await changes.in_turn("electing preferred leaders", run, _LOOK_AT)


async def drain(
    changes: MetadataChanges, broker: int, *, undo: bool = False, force: bool = False
) -> Drained:
    """Have a broker drain, or serve again; the controller moves what it has.

    Args:
        changes: where it waits for its turn.
        broker: its id.
        undo: it shall serve again.
        force: drain it whatever that costs.

    Raises:
        Refusal: as core.cluster.draining, and as MetadataChanges.in_turn.
    """
    process: int | None = None
    changed = False

    def plan() -> DrainPlan:
        nonlocal process, changed
        if undo:
            planned = draining.undrain(changes.image, broker, process=process)
        else:
            planned = draining.drain(changes.image, broker, force=force, process=process)
        # Planned anew it is still about the process that was asked for.
        process, changed = planned.process, bool(planned.steps)
        return planned

    async def run() -> Drained:
        planned = await changes.carry_out(plan)
        if changed:
            what = "a broker serves again as asked for" if undo else "a broker drains as asked for"
            _log.info(what, broker=broker, broker_epoch=planned.process)
        return Drained(planned, changed)

    what = f"letting broker {broker} serve again" if undo else f"draining broker {broker}"
    return await changes.in_turn(what, run, _LOOK_AT)


async def _elected(changes: MetadataChanges, where: Sequence[TopicPartition]) -> Refusal | None:
    """Elect for partitions; return why some are left.

    One that others change meanwhile holds up no others, and is planned again.
    """
    what = "electing preferred leaders"
    for attempt in range(ATTEMPTS):
        steps = preferred_elections.elect(changes.image, where, alone=attempt > 0)
        revision = 0
        outdated: PlanOutdated | None = None
        failure: Refusal | None = None
        for step in steps:
            try:
                revision = max(revision, await changes.commit([step]))
            except PlanOutdated as error:
                outdated = error
                revision = max(revision, error.revision)
            except MetadataError as error:
                failure = refusal_of(error, what)
                break
        await changes.wait_for(revision)
        if failure is not None or outdated is None:
            return failure
    return refusal_of(PlanOutdated(changes.image.revision), what)


def _now(
    changes: MetadataChanges, before: Sequence[Prospect], failure: Refusal | None
) -> list[Prospect]:
    """Look at the same partitions again; what is still due failed."""
    targets = [Target(each.topic, each.partition) for each in before]
    looked = preferred_elections.look(changes.image, targets) if targets else []
    now = {(each.topic, each.partition): each for each in looked}
    return [_judged(now.get((each.topic, each.partition), each), failure) for each in before]


def _judged(now: Prospect, failure: Refusal | None) -> Prospect:
    if not now.due:
        return now
    why = failure or Refusal(
        Reason.CONFLICT, f"{now.topic}[{now.partition}] was changed by others meanwhile; try again"
    )
    return dataclasses.replace(now, obstacle=why)
