"""Finds out what became of a transaction whose answer was lost, by what it would have written."""

from __future__ import annotations

from typing import Final

from riverrun_server.ports.metadata import (
    Entry,
    MetadataStore,
    MetadataUnavailable,
    Operation,
    Put,
    Relation,
    Transaction,
    TransactionResult,
    UnknownOutcome,
)

_ATTEMPTS: Final = 3


def _witness(transaction: Transaction) -> Operation:
    """Return the operation that proves the transaction, and insist that it is applied only once."""
    compared = {each.key for each in transaction.compares if each.relation is Relation.EQUAL}
    guarded = [each for each in transaction.operations if each.key in compared]
    assert guarded, f"no operation of {transaction} is guarded by a compare of its own key"
    return next((each for each in guarded if isinstance(each, Put)), guarded[0])


def _proves(witness: Operation, found: Entry | None) -> bool:
    if isinstance(witness, Put):
        return found is not None and found.value == witness.value
    return found is None


async def settle(store: MetadataStore, transaction: Transaction) -> TransactionResult:
    """Apply a transaction, and find out what became of it where the store could not say.

    At least one operation must be guarded by an equality of its own key, so that the transaction
    cannot be applied twice, and every value must be unique (`Documents.encode` with a fresh nonce),
    so that the writer recognises its own success. Sending it again is then safe even while the
    first request is still on its way. Where there are only deletions, a key that is gone is a
    success, whoever deleted it.

    Raises:
        UnknownOutcome: the store does not answer, or another writer came behind and nobody can
            tell any more what was before.
        MetadataUnavailable, InvalidTransaction, LeaseNotFound: nothing happened.
    """
    witness = _witness(transaction)
    doubt: UnknownOutcome | None = None
    for _ in range(_ATTEMPTS):
        try:
            result = await store.transact(transaction)
        except UnknownOutcome as unknown:
            doubt = unknown
            continue
        except MetadataUnavailable as unavailable:
            if doubt is None:
                raise
            raise doubt from unavailable
        if result.succeeded or doubt is None:
            return result
        found = result.entries.get(witness.key)
        if _proves(witness, found):
            revision = result.revision if found is None else found.mod_revision
            return TransactionResult(succeeded=True, revision=revision)
        raise UnknownOutcome(
            f"{witness.key} was changed while the outcome of a transaction on it was unknown; "
            "read it and decide again"
        ) from doubt
    assert doubt is not None
    raise doubt
