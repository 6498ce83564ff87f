"""A writer that lost its answer finds out what became of its transaction."""

from __future__ import annotations

import pytest

from riverrun_server.ports.metadata import (
    Compare,
    Delete,
    MetadataUnavailable,
    Put,
    Transaction,
    UnknownOutcome,
)
from riverrun_server.runtime.settling import settle


class Flaky:
    """Loses the replies, the requests, or nothing, as told; and delivers lost requests late."""

    def __init__(self, store, *faults):
        self._store = store
        self._faults = list(faults)
        self.sent = 0

    async def transact(self, transaction):
        self.sent += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault == "unavailable":
            raise MetadataUnavailable("down")
        if fault == "request lost":
            raise UnknownOutcome("timed out")
        result = await self._store.transact(transaction)
        if fault == "reply lost":
            raise UnknownOutcome("timed out")
        if callable(fault):
            await fault()
            raise UnknownOutcome("timed out")
        return result


CREATE = Transaction((Compare.absent("k"),), (Put("k", b"mine"),))


@pytest.mark.parametrize("faults", [(), ("request lost",), ("request lost", "request lost")])
async def test_a_request_that_was_lost_is_sent_again(store, faults):
    flaky = Flaky(store, *faults)
    result = await settle(flaky, CREATE)
    assert result.succeeded
    assert flaky.sent == len(faults) + 1
    assert (await store.get("k")).version == 1


@pytest.mark.parametrize(
    "faults", [("reply lost",), ("reply lost", "reply lost"), ("request lost", "reply lost")]
)
async def test_a_success_whose_reply_was_lost_is_recognised(store, faults):
    result = await settle(Flaky(store, *faults), CREATE)
    assert result.succeeded
    assert result.revision == (await store.get("k")).mod_revision
    assert (await store.get("k")).version == 1


async def test_a_condition_that_does_not_hold_is_a_definite_no(store):
    await store.transact(Transaction((), (Put("k", b"theirs"),)))
    result = await settle(Flaky(store), CREATE)
    assert not result.succeeded
    assert result.entries["k"].value == b"theirs"


async def test_another_writer_behind_a_lost_reply_leaves_the_outcome_unknown(store):
    async def overwrite():
        await store.transact(Transaction((), (Put("k", b"theirs"),)))

    with pytest.raises(UnknownOutcome, match="k was changed"):
        await settle(Flaky(store, overwrite), CREATE)


async def test_a_store_that_never_answers_leaves_the_outcome_unknown(store):
    flaky = Flaky(store, *["request lost"] * 10)
    with pytest.raises(UnknownOutcome):
        await settle(flaky, CREATE)
    assert flaky.sent == 3


async def test_a_store_that_goes_away_after_a_lost_reply_leaves_the_outcome_unknown(store):
    with pytest.raises(UnknownOutcome):
        await settle(Flaky(store, "reply lost", "unavailable"), CREATE)


async def test_a_store_that_took_nothing_says_so(store):
    with pytest.raises(MetadataUnavailable):
        await settle(Flaky(store, "unavailable"), CREATE)
    assert await store.get("k") is None


@pytest.mark.parametrize("faults", [(), ("request lost",), ("reply lost",)])
async def test_where_there_are_only_deletions_a_key_that_is_gone_is_a_success(store, faults):
    revision = (await store.transact(Transaction((), (Put("k", b"v"), Put("l", b"v"))))).revision
    erase = Transaction(
        (Compare.unchanged("k", revision), Compare.unchanged("l", revision)),
        (Delete("k"), Delete("l")),
    )
    result = await settle(Flaky(store, *faults), erase)
    assert result.succeeded
    assert (await store.scan("")).entries == []
    # Without a doubt it is a definite no.
    assert not (await settle(Flaky(store), erase)).succeeded


async def test_a_key_made_anew_behind_a_lost_deletion_leaves_the_outcome_unknown(store):
    revision = (await store.transact(Transaction((), (Put("k", b"v"),)))).revision

    async def make_anew():
        await store.transact(Transaction((), (Put("k", b"new"),)))

    erase = Transaction((Compare.unchanged("k", revision),), (Delete("k"),))
    with pytest.raises(UnknownOutcome):
        await settle(Flaky(store, make_anew), erase)


async def test_a_transaction_that_could_be_applied_twice_is_our_own_mistake(store):
    for unguarded in (
        Transaction((), (Put("k", b""),)),
        Transaction((Compare.exists("k"),), (Put("k", b""),)),
        Transaction((Compare.absent("other"),), (Put("k", b""),)),
        Transaction((Compare.exists("k"),), (Delete("k"),)),
    ):
        with pytest.raises(AssertionError):
            await settle(store, unguarded)
