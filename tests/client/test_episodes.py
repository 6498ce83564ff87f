"""A person is told once of each trouble: at once, or when it has lasted."""

from __future__ import annotations

import pytest

from riverrun._core.episodes import PATIENCE_S, Episodes
from riverrun.errors import Reason, RetriableError


def error(reason: Reason) -> RetriableError:
    return RetriableError("later", reason=reason)


OFFLINE, STALLED = error(Reason.PARTITION_OFFLINE), error(Reason.STORAGE_STALLED)


@pytest.mark.parametrize("reason", [Reason.PARTITION_OFFLINE, Reason.INTERNAL])
def test_what_only_a_person_can_mend_is_told_at_once_and_once(reason):
    episodes: Episodes[str] = Episodes()
    assert [episodes.failed("p", error(reason), at_s) for at_s in (0, 1, 1000)] == [
        True,
        False,
        False,
    ]


def test_what_usually_passes_is_told_when_it_has_lasted():
    episodes: Episodes[str] = Episodes()
    times = [10, 10 + PATIENCE_S - 0.1, 10 + PATIENCE_S, 10 + 2 * PATIENCE_S]
    assert [episodes.failed("p", STALLED, at_s) for at_s in times] == [False, False, True, False]


def test_news_is_told_at_once_whatever_it_is():
    episodes: Episodes[str] = Episodes()
    assert episodes.failed("p", STALLED, 0, at_once=True)
    assert not episodes.failed("p", STALLED, 0, at_once=True)


def test_the_next_episode_is_told_again():
    episodes: Episodes[str] = Episodes()
    assert not episodes.worked("p")
    episodes.failed("p", OFFLINE, 0)
    assert episodes.worked("p")
    assert episodes.failed("p", OFFLINE, 1)


def test_trouble_that_passed_before_anybody_heard_of_it_ends_quietly_and_counts_anew():
    episodes: Episodes[str] = Episodes()
    episodes.failed("p", STALLED, 0)
    assert not episodes.worked("p")
    assert not episodes.failed("p", STALLED, PATIENCE_S + 1)


def test_another_reason_in_the_same_episode_is_told_too():
    episodes: Episodes[str] = Episodes()
    assert not episodes.failed("p", STALLED, 0)
    assert episodes.failed("p", OFFLINE, 1)
    assert not episodes.failed("p", OFFLINE, 2)
    assert episodes.failed("p", STALLED, PATIENCE_S)


def test_each_partition_has_episodes_of_its_own():
    episodes: Episodes[str] = Episodes()
    assert episodes.failed("p", OFFLINE, 0)
    assert episodes.failed("q", OFFLINE, 5)
    assert episodes.subjects == ("p", "q")
    episodes.worked("p")
    assert (episodes.lasted_s("p", 9), episodes.lasted_s("q", 9)) == (0, 4)
