"""What each kind of setting reads and refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.config.kinds import (
    Endpoint,
    Integer,
    Maybe,
    Millis,
    Seconds,
    Size,
    Switch,
    Text,
)
from riverrun_server.config.load import all_settings
from riverrun_server.rpc.listener import Address

SIZE = Size(0, 1 << 50, unlimited=True)
TIME = Millis(0, 10**15, unlimited=True)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Integer(1, 10), "1_0", 10),
        (Integer(-5, 10), "-5", -5),
        (SIZE, "64MiB", 64 << 20),
        (SIZE, "64kB", 64_000),
        (SIZE, 12, 12),
        (SIZE, "-1", -1),
        (SIZE, -1, -1),
        (TIME, "7d", 604_800_000),
        (TIME, "1500ms", 1500),
        (TIME, 1500, 1500),
        (Seconds(0, 100), "1.5", 1.5),
        (Seconds(0, 100), "1500ms", 1.5),
        (Seconds(0, 100), 2, 2.0),
        (Switch(), "TRUE", True),
        (Switch(), False, False),
        (Maybe(Endpoint(), "x"), "[::1]:1", Address("::1", 1)),
    ],
)
def test_a_value_is_read_from_text_and_toml_alike(kind, raw, value):
    assert kind.read(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Integer(1, 10), "11"),
        (Integer(1, 10), "ten"),
        (Integer(1, 10), "9" * 5000),
        (Integer(1, 10), None),
        (Integer(0, 10), False),
        (Size(0, 10), -1),
        (Size(0, 10), "-1"),
        (SIZE, "64mb"),
        (SIZE, "1.5MiB"),
        (SIZE, "9" * 5000 + "MiB"),
        (TIME, "7 weeks"),
        (TIME, 1.5),
        (Seconds(0, 100), float("nan")),
        (Seconds(0, 100), "nan"),
        (Seconds(0, 100), True),
        (Switch(), "yes"),
        (Switch(), 1),
        (Text("a+", "letters"), "ab"),
        (Text("a+", "letters"), "a\n"),
        (Text("a+", "letters"), 1),
        (Endpoint(), "host"),
        (Endpoint(), ":1"),
        (Endpoint(), "host:"),
        (Endpoint(), "host:-1"),
        (Endpoint(), "host:65536"),
        (Endpoint(), "host:１"),  # noqa: RUF001 - a digit to Python, not to a resolver
        (Endpoint(), "::1:7171"),
        (Endpoint(), "[nonsense]:1"),
        (Endpoint(), "two hosts:1"),
        (Endpoint(), "unix:7171"),
        (Endpoint(), "UNIX-abstract:7171"),
        (Endpoint(), 7171),
    ],
)
def test_what_is_not_accepted_is_refused(kind, raw):
    with pytest.raises(ValueError):  # noqa: PT011 - the loader writes the text
        kind.read(raw)


def test_an_unknown_unit_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"one with a unit \(B, kB, .*KiB"):
        SIZE.read("64mb")


@settings(deadline=None)
@given(st.integers(0, 10**15))
def test_what_is_shown_reads_back(value):
    assert SIZE.read(SIZE.show(value)) == value
    assert TIME.read(TIME.show(value)) == value


@pytest.mark.parametrize("one", all_settings(), ids=lambda one: one.key)
def test_every_default_is_itself_accepted(one):
    if one.default is not None:
        assert one.kind.read(one.default) == one.default
    assert one.doc.endswith(".")
