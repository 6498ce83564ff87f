"""What an application is given continues itself, whatever happens to streams in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun._core.partition_reader import Delivered, StartedPosition
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import Offset, TopicPartition
from riverrun.errors import CorruptDataError, Reason, RetriableError, TopicNotFoundError
from tests.client.reading_world import PREFETCH, RETRIABLE, Unreadable, World, topic_id

PLACE, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_every_record_comes_once_and_in_order(seed):
    world = World(seed)
    for _ in range(400):
        world.step()
    world.settle()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_reading_to_the_end_returns_what_was_there_at_the_start_and_no_more(seed):
    world = World(seed, stop_at_end=True)
    world.trouble = 0.0
    for _ in range(300):
        world.step()
        if world.rng.random() < 0.03:
            world.break_stream()
    world.settle()
    assert world.machine.finished
    assert world.returned == world.ends_at_first_start


def test_streams_that_break_again_and_again_do_not_fill_the_memory():
    world = World(164237786, stop_at_end=True)
    for _ in range(200):
        world.open()
        for _ in range(5):
            world.serve()
            world.hear()
        assert world.machine.ahead.queued_bytes <= PREFETCH + 9
        world.break_stream()
    world.settle()
    assert world.returned == world.ends_at_first_start


def test_the_worlds_are_rich_enough_to_find_something():
    worlds = [World(seed) for seed in range(40)]
    for world in worlds:
        for _ in range(400):
            world.step()
        world.settle()
    assert sum(sum(world.returned.values()) for world in worlds) > 3000
    assert sum(world.events for world in worlds) > 50
    assert sum(len(jumps) for world in worlds for jumps in world.jumps.values()) > 5


def machine_at(offset: int = 10, *, stop_at_end: bool = False, end: int = 100) -> ReaderMachine:
    machine: ReaderMachine = ReaderMachine(stop_at_end)
    machine.started([StartedPosition(PLACE, topic_id(PLACE), offset, end)], {})
    return machine


def delivery(first: int, next_offset: int, place: TopicPartition = PLACE) -> Delivered:
    return Delivered(place, first, next_offset, 100, 1, 5, [(first, next_offset)])


@pytest.mark.parametrize(("first", "next_offset"), [(11, 12), (9, 12), (10, 9)])
def test_a_delivery_that_does_not_continue_the_last_one_is_not_accepted(first, next_offset):
    with pytest.raises(CorruptDataError, match="where offset 10 is next") as caught:
        machine_at().delivered(delivery(first, next_offset))
    assert caught.value.reason is Reason.PROTOCOL_BROKEN


def test_a_partition_that_nobody_asked_for_is_not_accepted():
    with pytest.raises(CorruptDataError, match="not asked for"):
        machine_at().delivered(delivery(0, 1, OTHER))


def test_a_stream_that_resumes_elsewhere_is_not_accepted():
    machine = machine_at()
    machine.delivered(delivery(10, 15))
    with pytest.raises(CorruptDataError, match="resumes at offset 10"):
        machine.started([StartedPosition(PLACE, topic_id(PLACE), 10, 100)], machine.asked())


def test_a_reset_of_another_position_is_not_accepted():
    machine = machine_at()
    with pytest.raises(CorruptDataError, match="resets offset 5"):
        machine.reset(StartedPosition(PLACE, topic_id(PLACE), 50, 100), 5)


def test_a_seek_that_came_after_the_start_was_written_is_not_answered_by_it():
    machine = machine_at()
    asked = machine.asked()
    machine.seek(PLACE, Offset(40))
    assert machine.started([StartedPosition(PLACE, topic_id(PLACE), 10, 100)], asked) == []
    machine.delivered(delivery(10, 20))
    assert machine.ahead.take() is None
    assert machine.readers[PLACE].place == Offset(40)


def test_only_the_newest_seek_is_answered():
    machine = machine_at()
    first = machine.seek(PLACE, Offset(40)).seek_id
    second = machine.seek(PLACE, Offset(50)).seek_id
    at = StartedPosition(PLACE, topic_id(PLACE), 40, 100)
    assert machine.sought(first, at) is None
    assert machine.sought(second, at._replace(offset=50)) is machine.readers[PLACE]
    assert machine.readers[PLACE].position == 50


def test_an_error_is_raised_behind_what_came_before_it_and_only_once():
    machine = machine_at()
    machine.delivered(delivery(10, 12))
    assert machine.failed(PLACE, topic_id(PLACE), Unreadable()) == "told"
    assert machine.failed(PLACE, topic_id(PLACE), Unreadable()) == "told"
    taken = machine.ahead.take()
    machine.advanced(taken.reader, taken.next_offset)
    with pytest.raises(Unreadable):
        machine.ahead.take()
    assert machine.ahead.take() is None
    assert isinstance(machine.all_failed, Unreadable)


def test_a_seek_brings_a_failed_partition_back():
    machine = machine_at()
    machine.failed(PLACE, topic_id(PLACE), Unreadable())
    seek_id = machine.seek(PLACE, Offset(20)).seek_id
    machine.sought(seek_id, StartedPosition(PLACE, topic_id(PLACE), 20, 100))
    machine.delivered(delivery(20, 21))
    assert machine.ahead.take().first == 20
    assert machine.all_failed is None


def test_a_refused_seek_is_told_to_the_seeker():
    machine = machine_at()
    seek_id = machine.seek(PLACE, Offset(500)).seek_id
    assert machine.failed(PLACE, topic_id(PLACE), Unreadable(), seek_id) == "seek refused"
    assert machine.ahead.take() is None


@pytest.mark.parametrize("error", [Unreadable(), RETRIABLE])
def test_a_failure_that_was_under_way_before_a_seek_does_not_answer_it(error):
    machine = machine_at()
    earlier = machine.seek(PLACE, Offset(500)).seek_id
    seek_id = machine.seek(PLACE, Offset(20)).seek_id
    for stale in (0, earlier):
        assert machine.failed(PLACE, topic_id(PLACE), error, stale) == "told"
    assert machine.sought(seek_id, StartedPosition(PLACE, topic_id(PLACE), 20, 100))
    machine.delivered(delivery(20, 21))
    assert machine.ahead.take().first == 20
    assert machine.all_failed is None


def test_a_seek_in_a_streams_start_is_refused_by_a_failure_that_names_none():
    machine = machine_at()
    machine.seek(PLACE, Offset(500))
    machine.asked()
    assert machine.failed(PLACE, topic_id(PLACE), Unreadable()) == "seek refused"


def test_a_partition_that_is_gone_is_not_asked_for_again_until_a_seek():
    machine = machine_at()
    gone = TopicNotFoundError("gone", reason=Reason.TOPIC_NOT_FOUND)
    assert machine.failed(PLACE, topic_id(PLACE), gone) == "told"
    assert PLACE not in machine.asked()
    machine.seek(PLACE, Offset(0))
    assert PLACE in machine.asked()


def test_a_partition_out_of_reach_is_asked_for_again_and_keeps_what_was_read_ahead():
    machine = machine_at()
    machine.delivered(delivery(10, 12))
    assert machine.failed(PLACE, topic_id(PLACE), RETRIABLE) == "ask again"
    reader = machine.ask_again(PLACE)
    assert reader.place == Offset(12)
    machine.sought(reader.seek_id, StartedPosition(PLACE, topic_id(PLACE), 12, 100))
    assert machine.ahead.take().first == 10


def test_pausing_while_a_partition_is_asked_for_again_goes_back_when_it_resumes():
    machine = machine_at()
    machine.delivered(delivery(10, 12))
    machine.failed(PLACE, topic_id(PLACE), RETRIABLE)
    machine.ask_again(PLACE)
    machine.pause([PLACE])
    ((reader, has_seek),) = machine.resume([PLACE])
    assert has_seek
    assert reader.place == Offset(10)


def test_a_partition_that_could_not_begin_begins_where_it_was_asked_to():
    machine: ReaderMachine = ReaderMachine(False, "latest", {OTHER: Offset(7)})
    machine.failed(PLACE, topic_id(PLACE), RETRIABLE)
    machine.failed(OTHER, topic_id(OTHER), RETRIABLE)
    assert machine.ask_again(PLACE).place == "latest"
    assert machine.ask_again(OTHER).place == Offset(7)


def test_a_corrupt_batch_is_not_stepped_over():
    machine = machine_at()
    machine.delivered(delivery(10, 12))
    machine.delivered(delivery(12, 14))
    taken = machine.ahead.take()
    machine.corrupt(taken.reader, CorruptDataError("bad", reason=Reason.CORRUPT_DATA))
    assert machine.ahead.take() is None
    assert machine.readers[PLACE].position == 10
    assert machine.all_failed is not None


def test_pausing_gives_back_the_credit_of_what_is_dropped():
    machine = machine_at()
    machine.delivered(delivery(10, 12))
    machine.pause([PLACE])
    assert machine.ahead.credit_bytes() == 5
    machine.delivered(delivery(12, 14))
    assert machine.ahead.credit_bytes() == 10
    machine.resume([PLACE])
    assert machine.readers[PLACE].place == Offset(10)


def test_resuming_without_anything_dropped_needs_no_seek():
    machine = machine_at()
    machine.pause([PLACE])
    machine.resume([PLACE])
    assert machine.readers[PLACE].place is None


def test_a_partition_that_is_asked_for_again_is_committed_and_a_sought_one_is_not():
    machine = machine_at()
    machine.failed(PLACE, topic_id(PLACE), RETRIABLE)
    machine.ask_again(PLACE)
    assert machine.positions()[PLACE].offset == 10
    machine.seek(PLACE, Offset(50))
    assert PLACE not in machine.positions()


def test_reading_has_not_ended_before_the_broker_says_so():
    machine = machine_at(100, stop_at_end=True)
    assert not machine.finished
    assert machine.stream_ended()
    assert machine.finished


def test_a_stream_that_ends_early_is_not_the_end():
    machine = machine_at(10, stop_at_end=True)
    machine.delivered(delivery(10, 99))
    assert not machine.stream_ended()
    assert not machine.finished


def test_a_seek_after_the_end_begins_anew():
    machine = machine_at(100, stop_at_end=True)
    machine.stream_ended()
    seek_id = machine.seek(PLACE, Offset(20)).seek_id
    machine.sought(seek_id, StartedPosition(PLACE, topic_id(PLACE), 20, 100))
    machine.delivered(delivery(20, 100))
    taken = machine.ahead.take()
    machine.advanced(taken.reader, 100)
    machine.ahead.take()
    assert not machine.finished
    assert machine.stream_ended()
    assert machine.finished


@pytest.mark.parametrize("offset", [101, 4])
def test_a_place_out_of_range_is_no_end_until_the_broker_has_found_it(offset):
    machine: ReaderMachine = ReaderMachine(stop_at_end=True)
    machine.started([StartedPosition(PLACE, topic_id(PLACE), offset, 100, 5)], {})
    assert not machine.readers[PLACE].in_range
    assert not machine.stream_ended()
    machine.caught_up(PLACE)
    assert machine.readers[PLACE].in_range
    assert machine.stream_ended() == (offset >= 100)


def test_a_place_above_the_watermark_is_found_by_the_delivery_that_begins_there():
    machine: ReaderMachine = ReaderMachine(stop_at_end=False)
    machine.started([StartedPosition(PLACE, topic_id(PLACE), 101, 100)], {})
    machine.delivered(delivery(101, 102))
    assert machine.readers[PLACE].in_range


def test_a_partition_that_was_given_up_keeps_its_trouble_until_it_is_read_again():
    machine = machine_at(stop_at_end=True)
    assert machine.failed(PLACE, topic_id(PLACE), RETRIABLE) == "ask again"
    assert machine.give_up(machine.readers[PLACE], RETRIABLE) == "told"
    with pytest.raises(RetriableError):
        machine.ahead.take()
    assert machine.all_failed is RETRIABLE
    seek_id = machine.seek(PLACE, Offset(20)).seek_id
    assert machine.readers[PLACE].trouble is RETRIABLE
    machine.sought(seek_id, StartedPosition(PLACE, topic_id(PLACE), 20, 100))
    assert machine.readers[PLACE].trouble is None
    assert machine.all_failed is None


def test_a_stream_that_goes_on_with_a_partition_ends_its_trouble():
    machine = machine_at()
    assert machine.failed(PLACE, topic_id(PLACE), RETRIABLE) == "ask again"
    assert machine.readers[PLACE].trouble is RETRIABLE
    machine.started([StartedPosition(PLACE, topic_id(PLACE), 10, 100)], machine.asked())
    assert machine.readers[PLACE].trouble is None
    assert machine.failed(PLACE, topic_id(PLACE), RETRIABLE) == "ask again"
    machine.delivered(delivery(10, 12))
    assert machine.readers[PLACE].trouble is None
