"""An append that was refused with "nothing happened" is not in the log, and never will be."""

from __future__ import annotations

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.log import StorageFailed, StorageFull, StorageStalled
from riverrun_server.runtime.partition import LocalPartition
from tests.runtime.manual import settle
from tests.runtime.partition_world import ID, World

REFUSED = b"refused"


@pytest.fixture
async def world():
    """Producer 7 has written one record in its epoch 1."""
    made = World()
    await made.open()
    made.append(b"first", producer_id=7, producer_epoch=1)
    await made.sync()
    yield made
    made.running.cancel()


def following(world, **how):
    """Append what would come next."""
    return world.append(REFUSED, producer_id=7, producer_epoch=1, base_sequence=1, **how)


def refusing_writes(error):
    def cause(world):
        world.store.refuse_writes(error)
        answers = following(world)
        world.store.refuse_writes(None)
        return answers

    return cause


def a_gap(world):
    return world.append(REFUSED, producer_id=7, producer_epoch=1, base_sequence=2)


def an_overlap(world):
    return world.append(b"first", REFUSED, producer_id=7, producer_epoch=1)


def an_unknown_producer(world):
    return world.append(REFUSED, producer_id=8, base_sequence=1)


def an_older_epoch(world):
    return world.append(REFUSED, producer_id=7, producer_epoch=0)


def one_producer_too_many(world):
    world.partition._machine.producers._max_producers = 1
    return world.append(REFUSED, producer_id=8)


def another_end(world):
    return following(world, expected=0)


def a_full_disk(world):
    world.full = Refusal(Reason.STORAGE_FULL, "full")
    return following(world)


def damage(world):
    world.partition.go_offline("damage")
    return following(world)


def not_open_yet(world):
    world.partition = LocalPartition("t", ID, world.config, world.epoch + 1, world.services)
    return following(world)


async def closed(world):
    await world.close()
    return following(world)


CAUSES = {
    a_gap: Reason.OUT_OF_ORDER_SEQUENCE,
    an_overlap: Reason.OUT_OF_ORDER_SEQUENCE,
    an_unknown_producer: Reason.UNKNOWN_PRODUCER,
    an_older_epoch: Reason.PRODUCER_FENCED,
    one_producer_too_many: Reason.LIMIT_EXCEEDED,
    another_end: Reason.EXPECTED_OFFSET_MISMATCH,
    refusing_writes(StorageStalled("behind")): Reason.STORAGE_STALLED,
    refusing_writes(StorageFull("full")): Reason.STORAGE_FULL,
    a_full_disk: Reason.STORAGE_FULL,
    damage: Reason.PARTITION_OFFLINE,
    not_open_yet: Reason.NOT_READY,
    closed: Reason.SHUTTING_DOWN,
}


@pytest.mark.parametrize(
    ("cause", "reason"), CAUSES.items(), ids=[reason.name for reason in CAUSES.values()]
)
async def test_what_was_refused_is_not_there_after_a_restart_that_keeps_everything(
    world, cause, reason
):
    answers = cause(world)
    answers = answers if isinstance(answers, list) else await answers
    assert answers[0].error.reason is reason
    assert answers[0].error.meaning.definite
    await world.crash(survivors=1 << 30)
    world.full = None
    await world.open()
    assert await world.read() == {0: b"first"}
    # Nor has anybody taken note of it.
    answers = world.append(b"second", producer_id=7, producer_epoch=1, base_sequence=1, expected=1)
    await world.sync()
    assert (answers[0].base_offset, answers[0].duplicate) == (1, False)
    assert await world.read() == {0: b"first", 1: b"second"}


async def test_a_disk_that_fails_for_good_does_not_say_that_nothing_happened(world):
    answers = refusing_writes(StorageFailed("EIO"))(world)
    assert answers[0].error.reason is Reason.STORAGE_FAILED
    assert not answers[0].error.meaning.definite
    await settle()
    with pytest.raises(StorageFailed):
        await world.running


async def test_who_waits_while_the_partition_goes_is_told_that_nobody_knows(world):
    answers = following(world)
    assert answers == []
    await world.partition.drop()
    assert not answers[0].error.meaning.definite


async def test_who_waits_when_a_sync_fails_is_told_nothing(world):
    """It may be on the disk: no answer at all is the only true one, and the process ends."""
    answers = following(world)
    world.store.refuse_syncs(StorageFailed("EIO"))
    await world.sync()
    with pytest.raises(StorageFailed):
        await world.running
    assert answers == []
