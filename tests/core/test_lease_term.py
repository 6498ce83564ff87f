"""A holder stops before the store does, whatever its requests and their answers took."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster.lease_term import LeaseTerm


def term(sent_at=100.0, ttl_s=3.0):
    term = LeaseTerm(margin_s=0.5)
    term.begin(sent_at, ttl_s)
    return term


def test_a_lease_that_was_never_granted_does_not_hold():
    assert not LeaseTerm(0.5).holds(0)
    assert not term().anew().holds(100)


def test_it_holds_until_the_margin_before_its_end_counted_from_the_request():
    assert term().holds(102.49)
    assert not term().holds(102.5)


def test_a_renewal_counts_from_its_own_request_and_never_shortens():
    renewed = term()
    renewed.begin(102.0, 3.0)
    assert renewed.holds(104.4)
    renewed.begin(101.0, 3.0)  # an answer that came late
    assert renewed.holds(104.4)
    assert not renewed.holds(104.5)


def test_it_is_renewed_three_times_in_its_life_and_tried_again_sooner():
    assert term().pause_s(failed=False) == pytest.approx(1.0)
    assert term().pause_s(failed=True) == pytest.approx(0.3)


def test_a_time_to_live_that_the_margin_eats_up_is_our_own_mistake():
    with pytest.raises(AssertionError):
        term(ttl_s=0.5)
