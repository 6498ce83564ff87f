"""What every metadata store promises; a store joins by a world of its own in conftest."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.ports.metadata import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    Compacted,
    Compare,
    Delete,
    FutureRevision,
    InvalidTransaction,
    LeaseNotFound,
    MetadataUnavailable,
    Put,
    Relation,
    Target,
    Transaction,
)


async def put(store, key, value=b"v", lease=0):
    result = await store.transact(Transaction((), (Put(key, value, lease),)))
    assert result.succeeded
    return result.revision


async def delete(store, key):
    return (await store.transact(Transaction((), (Delete(key),)))).revision


async def holds(store, *compares):
    return (await store.transact(Transaction(compares, ()))).succeeded


async def next_of(watch):
    async with asyncio.timeout(5):
        return await watch.next()


# --- revisions and entries


async def test_every_change_of_any_key_takes_the_next_revision(store):
    first = await put(store, "a")
    assert await put(store, "b") == first + 1
    assert await put(store, "a") == first + 2
    assert await delete(store, "b") == first + 3


async def test_what_changes_nothing_takes_no_revision(store):
    revision = await put(store, "a")
    assert await delete(store, "missing") == revision
    assert (await store.transact(Transaction((), ()))).revision == revision
    assert (await store.transact(Transaction((Compare.absent("a"),), (Put("b", b""),)))).revision
    assert await put(store, "a") == revision + 1


async def test_an_entry_tells_when_it_was_made_and_put_and_how_often(store):
    created = await put(store, "a", b"1")
    await put(store, "other")
    changed = await put(store, "a", b"2")
    entry = await store.get("a")
    assert (entry.key, entry.value, entry.lease) == ("a", b"2", 0)
    assert (entry.create_revision, entry.mod_revision, entry.version) == (created, changed, 2)


async def test_a_key_made_again_begins_a_new_life(store):
    await put(store, "a")
    await put(store, "a")
    await delete(store, "a")
    assert await store.get("a") is None
    created = await put(store, "a")
    entry = await store.get("a")
    assert (entry.create_revision, entry.mod_revision, entry.version) == (created, created, 1)


async def test_putting_the_same_value_is_a_change(store):
    revision = await put(store, "a", b"same")
    assert await put(store, "a", b"same") == revision + 1


async def test_a_scan_returns_the_keys_under_a_prefix_in_order_at_one_revision(store):
    for key in ("b/2", "a", "b/10", "b/1", "c", "b"):
        revision = await put(store, key, key.encode())
    listing = await store.scan("b/")
    assert [entry.key for entry in listing.entries] == ["b/1", "b/10", "b/2"]
    assert [entry.value for entry in listing.entries] == [b"b/1", b"b/10", b"b/2"]
    assert listing.revision == revision
    assert len((await store.scan("")).entries) == 6
    # Pages of a store must not pass over a key that only adds to the last one.
    for longer in range(1, 9):
        await put(store, "b/1" + "\0" * longer)
    assert len((await store.scan("b/1")).entries) == 10
    assert (await store.scan("zzz")).entries == []


async def test_the_past_can_be_read_as_it_was(store):
    first = await put(store, "k/a", b"1")
    second = await put(store, "k/b", b"2")
    third = await put(store, "k/a", b"3")
    fourth = await delete(store, "k/b")

    async def at(revision):
        listing = await store.scan("k/", revision=revision)
        assert listing.revision == revision
        return {entry.key: entry.value for entry in listing.entries}

    assert await at(first) == {"k/a": b"1"}
    assert await at(second) == {"k/a": b"1", "k/b": b"2"}
    assert await at(third) == {"k/a": b"3", "k/b": b"2"}
    assert await at(fourth) == {"k/a": b"3"}
    assert (await store.get("k/a", revision=second)).value == b"1"
    assert await store.get("k/b", revision=first) is None
    assert (await store.get("k/b", revision=third)).value == b"2"


async def test_a_revision_that_is_not_reached_is_refused(store):
    revision = await put(store, "a")
    with pytest.raises(FutureRevision):
        await store.get("a", revision=revision + 1)
    with pytest.raises(FutureRevision):
        await store.scan("", revision=revision + 1)


async def test_a_revision_that_is_no_longer_kept_is_refused(world):
    store = await world.open()
    first = await put(store, "a")
    await put(store, "b")
    await world.forget()
    with pytest.raises(Compacted) as refused:
        await store.scan("", revision=first)
    assert refused.value.compacted_revision > first


# --- transactions


@pytest.mark.parametrize(
    ("relation", "operand", "expected"),
    [
        (Relation.EQUAL, 0, True),
        (Relation.EQUAL, -1, False),
        (Relation.EQUAL, 1, False),
        (Relation.NOT_EQUAL, 0, False),
        (Relation.NOT_EQUAL, 1, True),
        (Relation.LESS, 0, False),
        (Relation.LESS, 1, True),
        (Relation.GREATER, 0, False),
        (Relation.GREATER, -1, True),
    ],
)
@pytest.mark.parametrize("target", [Target.CREATE_REVISION, Target.MOD_REVISION, Target.VERSION])
async def test_numbers_of_a_key_are_compared(store, target, relation, operand, expected):
    await put(store, "x")
    await put(store, "key")
    await put(store, "key")
    entry = await store.get("key")
    actual = getattr(entry, target.value)
    assert await holds(store, Compare("key", target, relation, actual + operand)) is expected
    # For a key that is not there every number is 0.
    assert await holds(store, Compare("missing", target, relation, operand)) is expected


@pytest.mark.parametrize(
    ("relation", "operand", "expected"),
    [
        (Relation.EQUAL, b"m", True),
        (Relation.EQUAL, b"n", False),
        (Relation.NOT_EQUAL, b"n", True),
        (Relation.LESS, b"n", True),
        (Relation.LESS, b"m", False),
        (Relation.GREATER, b"l", True),
        (Relation.GREATER, b"m", False),
    ],
)
async def test_the_value_of_a_key_is_compared(store, relation, operand, expected):
    await put(store, "key", b"m")
    assert await holds(store, Compare("key", Target.VALUE, relation, operand)) is expected
    assert not await holds(store, Compare("missing", Target.VALUE, relation, operand))


async def test_the_named_conditions_say_what_they_mean(store):
    created = await put(store, "there")
    changed = await put(store, "there")
    assert await holds(
        store,
        Compare.exists("there"),
        Compare.absent("not"),
        Compare.unchanged("there", changed),
        Compare.unchanged("not", 0),
        Compare.same_life("there", created),
    )
    for wrong in (
        Compare.exists("not"),
        Compare.absent("there"),
        Compare.unchanged("there", created),
        Compare.unchanged("there", 0),
        Compare.same_life("there", changed),
    ):
        assert not await holds(store, wrong)


async def test_a_transaction_changes_several_keys_at_one_revision(store):
    await put(store, "old")
    result = await store.transact(
        Transaction(
            (Compare.exists("old"), Compare.absent("new")),
            (Put("new", b"1"), Delete("old"), Put("third", b"3")),
        )
    )
    assert result.succeeded
    listing = await store.scan("")
    assert [(e.key, e.mod_revision) for e in listing.entries] == [
        ("new", result.revision),
        ("third", result.revision),
    ]


async def test_one_failed_condition_leaves_everything_and_tells_what_stands(store):
    await put(store, "a", b"1")
    revision = await put(store, "b", b"2")
    result = await store.transact(
        Transaction(
            (Compare.exists("a"), Compare.unchanged("b", revision - 1), Compare.absent("c")),
            (Put("a", b"x"), Put("c", b"x"), Delete("b")),
        )
    )
    assert not result.succeeded
    assert result.revision == revision
    assert result.entries["a"].value == b"1"
    assert result.entries["b"].mod_revision == revision
    assert result.entries["c"] is None
    assert [entry.value for entry in (await store.scan("")).entries] == [b"1", b"2"]


async def test_of_many_at_once_one_compare_and_swap_wins(store):
    revision = await put(store, "key", b"0")
    results = await asyncio.gather(
        *(
            store.transact(
                Transaction(
                    (Compare.unchanged("key", revision),), (Put("key", str(each).encode()),)
                )
            )
            for each in range(20)
        )
    )
    won = [number for number, result in enumerate(results) if result.succeeded]
    assert len(won) == 1
    assert (await store.get("key")).value == str(won[0]).encode()
    for result in results:
        if not result.succeeded:
            assert result.entries["key"].mod_revision > revision


async def test_counting_by_compare_and_swap_loses_nothing(store):
    async def count(times):
        while times:
            entry = await store.get("n")
            number, revision = (int(entry.value), entry.mod_revision) if entry else (0, 0)
            result = await store.transact(
                Transaction(
                    (Compare.unchanged("n", revision),), (Put("n", str(number + 1).encode()),)
                )
            )
            times -= result.succeeded

    await asyncio.gather(*(count(10) for _ in range(5)))
    assert int((await store.get("n")).value) == 50


async def test_a_transaction_holds_a_hundred_operations_and_no_more(store):
    keys = [f"k{number:03}" for number in range(MAX_OPERATIONS + 1)]
    compares = tuple(Compare.absent(key) for key in keys)
    puts = tuple(Put(key, b"") for key in keys)
    assert (await store.transact(Transaction(compares[:-1], puts[:-1]))).succeeded
    with pytest.raises(InvalidTransaction, match="101 operations in a transaction, max 100"):
        await store.transact(Transaction((), puts))
    with pytest.raises(InvalidTransaction, match="101"):
        await store.transact(Transaction(compares, ()))
    assert len((await store.scan("k")).entries) == MAX_OPERATIONS


async def test_a_transaction_changes_no_key_twice_and_has_a_bounded_size(store):
    with pytest.raises(InvalidTransaction, match="twice"):
        await store.transact(Transaction((), (Put("a", b"1"), Delete("a"))))
    with pytest.raises(InvalidTransaction, match=str(MAX_TRANSACTION_BYTES)):
        await store.transact(Transaction((), (Put("a", bytes(MAX_TRANSACTION_BYTES)),)))
    assert await store.get("a") is None


# --- leases


async def test_a_lease_that_is_not_kept_alive_takes_its_keys_along(world, store):
    lease = await store.grant(world.ttl_s)
    other = await store.grant(60)
    await put(store, "mine", lease=lease.lease_id)
    await put(store, "too", lease=lease.lease_id)
    before = await put(store, "others", lease=other.lease_id)
    assert (await store.get("mine")).lease == lease.lease_id
    watch = store.watch("", before + 1)
    await world.pass_time(world.ttl_s / 2)
    assert await store.get("mine") is not None
    await world.pass_time(world.ttl_s / 2)
    # A lease may end late, but its keys end together.
    batch = await next_of(watch)
    assert [(event.key, event.entry) for event in batch.events] == [("mine", None), ("too", None)]
    assert [entry.key for entry in (await store.scan("")).entries] == ["others"]
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(lease.lease_id)


async def test_a_lease_that_is_kept_alive_begins_anew(world, store):
    lease = await store.grant(world.ttl_s)
    assert lease.ttl_s == world.ttl_s
    await put(store, "mine", lease=lease.lease_id)
    for _ in range(2):
        await world.pass_time(world.ttl_s * 0.6)
        assert await store.keep_alive(lease.lease_id) == lease
    assert await store.get("mine") is not None


async def test_revoking_a_lease_deletes_its_keys_at_once(store):
    lease = await store.grant(10)
    await put(store, "mine", lease=lease.lease_id)
    await put(store, "kept")
    await store.revoke(lease.lease_id)
    assert await store.get("mine") is None
    assert await store.get("kept") is not None
    with pytest.raises(LeaseNotFound):
        await store.revoke(lease.lease_id)


async def test_a_key_put_again_goes_with_the_lease_of_the_last_put(store):
    first, second = await store.grant(10), await store.grant(10)
    await put(store, "freed", lease=first.lease_id)
    await put(store, "freed")
    await put(store, "moved", lease=first.lease_id)
    await put(store, "moved", lease=second.lease_id)
    await store.revoke(first.lease_id)
    assert [entry.key for entry in (await store.scan("")).entries] == ["freed", "moved"]
    await store.revoke(second.lease_id)
    assert [entry.key for entry in (await store.scan("")).entries] == ["freed"]


async def test_a_put_with_a_lease_that_is_gone_changes_nothing(store):
    lease = await store.grant(10)
    await store.revoke(lease.lease_id)
    with pytest.raises(LeaseNotFound):
        await put(store, "mine", lease=lease.lease_id)
    assert await store.get("mine") is None


# --- watches


async def test_a_watch_tells_the_past_from_its_revision_and_then_what_comes(store):
    await put(store, "k/a", b"1")
    start = await put(store, "k/a", b"2")
    await put(store, "other")
    await delete(store, "k/a")
    watch = store.watch("k/", start)
    first, second = await next_of(watch), await next_of(watch)
    assert (first.revision, first.events[0].entry.value) == (start, b"2")
    assert (second.revision, second.events[0].entry) == (start + 2, None)
    waiting = asyncio.ensure_future(next_of(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    revision = await put(store, "k/b", b"3")
    batch = await waiting
    assert (batch.revision, batch.events[0].key) == (revision, "k/b")


async def test_a_watch_may_begin_in_the_future(store):
    revision = await put(store, "a")
    watch = store.watch("", revision + 2)
    await put(store, "passed over")
    await put(store, "seen")
    assert (await next_of(watch)).events[0].key == "seen"


async def test_a_watch_shows_a_transaction_whole_and_only_its_prefix(store):
    revision = await put(store, "x")
    watch = store.watch("k/", revision)
    result = await store.transact(
        Transaction((), (Put("k/1", b""), Put("other", b""), Put("k/2", b""), Delete("x")))
    )
    batch = await next_of(watch)
    assert batch.revision == result.revision
    assert [event.key for event in batch.events] == ["k/1", "k/2"]
    assert all(event.mod_revision == result.revision for event in batch.events)


async def test_a_watch_after_a_scan_misses_nothing_and_repeats_nothing(store):
    await put(store, "k0")
    listing = await store.scan("k")
    known = {entry.key for entry in listing.entries}
    watch = store.watch("k", listing.revision + 1)
    for number in range(1, 10):
        await put(store, f"k{number}")
    for _ in range(1, 10):
        (event,) = (await next_of(watch)).events
        assert event.key not in known
        known.add(event.key)
    assert known == {f"k{number}" for number in range(10)}


async def test_a_watch_from_a_compacted_revision_says_so(world):
    store = await world.open()
    first = await put(store, "a")
    await put(store, "a")
    await world.forget()
    watch = store.watch("", first)
    with pytest.raises(Compacted):
        await next_of(watch)
    with pytest.raises(Compacted):
        await next_of(watch)


async def test_a_watcher_that_is_too_slow_gets_every_change_or_is_told_to_list_again(world):
    store = await world.open()
    revision = await put(store, "a")
    watch = store.watch("", revision)
    assert (await next_of(watch)).revision == revision
    for _ in range(40):
        last = await put(store, "a")
    await world.forget()
    told = None
    while told is None and revision < last:
        revision += 1
        try:
            assert (await next_of(watch)).revision == revision
        except Compacted as compacted:
            told = compacted
    assert told is None or told.compacted_revision >= revision


async def test_a_watch_that_waits_is_not_slow_however_much_changes_elsewhere(world):
    store = await world.open()
    revision = await put(store, "a")
    watch = store.watch("quiet", revision)
    waiting = asyncio.ensure_future(next_of(watch))
    for _ in range(40):
        await put(store, "loud")
    await put(store, "quiet")
    assert (await waiting).events[0].key == "quiet"


async def test_a_cancelled_wait_loses_no_event(store):
    revision = await put(store, "a")
    watch = store.watch("", revision + 1)
    waiting = asyncio.ensure_future(watch.next())
    await asyncio.sleep(0)
    waiting.cancel()
    await put(store, "b")
    assert (await next_of(watch)).events[0].key == "b"


async def test_a_wait_that_is_cancelled_while_an_event_is_there_loses_it_not(store):
    revision = await put(store, "a")
    watch = store.watch("", revision)
    told = [(await next_of(watch)).revision]
    for _ in range(20):
        revision = await put(store, "a")
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        if not waiting.cancel():
            told.append(waiting.result().revision)
    while told[-1] < revision:
        told.append((await next_of(watch)).revision)
    assert told == list(range(revision - 20, revision + 1))


async def test_a_closed_watch_ends_whoever_waits_on_it(store):
    watch = store.watch("", 1 + await put(store, "a"))
    waiting = asyncio.ensure_future(watch.next())
    await asyncio.sleep(0)
    await watch.close()
    with pytest.raises(MetadataUnavailable):
        await waiting


# --- restarts


async def test_a_restart_keeps_every_entry_and_goes_on_counting(world):
    store = await world.open()
    await put(store, "a", b"1")
    await put(store, "gone")
    await put(store, "a", b"2")
    last = await delete(store, "gone")
    before = await store.scan("")
    store = await world.restart()
    assert await store.scan("") == before
    assert await put(store, "b") == last + 1


async def test_the_key_of_a_lease_is_gone_at_the_latest_a_ttl_after_a_restart(world):
    store = await world.open()
    lease = await store.grant(world.ttl_s)
    await put(store, "mine", lease=lease.lease_id)
    revision = await put(store, "kept")
    store = await world.restart()
    await world.pass_time(world.ttl_s * 1.1)
    batch = await next_of(store.watch("", revision + 1))
    assert [(event.key, event.entry) for event in batch.events] == [("mine", None)]
    listing = await store.scan("")
    assert [entry.key for entry in listing.entries] == ["kept"]
    assert listing.revision == revision + 1
    with pytest.raises(LeaseNotFound):
        await store.keep_alive(lease.lease_id)


async def test_a_watch_from_before_a_restart_gets_its_events_or_is_told_to_list_again(world):
    store = await world.open()
    start = await put(store, "a")
    store = await world.restart()
    revision = await put(store, "b")
    watch = store.watch("", start)
    try:
        keys = [(await next_of(watch)).events[0].key, (await next_of(watch)).events[0].key]
    except Compacted:
        watch = store.watch("", revision)
        assert (await next_of(watch)).events[0].key == "b"
    else:
        assert keys == ["a", "b"]
