"""How consumed records are written, with golden outputs."""

from __future__ import annotations

import json

import pytest

from riverrun import Record
from riverrun.cli.rendering import json_renderer, template_renderer, value_renderer
from riverrun.cli.template import Template


class Batch(list):
    """Records as a consumer's batch has them."""

    def values(self):
        """Give their values."""
        return [record.value for record in self]


def batch(*values):
    """Make a batch of values."""
    return Batch(Record("t", 0, at, 5, None, value) for at, value in enumerate(values))


@pytest.mark.parametrize(
    ("values", "delimiter", "count", "text"),
    [
        ((b"a", b"", b"c"), b"\n", 3, b"a\n\nc\n"),
        ((b"a", b"b"), b"\n", 1, b"a\n"),
        ((b"a", b"b"), b"\n", 0, b""),
        ((), b"\n", 0, b""),
        ((b"a", b"b"), b"", 2, b"ab"),
        ((b"a\0", b"\xff"), b"\0\0", 2, b"a\0\0\0\xff\0\0"),
        ((b"a", None, b""), b"\n", 3, b"a\n-\n\n"),
        ((None,), b"\n", 1, b"-\n"),
    ],
)
def test_values_are_each_followed_by_the_delimiter(values, delimiter, count, text):
    assert value_renderer(delimiter, b"-")(batch(*values), count) == text


@pytest.mark.parametrize(
    ("template", "delimiter", "text"),
    [
        ("%o=%s", b"\n", b"0=a\n1=b\n"),
        (r"%o=%s\n", b"\n", b"0=a\n1=b\n"),
        (r"%o=%s\n", b"", b"0=a\n1=b\n"),
        (r"%o=%s\n", b"\0", b"0=a\n\x001=b\n\x00"),
        ("%s", b"", b"ab"),
        (r"\n%s", b"\n", b"\na\n\nb\n"),
    ],
)
def test_a_format_that_ends_with_the_delimiter_gets_no_second_one(template, delimiter, text):
    assert template_renderer(Template(template), delimiter)(batch(b"a", b"b"), 2) == text


def test_only_as_many_as_wanted_are_written_in_every_form():
    three = batch(b"a", b"b", b"c")
    for render in (json_renderer(b"\n"), template_renderer(Template("%s"), b"\n")):
        assert render(three, 0) == b""
        assert render(three, 2).count(b"\n") == 2


def test_json_is_one_object_a_line():
    lines = json_renderer(b"\n")(batch(b"a\nb", b"\xff"), 2).splitlines()
    assert [json.loads(line).get("value") for line in lines] == ["a\nb", None]
