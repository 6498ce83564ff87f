"""What holds of every setting there is: documented, its default in range, every bad value refused by name."""

from __future__ import annotations

import re

import pytest

from riverrun_server.config.kinds import Integer, Maybe, Millis, Seconds, Size
from riverrun_server.config.load import ConfigError, all_settings, load

EVERY = all_settings()


def key(one) -> str:
    return one.key


def written(one, value: str) -> str:
    """A file that sets it."""
    table, _, name = one.key.rpartition(".")
    return f"[{table}]\n{name} = {value}\n" if table else f"{name} = {value}\n"


def only_problem(**sources) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**sources)
    [found] = caught.value.problems
    return found


@pytest.mark.parametrize("one", EVERY, ids=key)
def test_it_says_what_it_does_and_what_it_accepts(one):
    assert re.fullmatch(r"[A-Z].*[.]", one.doc)
    assert one.kind.accepts
    assert len(one.doc) < 400


@pytest.mark.parametrize("one", EVERY, ids=key)
def test_its_default_is_a_value_that_it_accepts_and_shows(one):
    if isinstance(one.kind, Maybe):
        assert one.default is None
        assert one.kind.show(None)
        return
    assert one.kind.read(one.default) == one.default
    shown = one.kind.show(one.default)
    if shown != "unlimited":
        assert one.kind.read(shown) == one.default


@pytest.mark.parametrize("one", EVERY, ids=key)
def test_what_it_does_not_accept_is_refused_with_its_name_origin_and_range(one, tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(written(one, "[[1]]"))
    line = 2 if "." in one.key else 1
    flag = one.flag if one.has_flag else f"--set {one.key}"
    said = f"{one.key}: expected {one.kind.accepts}, got "
    assert only_problem(file=path).startswith(f"file {path}:{line}: {said}[[1]]")
    found = only_problem(environ={one.variable: "\0"})
    assert found.startswith(f"environment {one.variable}: {said}'\\x00'")
    assert only_problem(flags={one.key: "\0"}).startswith(f"flag {flag}: {said}'\\x00'")


@pytest.mark.parametrize(
    "one",
    [one for one in EVERY if isinstance(one.kind, Integer | Size | Millis | Seconds)],
    ids=key,
)
def test_its_range_is_the_one_that_is_told(one):
    kind = one.kind
    step = 0.001 if isinstance(kind, Seconds) else 1
    for inside in (kind.low, kind.high):
        assert kind.read(str(inside)) == inside
    for outside in (kind.low - step, kind.high + step):
        if outside == -1 and getattr(kind, "unlimited", False):
            continue
        assert "expected" in only_problem(flags={one.key: str(outside)})


@pytest.mark.parametrize("one", EVERY, ids=key)
def test_one_letter_too_many_is_answered_with_its_name(one, tmp_path):
    path = tmp_path / "broker.toml"
    path.write_text(written(one, "1").replace(" = ", "x = "))
    assert only_problem(file=path).endswith(f"did you mean {one.key}?")
    assert only_problem(environ={f"{one.variable}X": "1"}).endswith(f"mean {one.variable}?")
    assert only_problem(flags={f"{one.key}x": "1"}).endswith(f"did you mean {one.key}?")
