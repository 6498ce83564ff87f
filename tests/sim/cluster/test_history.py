"""Hand-made histories: each anomaly is found, and a correct history has none."""

from __future__ import annotations

import pytest

from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.history import Delivery, Loss, Outcome, Send
from tests.sim.cluster.rows import P0, Cluster


class Story:
    """A log of five records in four batches, two producers, one consumer; all is well."""

    def __init__(self) -> None:
        it = Cluster(min_isr=1)
        self.history = it.history
        self.log = it.watched.log
        for values in ((b"a0",), (b"b0", b"b1"), (b"a1",), (b"a2",)):
            it.append(1, 2, 3, values=values)
        it.show(1, 5)
        self.send("a", b"a0", sequence=0, at=0)
        self.send("b", b"b0", b"b1", sequence=0, at=1)
        self.send("a", b"a1", sequence=1, at=3)
        self.send("a", b"a2", sequence=2, at=4)
        self.deliver((0, b"a0"), (1, b"b0"))
        self.deliver((2, b"b1"), (3, b"a1"), (4, b"a2"))

    def send(self, who: str, *values: bytes, sequence: int, at: int | None) -> None:
        batch = Batch(values, {"a": 1, "b": 2}.get(who, 3), 0, sequence)
        it = Send(who, P0, batch, Acks.ALL, 0.0, Outcome.OK, at, done_s=1.0)
        self.history.sends.append(it)

    def deliver(self, *records: tuple[int, bytes]) -> None:
        first, last = records[0][0], records[-1][0]
        self.history.deliveries.append(Delivery("c", P0, 2.0, first, last + 1, records))

    def faults(self) -> list[str]:
        return list(self.history.faults(P0, self.log))


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_correct_history_has_no_faults(story):
    assert story.faults() == []
    assert story.history.unseen(P0, "c", story.log) == []
    assert story.history.acknowledged() == 4


def test_what_was_acknowledged_and_is_gone_is_lost(story):
    story.send("a", b"a3", sequence=3, at=5)
    assert story.faults() == ["lost: a3 was acknowledged at offset 5 and is not there"]


def test_a_loss_excuses_what_was_acknowledged_before_it_and_behind_it(story):
    story.send("a", b"a3", sequence=3, at=5)
    story.history.losses.append(Loss(P0, 2.0, 5))
    assert story.faults() == []
    story.history.losses[0] = Loss(P0, 0.5, 5)
    assert story.faults()
    story.history.losses[0] = Loss(P0, 2.0, 6)
    assert story.faults()


def test_what_only_the_leader_promised_may_be_gone(story):
    story.send("a", b"a3", sequence=3, at=5)
    story.history.sends[-1].acks = Acks.LEADER
    assert story.faults() == []


def test_an_offset_that_was_not_the_one(story):
    story.history.sends[2].base_offset = 4
    assert story.faults() == ["a1 was acknowledged at offset 4 and stands at 3"]


def test_what_was_refused_for_good_and_is_there(story):
    story.history.sends[1].outcome = Outcome.FAILED
    assert story.faults() == [
        "b0 was refused for good and stands at offset 1",
        "b1 was refused for good and stands at offset 2",
    ]


def test_what_nobody_knows_may_be_there_or_not(story):
    story.history.sends[1].outcome = Outcome.UNKNOWN
    story.send("a", b"a9", sequence=3, at=None)
    story.history.sends[-1].outcome = Outcome.UNKNOWN
    assert story.faults() == []


def test_what_stands_there_twice(story):
    twice = Cluster(min_isr=1)
    for value in (b"a0", b"b0", b"a0"):
        twice.append(1, 2, 3, values=(value,))
    twice.show(1, 3)
    assert "duplicate: a0 stands at offsets [0, 2]" in list(
        twice.history.faults(P0, twice.watched.log)
    )


def test_a_producer_whose_order_was_changed(story):
    sends = story.history.sends
    sends[0], sends[2] = sends[2], sends[0]
    assert story.faults() == ["a sent a1 before a0, and they stand at 3 and 0"]


def test_a_delivery_of_another_value(story):
    story.deliver((5, b"x"))
    assert story.faults() == ["c got x at offset 5, where nothing is committed"]


def test_a_delivery_that_skips_or_goes_back(story):
    story.history.deliveries[1] = story.history.deliveries[1]._replace(
        position=3, records=((3, b"a1"), (4, b"a2"))
    )
    assert story.faults() == ["c was at 2 and was given 3 next"]
    assert story.history.unseen(P0, "c", story.log) == [2]


def test_a_delivery_with_a_hole_or_a_wrong_end(story):
    story.history.deliveries[1] = story.history.deliveries[1]._replace(
        records=((2, b"b1"), (4, b"a2"))
    )
    assert story.faults() == ["c got offset 4 where 3 was next"]
    story.history.deliveries[1] = story.history.deliveries[1]._replace(next_offset=6)
    assert "c got records up to 5 and was told 6" in story.faults()


def test_what_was_never_delivered_is_known(story):
    del story.history.deliveries[1]
    assert story.history.unseen(P0, "c", story.log) == [2, 3, 4]
    story.log.deleted_below = 4
    assert story.history.unseen(P0, "c", story.log) == [4]


def test_what_was_to_stand_at_an_offset_or_nowhere_stands_elsewhere(story):
    story.history.sends[1].expected = [0, 1]
    assert story.faults() == []
    story.history.sends[1].expected = [0]
    assert story.faults() == ["b0 stands at 1 and was to stand at [0] or nowhere"]
