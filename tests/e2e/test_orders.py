"""The shop of client/examples/orders: workers and the broker are killed, and the totals are exact."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from examples.orders.events import Event, expected, made_events
from examples.orders.shelf import Shelf, Summary

CLIENT = Path(__file__).resolve().parents[2] / "client"


@pytest.mark.timeout(180)
def test_a_shop_whose_workers_and_broker_are_killed_sells_what_it_has_and_no_more():
    done = subprocess.run(
        [sys.executable, "-m", "examples.orders", "--orders", "3000", "--kills", "5"],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "5 workers were killed" in said
    assert "the broker is back" in said
    assert "none lost, none twice, none oversold" in said


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf.db")


def test_what_is_on_the_shelf_already_is_taken_in_once(shelf):
    events = [Event("a", 5), Event("a", 3, "o1"), Event("a", 3, "o2"), Event("a", 2, "o3")]
    numbered = list(enumerate(events))
    assert shelf.apply(0, numbered[:3]) == 3
    assert shelf.apply(0, numbered) == 1
    assert shelf.apply(0, numbered) == 0
    assert shelf.summary() == Summary({}, 2, 1) == expected(events)
    assert shelf.places() == {0: 4}


def test_what_comes_after_a_gap_changes_nothing(shelf):
    shelf.apply(0, [(0, Event("a", 5))])
    with pytest.raises(ValueError, match="offset 2 of partition 0 comes after 0"):
        shelf.apply(0, [(2, Event("a", 5))])
    assert shelf.summary() == Summary({"a": 5}, 0, 0)


def test_an_order_that_came_twice_under_two_offsets_is_no_order(shelf):
    shelf.apply(0, [(0, Event("a", 5)), (1, Event("a", 1, "o"))])
    with pytest.raises(sqlite3.IntegrityError):
        shelf.apply(0, [(2, Event("a", 1, "o"))])
    assert shelf.summary() == Summary({"a": 4}, 1, 0)
    assert shelf.places() == {0: 2}


def test_more_is_ordered_than_there_is():
    events = made_events(2000, random.Random(1))
    found = expected(events)
    assert found.reserved > 0
    assert found.refused > 0
    assert found.reserved + found.refused == 2000
