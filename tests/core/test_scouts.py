"""While a coordinator cannot be had, one of those who look for it asks, and the others follow its answer."""

from __future__ import annotations

from riverrun_server.core.groups.scouts import Scouts


def in_trouble(scout="a", leadership=1):
    scouts = Scouts()
    scouts.refused(scout, leadership)
    return scouts


def test_everybody_may_ask_where_nothing_is_wrong():
    scouts = Scouts()
    scouts.asked("a", 1)
    assert scouts.may_ask("b", 1)
    assert scouts.is_clear


def test_who_was_refused_first_asks_again_and_nobody_else():
    scouts = in_trouble("a")
    scouts.refused("b", 1)
    assert scouts.may_ask("a", 1)
    assert not scouts.may_ask("b", 1)
    assert not scouts.may_ask("c", 1)


def test_its_answer_lets_the_others_ask_once():
    scouts = in_trouble("a")
    assert scouts.answered(5.0)
    assert scouts.may_ask("b", 1)
    assert not scouts.answered(6.0)


def test_another_leadership_has_another_scout_whoever_comes_first():
    scouts = in_trouble("a", 1)
    assert scouts.may_ask("b", 2)
    scouts.asked("b", 2)
    assert not scouts.may_ask("a", 2)
    assert not scouts.may_ask("c", 2)
    assert scouts.may_ask("b", 2)


def test_a_scout_that_leaves_is_followed_by_the_next():
    scouts = in_trouble("a")
    assert not scouts.left("b")
    assert scouts.left("a")
    assert scouts.may_ask("b", 1)
    scouts.asked("b", 1)
    assert not scouts.may_ask("c", 1)
    assert not scouts.left("a")


def test_where_what_stood_with_it_was_lost_one_looks_first():
    scouts = Scouts()
    scouts.doubted(5.0)
    assert scouts.may_ask("a", 1)
    scouts.asked("a", 1)
    assert not scouts.may_ask("b", 1)
    assert scouts.answered(6.0)


def test_who_learns_late_of_what_was_lost_doubts_nobody_that_has_answered_since():
    scouts = Scouts()
    scouts.answered(6.0)
    scouts.doubted(5.0)
    assert scouts.is_clear
    scouts.doubted(7.0)
    assert not scouts.is_clear
