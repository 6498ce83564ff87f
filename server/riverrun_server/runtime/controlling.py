"""One broker's part in controlling the cluster: it takes the key when that is free, and does the duties.

It plans on its own image, carries the plan out, and plans again once the image shows what came of
it, or something else, or the plan asked for it. Nothing rests on its being the only one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.controller import Controller, Plan
from riverrun_server.core.cluster.controller_election import Claim, ControllerElection
from riverrun_server.core.cluster.fencing import Fencing
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.metadata import (
    Compare,
    Documents,
    MetadataError,
    MetadataStore,
    Put,
    StoreEnded,
    Transaction,
)
from riverrun_server.runtime.metadata_writer import MetadataWriter
from riverrun_server.runtime.settling import settle

# What was not confirmed is planned again after so long, whatever has become of it.
RETRY_S: Final = 0.2
_NONCE_BYTES: Final = 8

_log = structlog.stdlib.get_logger(__name__)


class Session(Protocol):
    """A broker's lease on its liveness key."""

    @property
    def lease_id(self) -> int:
        """What the controller's key goes with."""
        ...

    @property
    def holds(self) -> bool:
        """Whether the lease may be relied on now."""
        ...


@dataclass(slots=True)
class ControlCounts:
    """What a process has done as controller since it began, and what the newest plan left offline."""

    elections: int = 0
    unclean_elections: int = 0
    fenced: int = 0
    offline: int = 0


class Controlling:
    """Runs the machines of control for one process, from when it is registered.

    Attributes:
        counts: for the metrics.

    Args:
        image: kept up to date by others, who call `wake` when it has changed.
        election: whether this process is to take the key.
        controller: plans.
        fencing: judges who is alive.
        session: of this process.
        store: where the key stands.
        writer: carries out plans.
        documents: write the key's value.
        clock: times everything.
        dice: makes nonces.
        make: begins to make topics that the brokers need; waits for nothing, and never raises.
    """

    def __init__(
        self,
        image: ClusterImage,
        election: ControllerElection,
        controller: Controller,
        fencing: Fencing,
        session: Session,
        store: MetadataStore,
        writer: MetadataWriter,
        documents: Documents,
        clock: Clock,
        dice: Dice,
        make: Callable[[Sequence[NewTopic]], Awaitable[None]],
    ) -> None:
        self._image = image
        self._election = election
        self._controller = controller
        self._fencing = fencing
        self._session = session
        self._store = store
        self._writer = writer
        self._documents = documents
        self._clock = clock
        self._dice = dice
        self._make = make
        self.counts = ControlCounts()
        self._changed = asyncio.Event()
        self._alone = False

    def wake(self) -> None:
        """Look again: the image has changed."""
        self._changed.set()

    def refuses(self, witness: int, broker: int, epoch: int) -> None:
        """Take a report that a broker's process refuses connections."""
        self._fencing.refuses(witness, broker, epoch, self._clock.monotonic())
        self.wake()

    def answers(self, witness: int, broker: int) -> None:
        """Take a report that a broker is reached again."""
        self._fencing.answers(witness, broker)

    async def run(self) -> None:
        """Do what is due until cancelled.

        Raises:
            StoreEnded: the metadata store will answer nothing any more.
        """
        while True:
            self._changed.clear()
            wait_s = await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _look(self) -> float | None:
        """Do what is due now; return when to look again, in seconds, None where a change will tell."""
        now = self._clock.monotonic()
        if not self._session.holds:
            # What is decided here must not be carried out: nobody may see this process alive.
            self._fencing.interrupted(now)
            return RETRY_S
        outlook = self._election.look(self._image, now)
        if outlook.claim is not None:
            await self._claim(outlook.claim)
            return RETRY_S
        plan = self._controller.plan(self._image, now, alone=self._alone)
        self.counts.offline = len(plan.offline)
        again = [at - now for at in (outlook.again_at, plan.again_at) if at is not None]
        if plan.missing and not plan.steps:
            await self._make(plan.missing)
            again.append(RETRY_S)
        if not plan.steps:
            self._alone = False
            return max(0.0, min(again)) if again else None
        return await self._carry_out(plan)

    async def _carry_out(self, plan: Plan) -> float:
        """Carry a plan out as far as it goes; what is left is planned again."""
        try:
            await self._writer.commit(plan.steps)
        except StoreEnded:
            raise
        except MetadataError as error:
            # Others write to partitions, too: one of them is not to hold up the rest again.
            self._alone = True
            _log.info("a plan was not carried out to its end", why=str(error))
        else:
            self._alone = False
            self._count(plan)
            _tell(plan)
        return RETRY_S

    def _count(self, plan: Plan) -> None:
        self.counts.elections += len(plan.elected)
        self.counts.unclean_elections += len(plan.unclean)
        self.counts.fenced += len(plan.fenced)

    async def _claim(self, claim: Claim) -> None:
        guard = claim.registration
        value = self._documents.encode(claim.value, self._dice.token(_NONCE_BYTES))
        transaction = Transaction(
            (Compare.absent(claim.key), Compare.unchanged(guard.key, guard.mod_revision)),
            (Put(claim.key, value, self._session.lease_id),),
        )
        try:
            result = await settle(self._store, transaction)
        except StoreEnded:
            raise
        except MetadataError as error:
            _log.info("this broker could not become the controller", why=str(error))
            return
        if result.succeeded:
            _log.info("this broker is the controller", broker=claim.value.broker_id)


def _tell(plan: Plan) -> None:
    """Log what a person who looks for the cause of something would look for."""
    told = {
        "fenced": plan.fenced,
        "let_back": plan.let_back,
        "elections": len(plan.elected),
        "unclean": [f"{topic}-{number}" for topic, number in plan.unclean],
        "offline": len(plan.offline),
    }
    found = {key: value for key, value in told.items() if value}
    if found:
        _log.info("the controller has acted", **found)
