"""Carries out planned changes of metadata, step by step, and says what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from riverrun_server.core.cluster.steps import EARLIER, Erase, Guard, Step, Write
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.log import StorageFull
from riverrun_server.ports.metadata import (
    Compare,
    Delete,
    Documents,
    MetadataError,
    MetadataStore,
    MetadataUnavailable,
    Operation,
    Put,
    Transaction,
    UnknownOutcome,
)
from riverrun_server.runtime.settling import settle

_NONCE_BYTES: Final = 8


class PlanOutdated(MetadataError):
    """A key had changed since the plan was made: plan again on newer metadata.

    Args:
        revision: metadata of at least this revision shows the change.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"the metadata had changed by revision {revision}")
        self.revision = revision


class MetadataWriter:
    """Turns steps into transactions with documents in them."""

    def __init__(self, store: MetadataStore, documents: Documents, dice: Dice) -> None:
        self._store = store
        self._documents = documents
        self._dice = dice

    async def commit(self, steps: Iterable[Step]) -> int:
        """Apply steps in order; return the revision of the last one.

        Raises:
            PlanOutdated: a step did not fit any more; the ones before it are done.
            UnknownOutcome: nobody knows about one step; the ones before it are done.
            MetadataUnavailable: a step was not taken; the ones before it are done.
        """
        revision = 0
        written: dict[str, int] = {}
        for step in steps:
            result = await settle(self._store, self._transaction(step, written))
            if not result.succeeded:
                raise PlanOutdated(result.revision)
            revision = result.revision
            for change in step.changes:
                if isinstance(change, Write):
                    written[change.key] = revision
        assert revision > 0, "an empty plan was committed"
        return revision

    def _transaction(self, step: Step, written: dict[str, int]) -> Transaction:
        compares = []
        operations: list[Operation] = []
        for change in step.changes:
            at = change.mod_revision
            compares.append(
                Compare.unchanged(change.key, written[change.key] if at == EARLIER else at)
            )
            match change:
                case Write(key, value):
                    nonce = self._dice.token(_NONCE_BYTES)
                    operations.append(Put(key, self._documents.encode(value, nonce)))
                case Erase(key):
                    operations.append(Delete(key))
                case Guard():
                    pass
        return Transaction(tuple(compares), tuple(operations))


def refusal_of(error: MetadataError, what: str) -> Refusal:
    """Return what a client is told about a change that the store did not confirm."""
    if isinstance(error, PlanOutdated):
        return Refusal(
            Reason.CONFLICT,
            f"{what}: others changed the same metadata again and again; try again",
        )
    if isinstance(error, UnknownOutcome):
        return Refusal(
            Reason.STORAGE_FAILED,
            f"{what}: nobody knows whether it was done ({error}); look before doing it again",
        )
    if isinstance(error, MetadataUnavailable):
        full = isinstance(error.__cause__, StorageFull)
        reason = Reason.STORAGE_FULL if full else Reason.STORAGE_STALLED
        return Refusal(reason, f"{what}: the metadata store took nothing: {error}")
    return Refusal(Reason.INTERNAL, f"{what}: {error}")
