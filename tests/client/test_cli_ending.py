"""When reading has enough, against a naive model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.cli.ending import Ending

batches = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 30), max_size=6)), max_size=12
)


@given(
    batches,
    st.none() | st.integers(1, 20),
    st.none() | st.integers(0, 30),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 25)),
)
@settings(max_examples=400, deadline=None)
def test_what_is_taken_is_what_record_by_record_would_be(given_batches, most, until_ms, ends):
    ending = Ending("ab", max_records=most, until_ms=until_ms)
    ending.close_at(ends, {})
    closed = {partition for partition, end in ends.items() if end == 0}
    next_offset = {"a": 0, "b": 0}
    taken = 0
    for partition, times in given_batches:
        first = next_offset[partition]
        next_offset[partition] += len(times)
        offsets = range(first, first + len(times))
        expected = 0
        for offset, time in zip(offsets, times, strict=True):
            late = until_ms is not None and time >= until_ms
            if partition in closed or late or offset >= ends.get(partition, 1 << 62):
                closed.add(partition)
                break
            if taken == most:
                break
            expected += 1
            taken += 1
        count = ending.take(partition, offsets, lambda times=times: times)
        assert count == expected
        if count == len(times):
            ending.pass_to(partition, next_offset[partition])
        if next_offset[partition] >= ends.get(partition, 1 << 62):
            closed.add(partition)
        assert ending.done == (taken == most or closed == {"a", "b"})


def test_without_partitions_only_the_number_of_records_ends_it():
    ending: Ending[str] = Ending(max_records=3)
    assert ending.take("a", range(2), list) == 2
    assert not ending.done
    assert ending.take("b", range(2), list) == 1
    assert ending.done
    assert ending.take("a", range(2), list) == 0
    assert Ending().take("a", range(5), list) == 5


def test_gaps_between_offsets_do_not_matter():
    ending = Ending("a")
    ending.close_at({"a": 10}, {})
    assert ending.take("a", [3, 9, 12], list) == 2
    assert ending.done


def test_a_partition_that_is_there_already_is_closed_at_once():
    ending = Ending("ab")
    ending.close_at({"a": 5, "b": 5}, {"a": 5, "b": 4})
    assert ending.closed("a")
    assert not ending.closed("b")
    ending.pass_to("b", 5)
    assert ending.done


def test_the_lower_of_two_ends_holds():
    ending = Ending("a")
    ending.close_at({"a": 5}, {})
    ending.close_at({"a": 9}, {"a": 4})
    assert not ending.closed("a")
    ending.close_at({"a": 3}, {"a": 4})
    assert ending.closed("a")


def test_timestamps_are_not_asked_for_unless_a_time_is_the_end():
    ending = Ending("a")

    def fail():
        raise AssertionError

    assert ending.take("a", range(3), fail) == 3
