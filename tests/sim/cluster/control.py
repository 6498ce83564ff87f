"""One broker's part in controlling the cluster: it takes the key when it is free, and does the duties.

It plans on its own image, commits through its session, and plans again when the image has changed or
the plan asked for it. Nothing it does rests on being the only one.
"""

from __future__ import annotations

from collections.abc import Callable

from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.controller import Controller
from riverrun_server.core.cluster.controller_election import Claim, ControllerElection
from riverrun_server.core.cluster.fencing import Fencing
from riverrun_server.ports.metadata import (
    Compare,
    Put,
    Transaction,
    TransactionResult,
)
from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.metadata import SimMetadata
from tests.sim.cluster.session import LEASE_S, Session

# A round that was not confirmed is planned again after so long, whatever has become of it.
RETRY_S = 0.2


class Control:
    """Drives core.cluster.controller for one process, from when it is registered.

    Args:
        note: writes into the trace.
    """

    def __init__(
        self,
        session: Session,
        store: SimMetadata,
        clock: BrokerClock,
        broker: int,
        policy: TopicPolicy,
        note: Callable[..., None],
    ) -> None:
        self._session, self._store, self._clock = session, store, clock
        self._broker = broker
        self._note = note
        self._election = ControllerElection(broker, session.broker_epoch)
        self._fencing = Fencing(broker, LEASE_S)
        self._controller = Controller(broker, session.broker_epoch, policy, self._fencing)
        self._is_busy = False
        self._alone = False
        self._due_s = float("inf")

    def look(self) -> None:
        """Do what is due; to be called whenever the image has changed, and now and then."""
        now = self._clock.monotonic()
        self._doubt(now)
        if self._is_busy:
            return
        outlook = self._election.look(self._session.image, now)
        self._look_again(outlook.again_at)
        if outlook.claim is not None:
            self._claim(outlook.claim)
            return
        plan = self._controller.plan(self._session.image, now, alone=self._alone)
        self._look_again(plan.again_at)
        if not plan.steps:
            self._alone = False
            return
        self._note(
            f"control {self._broker}",
            "plan",
            f"fence={plan.fenced} back={plan.let_back} elect={plan.elected} loss={plan.unclean}",
        )
        self._is_busy = True
        self._session.commit(plan.steps, self._committed)

    def refuses(self, witness: int, broker: int, epoch: int) -> None:
        """Take a report that a broker refuses connections."""
        self._fencing.refuses(witness, broker, epoch, self._clock.monotonic())
        self.look()

    def answers(self, witness: int, broker: int) -> None:
        """Take a report that a broker answers again."""
        self._fencing.answers(witness, broker)

    def _doubt(self, now: float) -> None:
        if now >= self._session.deadline_s:
            self._fencing.interrupted(now)

    def _claim(self, claim: Claim) -> None:
        guard = claim.registration
        put = Transaction(
            (Compare.absent(claim.key), Compare.unchanged(guard.key, guard.mod_revision)),
            (Put(claim.key, claim.value, self._session.lease_id),),
        )
        self._is_busy = True
        self._session.call(lambda: self._store.transact(put), self._committed)

    def _committed(self, answer: object) -> None:
        """Plan again: at once where it went well, once the image has had time to follow else."""
        applied = isinstance(answer, TransactionResult) and answer.succeeded
        self._alone = not applied
        delay_s = RETRY_S / 10 if applied else RETRY_S

        def again() -> None:
            self._is_busy = False
            self.look()

        self._session.later(delay_s, again)

    def _look_again(self, at: float | None) -> None:
        now = self._clock.monotonic()
        if at is None or (now < self._due_s <= at):
            return
        self._due_s = at

        def due() -> None:
            if self._due_s == at:
                self._due_s = float("inf")
                self.look()

        self._session.later(max(0.0, at - now) + 1e-6, due)
