"""Replicas are spread over hosts and racks, and leaders and replicas are even."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster.placement import Load, Site, place, sites
from tests.core.control_world import ControlWorld


def alike(racks, hosts, brokers):
    """So many brokers on each of so many hosts in each of so many racks."""
    numbers = itertools.count(1)
    return [
        Site(next(numbers), f"h{rack}.{host}", f"r{rack}")
        for rack in range(racks)
        for host in range(hosts)
        for _ in range(brokers)
    ]


def spread(counts, brokers):
    of = [counts[each] for each in brokers]
    return max(of) - min(of)


@st.composite
def some_sites(draw):
    """Any number of brokers on each host, and of hosts in each rack; ids in no order."""
    on_host = st.integers(1, 3)
    racks = draw(st.lists(st.lists(on_host, min_size=1, max_size=4), min_size=1, max_size=3))
    places = [
        (f"h{rack}.{host}", f"r{rack}")
        for rack, hosts in enumerate(racks)
        for host, brokers in enumerate(hosts)
        for _ in range(brokers)
    ]
    ids = draw(st.permutations(range(1, len(places) + 1)))
    return [Site(number, *where) for number, where in zip(ids, places, strict=True)]


@settings(max_examples=80, deadline=None)
@given(st.data(), some_sites(), st.integers(0, 40), st.binary(min_size=1, max_size=4))
def test_two_replicas_share_a_host_only_where_no_other_is_free(data, among, partitions, seed):
    count = data.draw(st.integers(1, len(among)))
    placed = place(among, partitions, count, seed)
    of = {each.broker: each for each in among}
    hosts = {each.host for each in among}
    racks = {each.rack for each in among}
    sizes = Counter(each.host for each in among)
    assert len(placed) == partitions
    for replicas in placed:
        assert len(set(replicas)) == count
        on = Counter(of[each].host for each in replicas)
        # A host has a second replica only once every other has a first, or is full.
        most = max(on.values())
        assert all(on[host] >= min(sizes[host], most - 1) for host in hosts)
        if count <= len(racks):
            assert len({of[each].rack for each in replicas}) == count


@settings(max_examples=80, deadline=None)
@given(
    st.data(),
    st.sampled_from([(1, 1, 5), (1, 6, 1), (3, 1, 1), (3, 2, 1), (2, 2, 2), (1, 3, 2), (4, 1, 2)]),
    st.integers(1, 50),
    st.binary(min_size=1, max_size=4),
)
def test_brokers_that_are_alike_have_as_many_replicas_and_lead_as_many(
    data, shape, partitions, seed
):
    among = alike(*shape)
    brokers = [each.broker for each in among]
    placed = place(among, partitions, data.draw(st.integers(1, len(among))), seed)
    assert spread(Counter(itertools.chain(*placed)), brokers) <= 1
    assert spread(Counter(replicas[0] for replicas in placed), brokers) <= 1


@pytest.mark.parametrize("shape", [(4, 3, 1), (1, 4, 3)])
@pytest.mark.parametrize(("partitions", "seed"), [(12, 3), (24, 0), (36, 3), (43, 5), (50, 2)])
def test_a_rack_or_host_gets_its_share_though_its_brokers_have_less_each(shape, partitions, seed):
    # Placed by the brokers' shares alone, each of these came out uneven.
    placed = place(alike(*shape), partitions, 5, bytes([seed]))
    assert spread(Counter(itertools.chain(*placed)), range(1, 13)) <= 1


@settings(max_examples=60, deadline=None)
@given(st.data(), some_sites(), st.integers(1, 40), st.binary(min_size=1, max_size=4))
def test_brokers_of_one_host_have_as_many_replicas_whatever_the_others_are(
    data, among, partitions, seed
):
    placed = place(among, partitions, data.draw(st.integers(1, len(among))), seed)
    counts = Counter(itertools.chain(*placed))
    for _, group in itertools.groupby(sorted(among, key=lambda s: s.host), lambda s: s.host):
        assert spread(counts, [each.broker for each in group]) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(1, 6, 1), (3, 2, 1), (1, 3, 2)]),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_topic_that_grows_stays_even(shape, count, first, more):
    among = alike(*shape)
    brokers = [each.broker for each in among]
    placed = place(among, first, count, b"s")
    load = Load()
    for each in placed:
        load.add(each)
    placed += place(among, more, count, b"t", load)
    assert spread(Counter(itertools.chain(*placed)), brokers) <= 1


def test_topics_of_one_partition_are_even_too():
    among = alike(1, 5, 1)
    brokers = [each.broker for each in among]
    cluster = Load()
    for number in range(37):
        (replicas,) = place(among, 1, 3, number.to_bytes(2, "big"), Load(), cluster)
        cluster.add(replicas)
    assert spread(cluster.replicas, brokers) <= 1
    assert spread(cluster.firsts, brokers) <= 2


def test_the_same_seed_gives_the_same_placement_and_another_gives_another():
    among = alike(1, 6, 1)
    assert place(among, 12, 3, b"a") == place(among, 12, 3, b"a")
    assert place(among, 12, 3, b"a") != place(among, 12, 3, b"b")


@pytest.mark.parametrize("seed", range(6))
def test_what_one_broker_led_is_taken_over_by_several(seed):
    placed = place(alike(1, 6, 1), 60, 3, bytes([seed]))
    assert spread(Counter(replicas[1] for replicas in placed), range(1, 7)) <= 2
    for broker in range(1, 7):
        heirs = Counter(replicas[1] for replicas in placed if replicas[0] == broker)
        assert len(heirs) >= 3


def test_counting_changes_nothing_that_was_given():
    cluster = Load()
    cluster.add((1, 2))
    place(alike(1, 3, 1), 5, 2, b"a", Load(), cluster)
    assert (cluster.replicas, cluster.firsts) == (Counter({1: 1, 2: 1}), Counter({1: 1}))


def test_fenced_and_draining_brokers_take_no_replicas_and_no_host_is_a_host_of_its_own():
    world = ControlWorld(4)
    world.start(2, host="h", rack="r")
    world.change(3, fenced=True)
    world.change(4, draining=True)
    assert sites(world.image.brokers) == [Site(1, "broker 1", ""), Site(2, "h", "r")]


@pytest.mark.parametrize("count", [0, 4])
def test_more_replicas_than_brokers_cannot_be_placed(count):
    with pytest.raises(AssertionError):
        place(alike(1, 3, 1), 1, count, b"a")
