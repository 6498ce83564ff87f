"""The embedded store against the plainest model: a list of all states that ever were."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import (
    Compacted,
    Compare,
    Delete,
    Entry,
    Put,
    Relation,
    Target,
    Transaction,
)
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice

KEEP = 6

keys = st.sampled_from(["a", "a/1", "a/2", "b", "b/1"])
compares = st.builds(
    Compare,
    keys,
    st.sampled_from([Target.CREATE_REVISION, Target.MOD_REVISION, Target.VERSION]),
    st.sampled_from(Relation),
    st.integers(0, 12),
) | st.builds(
    Compare,
    keys,
    st.just(Target.VALUE),
    st.sampled_from(Relation),
    st.sampled_from([b"", b"x", b"y"]),
)
operations = st.builds(Put, keys, st.sampled_from([b"", b"x", b"y"])) | st.builds(Delete, keys)
transactions = st.builds(
    Transaction,
    st.lists(compares, max_size=2).map(tuple),
    st.lists(operations, max_size=3, unique_by=lambda each: each.key).map(tuple),
)
steps = st.lists(transactions | st.sampled_from(["kill", "power cut"]), max_size=25)


class Model:
    """All states that ever were, by revision."""

    def __init__(self):
        self.states: list[dict[str, Entry]] = [{}]

    def transact(self, transaction):
        state = self.states[-1]
        for compare in transaction.compares:
            entry = state.get(compare.key)
            if compare.target is Target.VALUE and entry is None:
                return False
            actual = getattr(entry, compare.target.value) if entry else 0
            if not {
                Relation.EQUAL: lambda a, b: a == b,
                Relation.NOT_EQUAL: lambda a, b: a != b,
                Relation.LESS: lambda a, b: a < b,
                Relation.GREATER: lambda a, b: a > b,
            }[compare.relation](actual, compare.operand):
                return False
        after, revision = dict(state), len(self.states)
        for op in transaction.operations:
            before = after.pop(op.key, None)
            if isinstance(op, Put):
                after[op.key] = (
                    Entry(op.key, op.value, before.create_revision, revision, before.version + 1, 0)
                    if before
                    else Entry(op.key, op.value, revision, revision, 1, 0)
                )
        if after != state:
            self.states.append(after)
        return True

    def under(self, prefix, revision):
        state = self.states[revision]
        return [state[key] for key in sorted(state) if key.startswith(prefix)]

    def changes(self, prefix, revision):
        before, after = self.states[revision - 1], self.states[revision]
        return {
            key: after.get(key)
            for key in {*before, *after}
            if before.get(key) != after.get(key) and key.startswith(prefix)
        }


async def check(store, model, opened_at):
    newest = len(model.states) - 1
    assert (await store.scan("")).revision == newest
    kept_from = max(opened_at, newest - KEEP)
    for prefix in ("", "a", "a/", "b"):
        assert (await store.scan(prefix)).entries == model.under(prefix, newest)
        for revision in range(newest + 1):
            try:
                listing = await store.scan(prefix, revision=revision)
            except Compacted:
                assert revision < kept_from
            else:
                assert revision >= kept_from
                assert listing.entries == model.under(prefix, revision)
        watch = store.watch(prefix, kept_from + 1)
        for revision in range(kept_from + 1, newest + 1):
            expected = model.changes(prefix, revision)
            if expected:
                batch = await watch.next()
                assert batch.revision == revision
                assert {event.key: event.entry for event in batch.events} == expected
        await watch.close()


async def run(steps):
    model, disk, opened_at = Model(), FakeDisk(), 0
    store = EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice(), history_revisions=KEEP)
    await store.__aenter__()
    for step in steps:
        if isinstance(step, Transaction):
            result = await store.transact(step)
            assert result.succeeded is model.transact(step)
            assert result.revision == len(model.states) - 1
        else:
            await check(store, model, opened_at)
            await store.__aexit__(None, None, None)
            # Everything was answered, so a power cut takes no more than a kill does.
            disk = disk.after_kill() if step == "kill" else disk.after_power_cut()
            opened_at = len(model.states) - 1
            store = EmbeddedStore(
                disk, disk.durable, ManualClock(), SeededDice(), history_revisions=KEEP
            )
            await store.__aenter__()
    await check(store, model, opened_at)
    await store.__aexit__(None, None, None)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_the_embedded_store_does_what_the_model_does(steps):
    asyncio.run(run(steps))
