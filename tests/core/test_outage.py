"""An outage that many share is told once, now and then while it lasts, and when it is over."""

import itertools
import random

import pytest

from riverrun_server.core.outage import Outage, Phase


@pytest.fixture
def outage():
    return Outage(60.0)


def test_the_first_failure_is_told_at_once_and_others_are_part_of_it(outage):
    notice = outage.failed("p1", "damaged", 100.0)
    assert (notice.phase, notice.failing, notice.error) == (Phase.BEGAN, ("p1",), "damaged")
    assert outage.failed("p0", "damaged", 100.0) is None
    assert outage.failed("p1", "damaged", 159.9) is None


def test_while_it_lasts_it_is_told_with_all_who_have_it_and_what_was_last_said(outage):
    outage.failed("p1", "old", 100.0)
    outage.failed("p0", "old", 101.0)
    notice = outage.failed("p1", "new", 160.0)
    assert (notice.phase, notice.failing, notice.error) == (Phase.LASTS, ("p0", "p1"), "new")
    assert notice.lasted_s == 60.0
    assert outage.failed("p0", "new", 161.0) is None


def test_it_is_over_when_the_last_one_recovers(outage):
    outage.failed("p1", "damaged", 100.0)
    outage.failed("p0", "damaged", 100.0)
    assert outage.recovered("p1", 110.0) is None
    notice = outage.recovered("p0", 130.0)
    assert (notice.phase, notice.failing, notice.lasted_s) == (Phase.OVER, (), 30.0)


def test_whoever_had_no_trouble_ends_none(outage):
    assert outage.recovered("p0", 1.0) is None
    outage.failed("p1", "damaged", 100.0)
    assert outage.recovered("p0", 110.0) is None


def test_the_next_outage_begins_anew(outage):
    outage.failed("p1", "damaged", 100.0)
    outage.recovered("p1", 101.0)
    notice = outage.failed("p1", "damaged", 102.0)
    assert (notice.phase, notice.lasted_s) == (Phase.BEGAN, 0.0)


def test_reminders_keep_their_distance_whoever_fails_when(outage):
    dice, told, now = random.Random(1), [], 0.0
    for _ in range(5_000):
        now += dice.uniform(0.0, 1.0)
        notice = outage.failed(f"p{dice.randrange(16)}", "damaged", now)
        if notice is not None:
            told.append((notice.phase, now))
    assert [phase for phase, _ in told[:2]] == [Phase.BEGAN, Phase.LASTS]
    times = [time for _, time in told]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(60.0 <= gap < 62.0 for gap in gaps)
    assert len(told) == pytest.approx(now / 60.0, abs=2)
